"""What runs after an edit, counted; cycles; errors; depth. The programs are small and shared by the file."""

import contextlib
import gc
import weakref

import pytest

from tulle.engine import CycleError, Database, EngineError, ImpureQuery, Input, InsideQuery, Singleton, gate, query

rows = Input[str, int]("rows")
big = Singleton[int]("big", 10)


@query
def row(db: Database, key: str) -> int:
    return rows(db, key) or 0


@query
def tens(db: Database, key: str) -> int:
    return row(db, key) // 10


@query
def label(db: Database, key: str) -> str:
    return f"{key}:{tens(db, key)}"


@query
def either(db: Database) -> int:
    return row(db, "yes") if row(db, "which") else row(db, "no")


@query
def checked(db: Database, key: str) -> int:
    if (value := row(db, key)) < 0:
        raise ValueError(f"{key} is negative")
    return value


@query
def forgiving(db: Database, key: str) -> int:
    try:
        return checked(db, key)
    except ValueError:
        return -1


def put(db: Database, **values: int) -> None:
    with db.edit() as tx:
        for key, value in values.items():
            tx.set(rows, key, value)


def ran(db: Database, ask) -> list[str]:
    with db.counting() as runs:
        ask()
    return [name for name, _ in runs.calls]


@pytest.fixture(params=[False, True], ids=["once", "twice"])
def db(request: pytest.FixtureRequest) -> Database:
    return Database(check_purity=request.param)


def test_an_answer_is_computed_once(db: Database) -> None:
    put(db, a=34)
    assert ran(db, lambda: label(db, "a")) == ["label", "tens", "row"]
    assert ran(db, lambda: label(db, "a")) == []
    assert label(db, "a") == "a:3"


def test_an_edit_elsewhere_runs_nothing(db: Database) -> None:
    put(db, a=34)
    label(db, "a")
    put(db, b=1)
    assert ran(db, lambda: label(db, "a")) == []


def test_an_equal_answer_cuts_off_everything_above(db: Database) -> None:
    put(db, a=34)
    label(db, "a")
    put(db, a=35)
    assert ran(db, lambda: label(db, "a")) == ["row", "tens"]
    put(db, a=41)
    assert ran(db, lambda: label(db, "a")) == ["row", "tens", "label"]
    assert label(db, "a") == "a:4"


def test_an_equal_answer_is_the_identical_object_as_before() -> None:
    @query
    def pair(db: Database) -> tuple[int, int]:
        return (tens(db, "a"), row(db, "b") * 0)

    db = Database()
    put(db, a=34, b=1)
    first = pair(db)
    put(db, b=2)
    assert ran(db, lambda: pair(db)) == ["row", "pair"]
    assert pair(db) is first


def test_true_is_not_an_equal_answer_to_one() -> None:
    @query
    def flag(db: Database) -> object:
        return True if row(db, "a") else 1

    db = Database()
    put(db, a=0)
    assert flag(db) is not True
    put(db, a=1)
    assert flag(db) is True


def test_dependencies_are_those_of_the_last_run(db: Database) -> None:
    put(db, which=1, yes=1, no=2)
    root = db.root(either)
    assert root.value() == 1
    put(db, no=3)
    assert ran(db, root.value) == []
    put(db, which=0)
    assert db.take_dirty_roots() == (root,)
    assert root.value() == 3
    put(db, yes=9)
    row(db, "yes")
    assert (db.take_dirty_roots(), root.is_dirty) == ((), False)
    put(db, yes=8)
    assert (db.take_dirty_roots(), root.is_dirty) == ((), False)


def test_verification_runs_nothing_the_new_answer_does_not_need(db: Database) -> None:
    put(db, which=1, yes=1, no=2)
    either(db)
    put(db, which=0, yes=7)
    with db.counting() as runs:
        assert either(db) == 2
    assert ("row", ("yes",)) not in runs.calls


def test_a_diamond_runs_each_node_once(db: Database) -> None:
    @query
    def both(db: Database) -> tuple[int, str]:
        return tens(db, "a"), label(db, "a")

    put(db, a=34)
    both(db)
    put(db, a=50)
    assert ran(db, lambda: both(db)) == ["row", "tens", "both", "label"]


def test_what_verification_runs_is_no_dependency_of_the_asker() -> None:
    @query
    def asks_label(db: Database) -> str:
        return label(db, "a") if row(db, "go") else "off"

    db = Database()
    put(db, a=34, go=0)
    label(db, "a")
    asks_label(db)
    put(db, a=50, go=1)
    assert asks_label(db) == "a:5"  # row(a) and tens(a) ran while label(a) was verified
    assert [part.query for part in db.explain(asks_label).asks] == ["row", "label"]


def test_an_error_reaches_the_caller_and_is_not_memoised(db: Database) -> None:
    put(db, a=-1)
    for _ in range(2):
        with db.counting() as runs, pytest.raises(ValueError, match="a is negative"):
            checked(db, "a")
        assert runs.by_query["checked"] == 1
    put(db, a=1)
    assert checked(db, "a") == 1


def test_a_reader_that_caught_an_error_hears_of_the_cure(db: Database) -> None:
    put(db, a=-1)
    root = db.root(forgiving, "a")
    assert root.value() == -1
    assert ran(db, root.value) == []
    put(db, a=5)
    assert db.take_dirty_roots() == (root,)
    assert root.value() == 5
    put(db, a=-3)
    assert root.value() == -1
    put(db, a=-4)
    assert root.value() == -1
    put(db, a=5)  # equal to the answer before the error
    assert root.value() == 5


def test_an_error_is_raised_to_all_askers_of_one_question_by_one_run(db: Database) -> None:
    @query
    def thrice(db: Database) -> int:
        return sum((forgiving(db, "a"), forgiving(db, "a"), again(db)))

    @query
    def again(db: Database) -> int:
        try:
            return checked(db, "a")
        except ValueError:
            return -2

    put(db, a=-1)
    with db.counting() as runs:
        assert thrice(db) == -4
    assert runs.by_query["checked"] == 1
    put(db, a=-2)
    with db.counting() as runs:
        assert thrice(db) == -4
    assert runs.by_query["checked"] == 1


def test_an_error_and_its_frames_are_let_go_with_the_question() -> None:
    class Load:
        pass

    alive: list[weakref.ref[Load]] = []

    @query
    def fails(db: Database) -> int:
        load = Load()
        alive.append(weakref.ref(load))
        raise ValueError

    db = Database()
    with contextlib.suppress(ValueError):
        fails(db)
    gc.collect()
    assert [ref() for ref in alive] == [None]
    assert db.node_count == 1


def test_an_answer_lost_to_an_error_counts_as_changed_when_it_returns(db: Database) -> None:
    @query
    def above(db: Database) -> int:
        return checked(db, "a")

    put(db, a=1)
    assert above(db) == 1
    put(db, a=-1)
    with pytest.raises(ValueError):
        above(db)
    put(db, a=1)
    assert above(db) == 1


def test_an_interrupt_leaves_the_database_usable() -> None:
    @query
    def interrupted(db: Database) -> int:
        if row(db, "a"):
            raise KeyboardInterrupt
        return 1

    @query
    def outer(db: Database) -> int:
        return interrupted(db) + 1

    db = Database()
    put(db, a=0)
    assert outer(db) == 2
    put(db, a=1)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            outer(db)
    put(db, a=0)
    assert outer(db) == 2


@query
def hop(db: Database, at: str) -> int:
    """Follows `rows` from key to key until a zero: an edit can close the circle."""
    step = row(db, at)
    return 0 if step == 0 else 1 + hop(db, chr(ord("a") + step - 1))


def test_a_cycle_names_its_queries_wherever_it_is_entered(db: Database) -> None:
    put(db, a=2, b=3, c=1)
    for entry in "abcba":
        with pytest.raises(CycleError) as caught:
            hop(db, entry)
        assert str(caught.value) == "hop('a') -> hop('b') -> hop('c') -> hop('a')"
        assert caught.value.chain == (("hop", ("a",)), ("hop", ("b",)), ("hop", ("c",)))
    put(db, c=0)
    assert [hop(db, entry) for entry in "abc"] == [2, 1, 0]


@pytest.mark.parametrize("entry", "zab")
def test_a_cycle_closed_by_an_edit_is_found_while_verifying(db: Database, entry: str) -> None:
    put(db, z=1, a=2, b=3, c=0)
    assert hop(db, "z") == 3
    put(db, c=1)
    for _ in range(2):
        with pytest.raises(CycleError) as caught:
            hop(db, entry)
        assert str(caught.value) == "hop('a') -> hop('b') -> hop('c') -> hop('a')"
    put(db, b=0)
    assert [hop(db, entry) for entry in "zabc"] == [2, 1, 0, 2]


def test_a_query_that_asks_itself_is_a_cycle() -> None:
    db = Database()
    put(db, a=1)
    with pytest.raises(CycleError, match=r"^hop\('a'\) -> hop\('a'\)$"):
        hop(db, "a")


def test_a_cycle_cannot_be_swallowed_by_its_members_but_by_a_reader_above(db: Database) -> None:
    @query
    def stubborn(db: Database) -> int:
        try:
            return 1 + partner(db)
        except CycleError:
            return 0

    @query
    def partner(db: Database) -> int:
        return stubborn(db) if row(db, "a") else 5

    @query
    def above(db: Database) -> int:
        try:
            return stubborn(db)
        except CycleError:
            return -1

    put(db, a=1)
    for member in (stubborn, partner):
        with pytest.raises(CycleError):
            member(db)
    assert above(db) == -1
    put(db, a=0)
    assert above(db) == 6
    put(db, a=1)
    assert above(db) == -1
    put(db, a=0)
    assert (above(db), partner(db)) == (6, 5)


@query
def stairs(db: Database, depth: int) -> int:
    return row(db, "ground") if depth == 0 else sum(stairs(db, lower) for lower in (depth - 1,))


def test_a_chain_of_300_is_no_matter_cold_or_warm(db: Database) -> None:
    put(db, ground=1)
    assert stairs(db, 300) == 1
    put(db, ground=2)
    with db.counting() as runs:
        assert stairs(db, 300) == 2
    assert runs.by_query == {"row": 1, "stairs": 301}


def test_verifying_a_chain_does_not_recurse() -> None:
    db = Database()
    for depth in range(20_000):  # asked from below: each finds the one beneath it warm
        stairs(db, depth)
    put(db, ground=7)
    assert stairs(db, 19_999) == 7


def test_run_twice_names_the_query_whose_answer_differs() -> None:
    calls = []

    @query
    def impure(db: Database) -> int:
        calls.append(row(db, "a"))
        return len(calls)

    @query
    def above(db: Database) -> int:
        return impure(db)

    with pytest.raises(ImpureQuery, match=r"^impure\(\) is not pure: two runs gave answers"):
        above(Database(check_purity=True))
    assert above(Database()) == 3


def test_run_twice_catches_a_read_that_is_made_only_once() -> None:
    seen: set[str] = set()

    @query
    def remembers(db: Database) -> int:
        if "a" not in seen:
            seen.add("a")
            row(db, "a")
        return 0

    with pytest.raises(ImpureQuery, match="asked for different things"):
        remembers(Database(check_purity=True))


def test_run_twice_catches_a_second_run_that_raises() -> None:
    left = [1]

    @query
    def consumes(db: Database) -> int:
        return left.pop()

    with pytest.raises(ImpureQuery, match="then raised IndexError"):
        consumes(Database(check_purity=True))


def test_run_twice_catches_answers_without_equality() -> None:
    class Opaque:
        pass

    @query
    def opaque(db: Database) -> object:
        return Opaque()

    with pytest.raises(ImpureQuery):
        opaque(Database(check_purity=True))


def test_a_query_may_only_read(db: Database) -> None:
    deeds = [
        lambda db: db.edit().__enter__(),
        lambda db: db.collect(),
        lambda db: db.root(row, "a"),
        lambda db: db.explain(row, "a"),
        lambda db: db.dependencies(row, "a"),
        rows.snapshot,
    ]

    @query
    def does(db: Database, deed: int) -> None:
        deeds[deed](db)

    for deed in range(len(deeds)):
        with pytest.raises(InsideQuery, match=rf"inside does\({deed}\)"):
            does(db, deed)
    assert issubclass(InsideQuery, EngineError)
    assert row(db, "a") == 0
    assert db.revision == 0


@gate
def narrow(db: Database, key: str) -> int:
    return row(db, key) // 10


@query
def above(db: Database, key: str) -> int:
    return narrow(db, key) + 1


class TestGates:
    """Dirt stops where nothing changed."""

    def test_an_equal_answer_keeps_what_is_above_clean(self, db: Database) -> None:
        put(db, a=10)
        root = db.root(above, "a")
        assert root.value() == 2
        put(db, a=11)
        assert db.take_dirty_roots() == ()
        assert not root.is_dirty
        assert ran(db, root.value) == []

    def test_another_answer_goes_on(self, db: Database) -> None:
        put(db, a=10)
        root = db.root(above, "a")
        root.value()
        put(db, a=20)
        assert db.take_dirty_roots() == (root,)
        assert ran(db, root.value) == ["above"]
        assert root.value() == 3

    def test_a_gate_nobody_asked_through_runs_nothing(self, db: Database) -> None:
        put(db, a=10)
        assert narrow(db, "a") == 1
        assert ran(db, lambda: put(db, a=30)) == []
        assert narrow(db, "a") == 3
