"""Sets of names that many streams subscribe to are one object, however large, and let go when others are newer."""

import gc
import weakref

import pytest

from tulle.xds import snapshot
from tulle.xds.snapshot import Comparisons

NOTHING: frozenset[str] = frozenset()


def many(count: int, word: str = "a") -> frozenset[str]:
    return frozenset(f"outbound|80||{word}-{number}.default.svc.cluster.local" for number in range(count))


@pytest.mark.parametrize("count", [10, 50_000])
def test_equal_sets_are_one(count: int) -> None:
    made = Comparisons()
    first = made.one_of_equals(many(count))
    assert made.one_of_equals(many(count)) is first
    grown = made.union(first, many(3, "b"))
    assert made.union(first, many(3, "b")) is grown
    assert len(grown) == count + 3
    assert made.union(NOTHING, many(count)) is first


def test_what_is_shared_is_bounded_by_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SHARED_NAMES", 1_000)
    made = Comparisons()
    kept = [weakref.ref(made.union(made.one_of_equals(many(200, f"s{at}")), many(1, "more"))) for at in range(20)]
    gc.collect()
    living = sum(len(found) for one in kept if (found := one()) is not None)
    assert living <= 2_000, "what is kept by name and what is kept by union"
    assert kept[-1]() is not None, "the newest"
    assert kept[0]() is None, "the oldest"


def test_one_set_larger_than_all_room_is_shared_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SHARED_NAMES", 100)
    made = Comparisons()
    first = made.one_of_equals(many(200))
    assert made.one_of_equals(many(200)) is first


def test_at_rest_names_that_somebody_holds_stay_shared_and_nothing_else_is_kept() -> None:
    made = Comparisons()
    first = made.one_of_equals(many(10))
    left = weakref.ref(made.union(made.one_of_equals(many(20)), many(30)))
    old, new = dict.fromkeys(many(1)), dict.fromkeys(many(2))
    drafted = weakref.ref(made.once((old, new), lambda: set(many(3))))
    assert made.once((old, new), set) is drafted(), "kept while it is remembered"
    made.forget()
    gc.collect()
    assert drafted() is None
    assert left() is None
    assert made.one_of_equals(many(10)) is first
