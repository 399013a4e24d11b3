"""Who sees the metrics."""

from dataclasses import replace

import pytest
from flask import Flask

from tests.cast import request


@pytest.fixture
def with_settings(app: Flask, monkeypatch: pytest.MonkeyPatch):
    def use(**changed: object) -> Flask:
        wiring = app.extensions["fleet"]
        monkeypatch.setattr(wiring, "settings", replace(wiring.settings, **changed))
        return app

    return use


def test_a_laptop_shows_the_golden_signals(app: Flask) -> None:
    request(app, "GET", "/health/live")
    text = request(app, "GET", "/metrics").get_data(as_text=True)
    for name in ("fleet_http_request_seconds", "fleet_http_responses_total", "fleet_http_busy_threads", "fleet_http_threads"):
        assert name in text


def test_with_a_token_only_its_bearer_sees_them(with_settings) -> None:
    app = with_settings(metrics_token="scrape-me")
    assert request(app, "GET", "/metrics").status_code == 401
    assert request(app, "GET", "/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert request(app, "GET", "/metrics", headers={"Authorization": "Bearer scrape-me"}).status_code == 200


def test_production_without_a_token_does_not_show_them(with_settings) -> None:
    assert request(with_settings(env="production"), "GET", "/metrics").status_code == 404
