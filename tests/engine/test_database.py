"""Roots, forgetting and counting."""

import gc
import tracemalloc
import weakref

import pytest

from tulle.engine import CycleError, Database, EngineError, Input, query

cells = Input[int, int]("cells")
by_half = cells.index("by_half", lambda key, value: (key // 2,))


@query
def cell(db: Database, key: int) -> int:
    return cells(db, key) or 0


@query
def pair(db: Database, half: int) -> int:
    return sum(cell(db, key) for key in by_half(db, half))


@query
def capped(db: Database, half: int) -> int:
    return min(pair(db, half), 9)


@query
def view(db: Database, first: int, last: int) -> int:
    return sum(capped(db, half) for half in range(first, last))


def filled(size: int) -> Database:
    db = Database()
    with db.edit() as tx:
        for key in range(size):
            tx.set(cells, key, 1)
    return db


def put(db: Database, key: int, value: int) -> None:
    with db.edit() as tx:
        tx.set(cells, key, value)


def test_only_dirtied_roots_are_listed_once_in_order_of_opening() -> None:
    db = filled(8)
    roots = [db.root(capped, half) for half in (3, 1, 2, 1)]
    assert all(root.is_dirty for root in roots)
    assert [root.value() for root in roots] == [2, 2, 2, 2]
    assert not any(root.is_dirty for root in roots)
    assert db.take_dirty_roots() == ()
    put(db, 2, 5)
    put(db, 6, 5)
    put(db, 3, 5)
    assert db.take_dirty_roots() == (roots[0], roots[1], roots[3])
    assert db.take_dirty_roots() == ()
    assert [root.is_dirty for root in roots] == [True, True, False, True]


def test_changed_at_tells_a_listed_root_that_stayed_the_same() -> None:
    db = filled(2)
    root = db.root(capped, 0)
    assert root.changed_at == 0
    put(db, 0, 20)
    assert (root.value(), root.changed_at) == (9, 2)
    put(db, 0, 30)
    assert db.take_dirty_roots() == (root,)
    assert (root.value(), root.changed_at, root.is_dirty) == (9, 2, False)


def test_a_closed_root_is_not_listed_and_cannot_be_asked() -> None:
    db = filled(2)
    root, other = db.root(capped, 0), db.root(capped, 0)
    root.value()
    put(db, 0, 2)
    root.close()
    root.close()
    assert db.take_dirty_roots() == (other,)
    other.value()
    put(db, 0, 3)
    other.close()
    assert db.take_dirty_roots() == ()
    for ask in (root.value, lambda: root.is_dirty, lambda: root.changed_at):
        with pytest.raises(EngineError, match="closed"):
            ask()


def test_collection_keeps_what_roots_rest_on_and_nothing_else() -> None:
    db = filled(4)
    root = db.root(capped, 0)
    root.value(), capped(db, 1)
    assert db.node_count == 2 * 7  # capped, pair, its bucket, two cells with their keys
    assert db.collect() == 7
    with db.counting() as runs:
        assert root.value() == 2
        put(db, 0, 4)
        assert db.take_dirty_roots() == (root,)
        assert root.value() == 5
    assert runs.calls == [("cell", (0,)), ("pair", (0,)), ("capped", (0,))]
    root.close()
    assert (db.collect(), db.node_count, db.collect()) == (7, 0, 0)
    assert capped(db, 0) == 5


def test_a_survivor_forgets_its_dead_readers() -> None:
    db = filled(4)
    root = db.root(cell, 0)
    root.value()
    view(db, 0, 2)
    assert db.collect() == 13  # of view, 2 capped, 2 pairs, 2 buckets, 4 cells, 4 keys: all but the first cell and key
    put(db, 0, 2)
    assert (db.take_dirty_roots(), root.value(), view(db, 0, 2)) == ((root,), 2, 5)


def test_an_unread_bucket_is_dropped_and_read_again_correctly() -> None:
    db = filled(2)
    pair(db, 0)
    db.collect()
    with db.edit() as tx:
        tx.delete(cells, 1)
    assert (by_half(db, 0), pair(db, 0)) == ((0,), 1)


def test_a_root_opened_and_never_asked_survives_collection() -> None:
    db = filled(2)
    root = db.root(capped, 0)
    assert (db.collect(), db.node_count, root.value()) == (0, 1, 2)


def test_a_thousand_joins_and_leaves_leave_no_node_behind() -> None:
    db = filled(40)
    stayer = db.root(view, 0, 20)
    stayer.value()
    settled = db.node_count
    for joiner in range(1_000):
        put(db, 100 + joiner, 1)
        root = db.root(view, joiner % 10, 50 + joiner // 2)
        root.value()
        root.close()
        with db.edit() as tx:
            tx.delete(cells, 100 + joiner)
        if joiner % 100 == 99:
            db.collect()
            assert db.node_count == settled
    assert stayer.value() == 40


def test_forgotten_memory_is_back_without_the_garbage_collector() -> None:
    db = filled(20)
    view(db, 0, 2)
    db.collect()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        view(db, 0, 3_000)
        grown = tracemalloc.get_traced_memory()[0] - before
        db.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < grown * 0.2  # dictionaries keep their size


def test_members_of_a_cycle_are_freed_without_the_garbage_collector() -> None:
    class Token:
        pass

    @query
    def ring(db: Database, token: Token) -> int:
        return ring(db, token)

    db, token = Database(), Token()
    alive = weakref.ref(token)
    with pytest.raises(CycleError) as caught:
        ring(db, token)
    del caught, token
    gc.collect()
    gc.disable()
    try:
        db.collect()
        assert (db.node_count, alive()) == (0, None)
    finally:
        gc.enable()


def test_ten_thousand_nodes_fit_the_promised_memory() -> None:
    db = filled(20)
    view(db, 0, 1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        nodes = db.node_count
        for start in range(100):
            view(db, start * 50, start * 50 + 50)
        per_node = (tracemalloc.get_traced_memory()[0] - before) / (db.node_count - nodes)
    finally:
        tracemalloc.stop()
    assert db.node_count > 10_000
    assert per_node < 700


def test_an_edit_touches_few_of_many_nodes() -> None:
    db = filled(10_000)
    roots = [db.root(view, start, start + 5) for start in range(0, 5_000, 5)]
    assert sum(root.value() for root in roots) == 10_000
    before = db.runs
    put(db, 4_321, 3)
    (dirty,) = db.take_dirty_roots()
    assert dirty.value() == 12
    assert db.runs - before == 4
    assert sum(root.value() for root in roots) == 10_002
    assert db.runs - before == 4


def test_counting_nests_and_ends() -> None:
    db = filled(2)
    with db.counting() as outer:
        cell(db, 0)
        with db.counting() as inner:
            cell(db, 1)
    pair(db, 0)
    assert inner.calls == [("cell", (1,))]
    assert outer.by_query == {"cell": 2}
    assert db.runs == 3
