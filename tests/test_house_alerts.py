"""Alerts speak of metrics that exist, and lead to runbooks that exist and whose commands run."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from fleet.db import db
from tests.cast import Cast, request
from tests.source import ROOT
from tests.tasks.outboxes import dead_letter, promised

ALERTS = ROOT / "deploy" / "alerts.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
# What is done without an alarm.
BY_CALENDAR = {"rotate-secrets.md"}
# Words of PromQL that look like names of metrics.
WORDS = {"sum", "max", "min", "by", "on", "rate", "increase", "delta", "absent", "and", "or", "unless"}


@cache
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression of PromQL reads."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)|\"[^\"]*\"", "", expression)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare)) - WORDS


def labels_of(expression: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    selected = {name for part in re.findall(r"\{([^}]*)\}", expression) for name in re.findall(r"(\w+)\s*=", part)}
    grouped = {name.strip() for part in re.findall(r"\bby \(([^)]*)\)", expression) for name in part.split(",")}
    return selected | grouped


@pytest.fixture
def exposed(cast: Cast) -> Iterator[str]:
    """What /metrics gives while there is something of everything."""
    dead_letter()
    promised()
    promised()
    last = "(SELECT id FROM outbox WHERE dead_at IS NULL ORDER BY id DESC LIMIT 1)"
    db.execute_sql(f"UPDATE outbox SET confirmed_at = now() WHERE id = {last}")
    cast.admin.post("/admin/circuit-breakers/smtp/close", {"reason": "to be seen"})
    cast.app.extensions["fleet"].__dict__.pop("watch", None)
    yield request(cast.app, "GET", "/metrics").get_data(as_text=True)
    cast.admin.post("/admin/circuit-breakers/smtp/auto")


def test_every_alert_reads_metrics_that_exist(exposed: str) -> None:
    known = set(re.findall(r"^# TYPE (\w+) ", exposed, re.MULTILINE))
    read = {rule["alert"]: metrics_of(rule["expr"]) for rule in rules()}
    assert all(read.values())
    assert {alert: names - known for alert, names in read.items() if names - known} == {}


def test_every_label_of_an_alert_is_one_of_its_metric(exposed: str) -> None:
    for rule in rules():
        [metric] = metrics_of(rule["expr"])
        samples = re.findall(rf"^{metric}(?:\{{(.*)\}})? ", exposed, re.MULTILINE)
        known = {name for sample in samples for name in re.findall(r"(\w+)=", sample)}
        assert samples, f"{metric} has no sample here, so that nobody knows its labels"
        assert labels_of(rule["expr"]) <= known, rule["alert"]
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= known, rule["alert"]


def test_every_alert_has_a_severity_and_leads_to_a_runbook() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert (ROOT / rule["annotations"]["runbook"]).is_file(), rule["alert"]


def test_every_runbook_names_the_alerts_that_lead_to_it_and_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for path in RUNBOOKS.glob("*.md"):
        leading = {rule["alert"] for rule in rules() if rule["annotations"]["runbook"].endswith(f"/{path.name}")}
        assert bool(leading) != (path.name in BY_CALENDAR), f"does an alert lead to {path.name}?"
        assert {alert for alert in leading if f"`{alert}`" not in path.read_text()} == set()
        assert f"runbooks/{path.name}" in index


def blocks(language: str) -> list[Any]:
    found: list[Any] = []
    for path in sorted(RUNBOOKS.glob("*.md")):
        for block in re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL):
            found.append(pytest.param(block, id=f"{path.stem}-{len(found)}"))
    return found


@pytest.mark.parametrize("sql", blocks("sql"))
def test_the_queries_of_runbooks_run(cast: Cast, sql: str) -> None:
    promised()
    db.rows(sql.replace("%", "%%"))


def commands() -> set[str]:
    """Every complete command of ours that a runbook tells to run."""
    said = "\n".join(path.read_text() for path in RUNBOOKS.glob("*.md"))
    return {found.strip() for found in re.findall(r"flask --app wsgi ([^`\n]+)", said)}


@pytest.mark.parametrize("command", sorted(commands()))
def test_the_commands_of_runbooks_run(cast: Cast, set_to: Callable[..., None], command: str) -> None:
    set_to(licence_key="a-licence-key-as-its-runbook-has-one-set")
    letter_id = dead_letter(topic="accounting.post_invoice")
    arguments = re.findall(r'"[^"]*"|\S+', command.replace("ID", letter_id))
    result = cast.app.test_cli_runner().invoke(args=[argument.strip('"') for argument in arguments])
    assert result.exit_code == 0, result.output


def test_there_are_queries_and_commands_to_run() -> None:
    assert len(blocks("sql")) >= 3
    assert len(commands()) >= 5
