"""Edits, tables, indexes and singletons: what an edit dirties, and that a refused edit changes nothing."""

import pytest

from tulle.engine import Database, EngineError, Input, Singleton, query

Key = tuple[str, str]
things = Input[Key, int]("things")
by_space = things.index("by_space", lambda key, value: (key[0],))
by_size = things.index("by_size", lambda key, value: ("even" if value % 2 == 0 else "odd", "any"))
limit = Singleton[int]("limit", 5)


@query
def names(db: Database, space: str) -> tuple[str, ...]:
    return tuple(name for _, name in by_space(db, space))


@query
def total(db: Database, space: str) -> int:
    return min(limit(db), sum(things(db, key) or 0 for key in by_space(db, space)))


@query
def odd(db: Database) -> tuple[Key, ...]:
    return by_size(db, "odd")


def filled() -> Database:
    db = Database()
    with db.edit() as tx:
        for key, value in {("a", "y"): 1, ("a", "x"): 2, ("b", "x"): 3}.items():
            tx.set(things, key, value)
    return db


def calls(db: Database) -> list[tuple[str, tuple[object, ...]]]:
    with db.counting() as runs:
        names(db, "a"), names(db, "b"), total(db, "a"), odd(db)
    return runs.calls


def test_a_bucket_is_sorted_and_an_unknown_one_empty() -> None:
    db = filled()
    assert by_space(db, "a") == (("a", "x"), ("a", "y"))
    assert by_space(db, "none") == ()
    assert names(db, "a") == ("x", "y")


def test_an_index_read_before_any_row_is_kept_up() -> None:
    db = Database()
    assert names(db, "a") == ()
    with db.edit() as tx:
        tx.set(things, ("a", "z"), 1)
    assert names(db, "a") == ("z",)


def test_a_changed_value_dirties_its_readers_and_no_bucket() -> None:
    db = filled()
    calls(db)
    with db.edit() as tx:
        tx.set(things, ("a", "x"), 0)
    assert calls(db) == [("total", ("a",))]


def test_joining_and_leaving_dirty_one_bucket() -> None:
    db = filled()
    calls(db)
    with db.edit() as tx:
        tx.set(things, ("b", "w"), 4)
    assert calls(db) == [("names", ("b",))]
    with db.edit() as tx:
        tx.delete(things, ("b", "x"))
    assert calls(db) == [("names", ("b",)), ("odd", ())]
    assert names(db, "b") == ("w",)


def test_a_value_may_move_a_key_between_buckets() -> None:
    db = filled()
    assert odd(db) == (("a", "y"), ("b", "x"))
    with db.edit() as tx:
        tx.set(things, ("a", "y"), 4)
        tx.set(things, ("a", "x"), 5)
    assert odd(db) == (("a", "x"), ("b", "x"))
    with db.edit() as tx:
        tx.delete(things, ("a", "x"))
        tx.delete(things, ("b", "x"))
    assert odd(db) == ()
    assert by_size(db, "any") == (("a", "y"),)


@pytest.mark.parametrize("many", [3, 400])
def test_many_joins_and_leaves_in_one_edit_stay_sorted(many: int) -> None:
    db = filled()
    keys = [("a", f"{n:03}") for n in reversed(range(many))]
    names(db, "a")
    with db.edit() as tx:
        for key in keys:
            tx.set(things, key, 1)
        tx.delete(things, ("a", "x"))
    assert names(db, "a") == (*(f"{n:03}" for n in range(many)), "y")
    with db.edit() as tx:
        for key in keys[1:]:
            tx.delete(things, key)
    assert names(db, "a") == (f"{many - 1:03}", "y")


def test_an_equal_value_is_no_edit() -> None:
    db = filled()
    calls(db)
    before = db.revision
    with db.edit() as tx:
        tx.set(things, ("a", "x"), 2)
        tx.delete(things, ("none", "such"))
        tx.set(limit, 5)
    assert db.revision == before
    assert calls(db) == []


def test_there_and_back_within_a_block_is_no_edit() -> None:
    db = filled()
    with db.edit() as tx:
        tx.delete(things, ("a", "x"))
        tx.set(things, ("a", "x"), 2)
    assert db.revision == 1


def test_a_block_is_one_revision_and_invisible_until_it_ends() -> None:
    db = filled()
    with db.edit() as tx:
        tx.set(things, ("a", "x"), 7)
        tx.set(limit, 100)
        assert total(db, "a") == 3
    assert (total(db, "a"), db.revision) == (8, 2)


def test_a_singleton_has_its_default_until_set() -> None:
    db = filled()
    assert limit(db) == 5
    with db.edit() as tx:
        tx.set(limit, 2)
    assert (limit(db), total(db, "a")) == (2, 2)


def test_a_block_that_raises_changes_nothing() -> None:
    db = filled()
    with pytest.raises(ZeroDivisionError), db.edit() as tx:
        tx.set(things, ("a", "x"), 1 // 0)
    with pytest.raises(EngineError, match="has ended"):
        tx_after_end(db)
    assert (db.revision, things(db, ("a", "x"))) == (1, 2)


def tx_after_end(db: Database) -> None:
    with db.edit() as tx:
        pass
    tx.set(things, ("a", "x"), 9)


def test_an_index_function_that_raises_leaves_everything_as_it_was() -> None:
    shares = Input[str, int]("shares")
    by_share = shares.index("by_share", lambda key, value: (12 // value,))
    db = Database()
    set_all(db, shares, a=3)
    assert by_share(db, 4) == ("a",)
    with pytest.raises(ZeroDivisionError):
        set_all(db, shares, b=6, a=0)
    assert (db.revision, shares.snapshot(db), by_share(db, 4), by_share(db, 2)) == (1, {"a": 3}, ("a",), ())


def test_two_databases_share_declarations_and_nothing_else() -> None:
    one, other = filled(), Database()
    assert total(one, "a") == 3
    assert total(other, "a") == 0


def test_a_snapshot_is_a_copy() -> None:
    db = filled()
    things.snapshot(db).clear()
    assert len(things.snapshot(db)) == 3


def test_sources_print_their_names() -> None:
    assert [repr(one) for one in (things, by_space, limit)] == [
        "<Input things>",
        "<Index things.by_space>",
        "<Singleton limit>",
    ]


def set_all(db: Database, table: Input[str, int], **values: int) -> None:
    with db.edit() as tx:
        for key, value in values.items():
            tx.set(table, key, value)
