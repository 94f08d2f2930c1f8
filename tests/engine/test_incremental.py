"""The property that rules all others: whatever was edited in whatever order, the answer is the one from scratch.

A program is a tuple of small instructions that ask each other by number, forwards too, so cycles appear and vanish.
`Scratch` is a second implementation with no memory at all.
"""

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.engine import CycleError, Database, Input, Singleton, gate, query

KEYS = range(6)
rows = Input[int, int]("rows")
by_parity = rows.index("by_parity", lambda key, value: (value % 2, "all") if value % 3 else ("all",))
offset = Singleton[int]("offset", 0)
Instruction = tuple[str | int, ...]
Program = tuple[Instruction, ...]


@query
def answer(db: Database, program: Program, at: int) -> object:
    match program[at]:
        case "row", int(key):
            return rows(db, key) or 0
        case "list", bucket:
            return sum((place + 1) * (key + 1) for place, key in enumerate(by_parity(db, bucket)))
        case "sum", bucket:
            return sum(rows(db, key) or 0 for key in by_parity(db, bucket))
        case "offset", int(one):
            return answer(db, program, one) + offset(db)
        case "cut", int(one):
            return answer(db, program, one) // 4
        case "gate", int(one):
            return gated(db, program, one)
        case "if", int(one), int(two), int(three):
            return answer(db, program, two if answer(db, program, one) % 2 else three)
        case "add", int(one), int(two):
            return answer(db, program, one) + answer(db, program, two)
        case "fail", int(one):
            if (value := answer(db, program, one)) % 3 == 0:
                raise ValueError(value)
            return value
        case "catch", int(one), int(two):
            try:
                return answer(db, program, one)
            except ValueError as error:
                return error.args[0] + answer(db, program, two)
        case other:
            raise AssertionError(other)


@gate
def gated(db: Database, program: Program, at: int) -> object:
    return answer(db, program, at)


class Circle(Exception):  # noqa: N818 - the word of the test
    """The program has no answer."""


class Scratch:
    """The same instructions without an engine."""

    def __init__(self, program: Program, table: Mapping[int, int], shift: int) -> None:
        self.program, self.table, self.shift = program, table, shift
        self.path: list[int] = []

    def bucket(self, bucket: object) -> list[int]:
        return [k for k, v in sorted(self.table.items()) if bucket == "all" or (v % 3 and v % 2 == bucket)]

    def __call__(self, at: int) -> int:
        if at in self.path:
            raise Circle
        self.path.append(at)
        try:
            return self.step(*self.program[at])
        finally:
            self.path.pop()

    def step(self, name: str, *args: int) -> int:
        match name:
            case "row":
                return self.table.get(args[0], 0)
            case "list":
                return sum((place + 1) * (key + 1) for place, key in enumerate(self.bucket(args[0])))
            case "sum":
                return sum(self.table[key] for key in self.bucket(args[0]))
            case "catch":
                try:
                    return self(args[0])
                except ValueError as error:
                    return error.args[0] + self(args[1])
        first = self(args[0])
        if name == "fail" and first % 3 == 0:
            raise ValueError(first)
        if name == "if":
            return self(args[1] if first % 2 else args[2])
        if name == "add":
            return first + self(args[1])
        return {"offset": first + self.shift, "cut": first // 4, "fail": first, "gate": first}[name]


def outcome(ask) -> object:
    try:
        return ask()
    except (CycleError, Circle):
        return ("cycle",)
    except ValueError as error:
        return "failed", *error.args


def instructions(size: int) -> st.SearchStrategy[Instruction]:
    at = st.integers(0, size - 1)
    bucket = st.sampled_from([0, 1, "all"])
    return st.one_of(
        st.tuples(st.just("row"), st.sampled_from(KEYS)),
        st.tuples(st.sampled_from(["list", "sum"]), bucket),
        st.tuples(st.sampled_from(["offset", "cut", "fail"]), at),
        st.tuples(st.sampled_from(["add", "catch"]), at, at),
        st.tuples(st.just("if"), at, at, at),
    )


programs = st.integers(3, 12).flatmap(lambda size: st.tuples(*[instructions(size)] * size))


def downwards(program: Program) -> Program:
    """The program with every question asked of an earlier place: a cycle that closes through a gate may go unseen."""
    made: list[Instruction] = []
    for at, (name, *args) in enumerate(program):
        if name in ("row", "list", "sum"):
            made.append((name, *args))
        elif at == 0:
            made.append(("row", 0))
        else:
            made.append((name, *(int(one) % at for one in args)))
    return tuple(made)


def through_gates(program: Program, gates: list[bool]) -> Program:
    """Some places, or all, asked for through a gate of their own."""
    size = len(program)

    def place(at: int) -> int:
        return size + at if gates[at % len(gates)] else at

    rewired = (
        (name, *args) if name in ("row", "list", "sum") else (name, *(place(int(one)) for one in args))
        for name, *args in program
    )
    return (*rewired, *(("gate", at) for at in range(size)))


gated_programs = st.builds(through_gates, programs.map(downwards), st.lists(st.booleans(), min_size=1, max_size=5))
edits = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from([*KEYS, "offset"]), st.none() | st.integers(0, 9), max_size=3),
        st.lists(st.integers(0, 11), max_size=4),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=400, deadline=None)
@given(gated_programs, edits, st.booleans())
def test_with_gates_too(program: Program, history: list, twice: bool) -> None:
    compared(program, history, twice)


@settings(max_examples=400, deadline=None)
@given(programs, edits, st.booleans())
def test_incremental_equals_from_scratch(program: Program, history: list, twice: bool) -> None:
    compared(program, history, twice)


def compared(program: Program, history: list, twice: bool) -> None:
    """Edit, ask, and compare with an evaluation without memory."""
    db = Database(check_purity=twice)
    roots = [db.root(answer, program, at) for at in range(0, len(program), 2)]
    known = {root: outcome(root.value) for root in roots}
    table: dict[int, int] = {}
    shift = 0
    for changes, asked, collect in history:
        with db.edit() as tx:
            for key, value in changes.items():
                if key == "offset":
                    shift = value or 0
                    tx.set(offset, shift)
                elif value is None:
                    table.pop(key, None)
                    tx.delete(rows, key)
                else:
                    table[key] = value
                    tx.set(rows, key, value)
        for at in asked:
            scratch = Scratch(program, table, shift)
            assert outcome(lambda at=at: answer(db, program, at % len(program))) == outcome(
                lambda at=at, scratch=scratch: scratch(at % len(program))
            )
        if collect:
            db.collect()
        dirty = set(db.take_dirty_roots())
        for root, at in zip(roots, range(0, len(program), 2), strict=True):
            scratch = Scratch(program, table, shift)
            now = outcome(lambda at=at, scratch=scratch: scratch(at))
            assert root in dirty or now == known[root]
            assert outcome(root.value) == now
            known[root] = now
        runs = db.runs
        if not any(isinstance(now, tuple) for now in known.values()):
            assert [root.value() for root in roots] == list(known.values())
            assert db.runs == runs
