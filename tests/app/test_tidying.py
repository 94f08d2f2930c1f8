"""When memory is let go: what is asked of the engine and of serving, as time goes by."""

import pytest

from tulle.app import tidying
from tulle.app.tidying import COLLECT_EVERY, COLLECT_S, REST_EVERY, REST_S, Tidying


class Parts:
    """Both sides, counting."""

    def __init__(self) -> None:
        self.node_count, self.has_left = 100, False
        self.collected = self.rested = 0

    def collect(self) -> int:
        self.collected += 1
        return 0

    def rest(self) -> None:
        self.rested += 1
        self.has_left = False


class Hours:
    """A clock that is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Hours()
    monkeypatch.setattr(tidying, "monotonic", made)
    return made


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def tidy(parts, clock):
    made = Tidying(parts, parts)
    made.loaded()
    return made


def looked(tidy, clock, seconds):
    clock.now += seconds
    tidy.look()


def test_what_was_made_before_anybody_asked_is_kept(tidy, parts, clock):
    for _ in range(5):
        looked(tidy, clock, COLLECT_S + 1)
    assert (parts.collected, parts.rested) == (0, 0)
    parts.node_count = 120
    looked(tidy, clock, 1)
    assert (parts.collected, parts.rested) == (1, 0)


def test_many_edits_and_then_none_are_a_rest(tidy, parts, clock):
    for _ in range(REST_EVERY):
        tidy.edited()
    looked(tidy, clock, REST_S - 1)
    assert parts.rested == 0
    looked(tidy, clock, 2)
    assert (parts.collected, parts.rested) == (1, 1)
    looked(tidy, clock, REST_S + 1)
    assert parts.rested == 1, "once"


def test_a_few_edits_are_none(tidy, parts, clock):
    for _ in range(REST_EVERY - 1):
        tidy.edited()
    looked(tidy, clock, 100)
    assert (parts.collected, parts.rested) == (0, 0)


def test_who_leaves_takes_along_what_was_shared_with_him(tidy, parts, clock):
    parts.has_left = True
    looked(tidy, clock, COLLECT_S - 1)
    assert parts.rested == 0
    looked(tidy, clock, 2)
    assert (parts.collected, parts.rested, parts.has_left) == (1, 1, False)
    looked(tidy, clock, COLLECT_S + 1)
    assert parts.rested == 1, "once"


def test_a_storm_of_edits_is_collected_within(tidy, parts, clock):
    for _ in range(2 * COLLECT_EVERY):
        tidy.edited()
    assert (parts.collected, parts.rested) == (2, 0)


def test_edits_do_not_pay_for_who_leaves(tidy, parts, clock, monkeypatch):
    trimmed = []
    monkeypatch.setattr(tidying, "trim", lambda: trimmed.append(clock.now))
    parts.has_left = True
    for _ in range(COLLECT_EVERY):
        tidy.edited()
    assert (parts.collected, parts.rested, trimmed) == (1, 0, [])
    for _ in range(4):  # edits without end
        clock.now += COLLECT_S / 3
        for _ in range(COLLECT_EVERY):
            tidy.edited()
        tidy.look()
    assert (parts.rested, len(trimmed), parts.has_left) == (1, 1, False)
