"""The decorator: one canonical form of the arguments, and functions that cannot be queries."""

import pytest

from tulle.engine import Database, query


@query
def scaled(db: Database, value: int, by: int = 2) -> int:
    """Scales."""
    return value * by


def test_arguments_have_one_canonical_form() -> None:
    db = Database()
    with db.counting() as runs:
        assert {
            scaled(db, 3),
            scaled(db, 3, 2),
            scaled(db, value=3),
            scaled(db, 3, by=2),
            db.root(scaled, 3).value(),
        } == {6}
    assert runs.calls == [("scaled", (3, 2))]


def test_wrong_arguments_are_type_errors() -> None:
    db = Database()
    for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1, 2), {"by": 3}), ((1,), {"no": 1}), (([],), {})]:
        with pytest.raises(TypeError):
            scaled(db, *args, **kwargs)
    assert db.node_count == 0


def test_a_query_keeps_name_and_docstring() -> None:
    assert (scaled.name, scaled.__doc__, repr(scaled)) == ("scaled", "Scales.", "<Query scaled>")


def test_what_cannot_be_memoised_is_refused_when_declared() -> None:
    def starred(db: Database, *values: int) -> int:
        return sum(values)

    def named(db: Database, *, value: int) -> int:
        return value

    def generator(db: Database):
        yield 1

    async def coroutine(db: Database) -> int:
        return 1

    for function in (starred, named, generator, coroutine):
        with pytest.raises(TypeError, match=f"query {function.__name__}"):
            query(function)
