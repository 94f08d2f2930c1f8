"""The printed tree is the document; keys are what callers map to lines of files."""

import pytest

from tulle.engine import Database, Input, Singleton, query

files = Input[tuple[str, str], str]("files")
by_folder = files.index("by_folder", lambda key, value: (key[0],))
greeting = Singleton[str]("greeting", "hello")


@query
def length(db: Database, key: tuple[str, str]) -> int:
    return len(files(db, key) or "")


@query
def size(db: Database, folder: str) -> int:
    return sum(length(db, key) for key in by_folder(db, folder))


@query
def report(db: Database) -> str:
    return f"{greeting(db)}, {size(db, 'a')} of {size(db, 'a') + length(db, ('b', 'x'))}"


def filled() -> Database:
    db = Database()
    with db.edit() as tx:
        for folder, name, text in (("a", "x", "one"), ("a", "y", "four"), ("b", "x", "")):
            tx.set(files, (folder, name), text)
    return db


def test_the_tree_shows_reads_and_revisions_and_repeats_nothing() -> None:
    db = filled()
    report(db)
    with db.edit() as tx:
        tx.set(files, ("a", "x"), "two")
    assert str(db.explain(report)) == "\n".join(  # noqa: FLY002 - one line each
        [
            "report(): computed at 1, changed at 1",
            "  reads greeting",
            "  size('a'): computed at 1, changed at 1",
            "    reads files.by_folder['a']",
            "    length(('a', 'x')): computed at 2, changed at 1",
            "      reads files[('a', 'x')]",
            "    length(('a', 'y')): computed at 1, changed at 1",
            "      reads files[('a', 'y')]",
            "  length(('b', 'x')): computed at 1, changed at 1",
            "    reads files[('b', 'x')]",
        ]
    )


def test_a_part_met_again_is_the_same_object_and_printed_once() -> None:
    @query
    def twice(db: Database) -> tuple[str, int]:
        return report(db), size(db, "a")

    tree = filled().explain(twice)
    assert tree.asks[1] is tree.asks[0].asks[0]
    assert str(tree).splitlines()[-1] == "  size('a'): as above"


def test_dependencies_are_inputs_however_deep() -> None:
    assert filled().dependencies(report) == {
        ("greeting", ()),
        ("files.by_folder", "a"),
        ("files", ("a", "x")),
        ("files", ("a", "y")),
        ("files", ("b", "x")),
    }
    assert filled().dependencies(size, folder="b") == {("files.by_folder", "b"), ("files", ("b", "x"))}


def test_explaining_what_fails_raises_its_error() -> None:
    @query
    def broken(db: Database) -> int:
        return 1 // length(db, ("b", "x"))

    with pytest.raises(ZeroDivisionError):
        filled().explain(broken)


def test_a_deep_tree_is_explained_without_recursion() -> None:
    @query
    def stairs(db: Database, depth: int) -> int:
        return stairs(db, depth - 1) if depth else len(greeting(db))

    db = Database()
    for depth in range(6_000):
        stairs(db, depth)
    assert str(db.explain(stairs, 5_999)).count("\n") == 6_000
    assert db.dependencies(stairs, 5_999) == {("greeting", ())}
