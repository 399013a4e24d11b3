"""Every lock has a race, and the race shows when the lock is gone."""

import importlib
import inspect
from collections.abc import Callable

import pytest

from tests.races.locks import LOCKS, Race
from tests.races.mutation import locks_of_source, without


def test_every_lock_of_the_service_has_its_race() -> None:
    assert set(locks_of_source()) == set(LOCKS)


def test_a_lock_says_so_in_its_name() -> None:
    """Functions do; a statement is a lock by what it reads for."""
    functions = {name for name in locks_of_source() if name.islower() and not name.startswith(("_", "guard_"))}
    assert not {name for name in functions if not name.endswith(("_for_update", "_for_share"))}


@pytest.mark.mutation
@pytest.mark.parametrize("lock", LOCKS)
def test_without_its_lock_the_race_shows(
    lock: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    race = LOCKS[lock]
    test = function_of(race)
    needed = set(inspect.signature(test).parameters) - set(race.given)
    fixtures = {name: request.getfixturevalue(name) for name in needed - {"monkeypatch"}}
    with without(monkeypatch, race.of or lock, replace=race.replace), pytest.MonkeyPatch.context() as inner:
        # What the test patches has to be undone before the lock comes back.
        patch = {"monkeypatch": inner} if "monkeypatch" in needed else {}
        with pytest.raises(AssertionError, match=race.shows):
            test(**fixtures, **patch, **race.given)


def function_of(race: Race) -> Callable[..., None]:
    """The function that a test's name stands for."""
    path, name = race.test.split("::")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    found: Callable[..., None] = getattr(module, name)
    return found
