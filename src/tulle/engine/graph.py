"""The memo graph: who asked whom, what is dirty, and what has to run again.

Rule 1: an edit pushes dirt up along the reverse edges, once per node (O(invalidated)).
Rule 2: an answer is pulled; a dirty node verifies what it asked, in the order it asked, and runs at the first change.
Rule 3: an answer equal to the one before keeps its revision, so nobody above runs (early cut-off).
Rule 4: dirt stops at a gate (query.py) until the gate has answered, right after the edit; an equal answer, and it goes no further.

Invariant: whoever depends on a DIRTY or STALE node is itself DIRTY or STALE, so the push may stop there. A FAILED
node has no answer and runs whenever asked, but its edges live: a reader that caught the error may be CLEAN.

Verification keeps its own stack, so a deep graph that is warm costs no recursion; a cold one recurses. Must not know how inputs are stored or edited (inputs.py) nor what is offered to callers (database.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tulle.engine.errors import Call, CycleError, ImpureQuery, InsideQuery

if TYPE_CHECKING:
    from tulle.engine.database import Database, Root
    from tulle.engine.inputs import Index
    from tulle.engine.query import Query

CLEAN: Final = 0
DIRTY: Final = 1  # something below changed; perhaps nothing that matters
STALE: Final = 2  # must run: new, or something it asked has changed
FAILED: Final = 3  # ran and raised; nothing below has changed since
RUNNING: Final = 4

MISSING: Final[Any] = object()
"""No value yet (memo), or no row (input)."""


def same(old: object, new: object) -> bool:
    """Whether a reader cannot tell them apart. `True` and `1` are told apart; `==` decides the rest."""
    return old is new or (type(old) is type(new) and bool(old == new))


class Source:
    """Something from outside that queries read by key: rows, buckets of an index, a singleton."""

    def __init__(self, name: str) -> None:
        self.name: Final = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Node:
    """What can be depended on."""

    __slots__ = ("changed_at", "dependents", "state")

    def __init__(self, state: int) -> None:
        self.state = state
        self.changed_at = 0
        self.dependents: set[Memo] | None = None  # made late: an empty set costs 216 bytes


class Leaf(Node):
    """One key of a source that some query has read."""

    __slots__ = ("key", "source")

    def __init__(self, source: Source, key: Hashable) -> None:
        super().__init__(CLEAN)
        self.source = source
        self.key = key


class Memo(Node):
    """One query with its arguments, and its last answer."""

    __slots__ = ("args", "computed_at", "deps", "query", "value", "verified_at")

    def __init__(self, query: Query[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(STALE)
        self.query = query
        self.args = args
        self.value: Any = MISSING
        self.deps: tuple[Node, ...] = ()
        self.computed_at = 0
        self.verified_at = 0

    @property
    def call(self) -> Call:
        """Its name and arguments."""
        return self.query.name, self.args


class Runs:
    """Which queries ran while counting, in order of starting."""

    __slots__ = ("by_query", "calls")

    def __init__(self) -> None:
        self.by_query: Counter[str] = Counter()
        self.calls: list[Call] = []


class Graph:
    """All nodes of one database, and the one question under way. The engine's own: callers use `Database`."""

    def __init__(self, check_purity: bool) -> None:
        self.check_purity = check_purity
        self.revision = 0
        self.runs = 0
        self.counters: list[Runs] = []
        self.memos: defaultdict[Query[..., Any], dict[tuple[Any, ...], Memo]] = defaultdict(dict)
        self.leaves: defaultdict[Source, dict[Hashable, Leaf]] = defaultdict(dict)
        self.rows: defaultdict[Source, dict[Any, Any]] = defaultdict(dict)
        self.shelves: dict[Index[Any, Any, Any], dict[Hashable, tuple[Any, ...]]] = {}
        self.roots: dict[Memo, dict[Root[Any], None]] = {}
        self.dirtied: dict[Memo, None] = {}  # those with roots, since last taken
        self.gates: dict[Memo, int] = {}  # reached by dirt they have not let pass yet; when they had last changed
        self.asked: dict[Node, None] | None = None  # by the query that runs; a dict because order matters
        self._running: list[Memo] = []
        self._verifying = 0
        self._doomed: dict[Memo, CycleError] = {}
        self._failures: dict[Memo, Exception] = {}

    def require_outside(self, deed: str) -> None:
        """Raise InsideQuery while a query runs."""
        if self._running:
            raise InsideQuery(deed, self._running[-1].call)

    def memo(self, query: Query[..., Any], args: tuple[Any, ...]) -> Memo:
        """The node of this call, made if new."""
        memos = self.memos[query]
        memo = memos.get(args)
        if memo is None:
            memo = memos[args] = Memo(query, args)
        return memo

    def note(self, source: Source, key: Hashable) -> None:
        """The running query reads this key."""
        if self.asked is None:
            return
        leaves = self.leaves[source]
        leaf = leaves.get(key)
        if leaf is None:
            leaf = leaves[key] = Leaf(source, key)
        self.asked[leaf] = None

    def dirty(self, changed: Iterable[tuple[Source, Hashable]]) -> None:
        """These keys changed at the current revision: push dirt to everything above."""
        stack: list[Memo] = []
        for source, key in changed:
            leaf = self.leaves[source].get(key)
            if leaf is not None:
                leaf.changed_at = self.revision
                stack.extend(leaf.dependents or ())
        self._push(stack)

    def _push(self, stack: list[Memo]) -> None:
        while stack:
            memo = stack.pop()
            if memo.state in (DIRTY, STALE):
                continue
            was_answered = memo.state == CLEAN
            memo.state = DIRTY if was_answered else STALE
            if memo in self.roots:
                self.dirtied[memo] = None
            if memo.dependents:
                if memo.query.is_gate and was_answered:
                    self.gates.setdefault(memo, memo.changed_at)
                else:
                    stack.extend(memo.dependents)

    def open_gates(self, db: Database) -> None:
        """Ask every gate that dirt has reached; behind those whose answer changed, or that failed, it goes on.

        A gate may be asked while others still hold dirt back from what it reads. When that is let through it reaches
        the gate again; each asking is a revision of its own, so what changed later counts as changed.
        """
        while self.gates:
            for memo in list(self.gates):
                if memo.state != CLEAN:  # otherwise another gate has asked for it
                    self.revision += 1
                    with suppress(Exception):  # whoever asks for it meets the error
                        memo.query(db, *memo.args)
                before = self.gates.pop(memo)
                if memo.state != CLEAN or memo.changed_at != before:
                    self._push(list(memo.dependents or ()))

    def is_settled(self, db: Database, memo: Memo) -> bool:
        """Whether the answer stands, possibly after verifying; False: the caller must run it.

        Errors: CycleError; the error of a run that failed earlier within the same outermost question.
        """
        if not self._running and not self._verifying:
            self._failures.clear()
        if memo.state == DIRTY:
            self._verify(db, memo)
        if memo.state == RUNNING:
            raise self._cycle(memo, [])
        if memo in self._failures:
            raise self._failures[memo]
        return memo.state == CLEAN

    def begin(self, memo: Memo) -> dict[Node, None] | None:
        """The memo starts to run; returns what to hand back to `finish` or `fail`."""
        self.runs += 1
        for runs in self.counters:
            runs.by_query[memo.query.name] += 1
            runs.calls.append(memo.call)
        memo.state = RUNNING
        self._running.append(memo)
        outer, self.asked = self.asked, {}
        return outer

    def is_changed(self, db: Database, memo: Memo, value: object) -> bool:
        """Whether the answer just computed differs from the last one.

        Errors: ImpureQuery when checking; CycleError if the query swallowed the one it is part of, because then its
        answer depends on where the cycle was entered.
        """
        if memo in self._doomed:
            raise self._doomed[memo]
        if self.check_purity:
            self._run_again(db, memo, value)
        return not same(memo.value, value)

    def finish(self, memo: Memo, outer: dict[Node, None] | None, value: object, changed: bool) -> None:
        """The memo has an answer. An equal one is thrown away, so that readers keep the identical object."""
        if changed:
            memo.value = value
            memo.changed_at = self.revision
        memo.verified_at = self.revision
        self._end(memo, outer, CLEAN)

    def fail(self, memo: Memo, outer: dict[Node, None] | None, error: BaseException) -> None:
        """The memo raised. Nothing is memoised beyond the outermost question, but what it asked is recorded."""
        memo.value = MISSING
        if isinstance(error, Exception):
            self._failures[memo] = error
        self._end(memo, outer, FAILED)

    def _end(self, memo: Memo, outer: dict[Node, None] | None, state: int) -> None:
        asked, self.asked = self.asked or {}, outer
        deps = tuple(asked)
        if deps != memo.deps:
            for dep in memo.deps:
                if dep not in asked and dep.dependents:
                    dep.dependents.discard(memo)
            for dep in deps:
                if dep.dependents is None:
                    dep.dependents = {memo}
                else:
                    dep.dependents.add(memo)
            memo.deps = deps
        memo.computed_at = self.revision
        memo.state = state
        self._running.pop()
        self._doomed.pop(memo, None)
        if not self._running and not self._verifying:
            self._failures.clear()  # an error holds its frames alive

    def _verify(self, db: Database, root: Memo) -> None:
        """Leave the DIRTY root CLEAN, or STALE if it has to run. Runs only what the root certainly asks for."""
        outer, self.asked = self.asked, None  # what runs here was asked by nodes on the path, not by the reader
        self._verifying += 1
        try:
            path = [(root, 0)]
            while path:
                memo, at = path.pop()
                if memo.state == DIRTY:  # not if it was found in a cycle meanwhile
                    at = self._unsettled(memo, at)
                if memo.state != DIRTY:
                    continue
                dep = memo.deps[at]
                assert isinstance(dep, Memo)  # a leaf is always CLEAN
                path.append((memo, at))
                if dep.state == DIRTY:
                    path.append((dep, 0))
                elif dep.state == STALE:
                    # The error is kept in _failures: the memo runs next, asks the same and meets it there.
                    with suppress(Exception):
                        dep.query(db, *dep.args)
                else:
                    raise self._cycle(dep, [member for member, _ in path])
        finally:
            self._verifying -= 1
            self.asked = outer

    def _unsettled(self, memo: Memo, at: int) -> int:
        """Place, from `at` on, of the first dependency that must be settled before the memo can be judged.

        Sets the memo CLEAN if there is none, STALE at a change or failure before it.
        """
        deps, since = memo.deps, memo.verified_at
        while at < len(deps):
            dep = deps[at]
            if dep.state == FAILED or (dep.state == CLEAN and dep.changed_at > since):
                memo.state = STALE
                return at
            if dep.state != CLEAN:
                return at
            at += 1
        memo.state = CLEAN
        memo.verified_at = self.revision
        return at

    def _cycle(self, memo: Memo, path: list[Memo]) -> CycleError:
        """The memo, which runs, is asked for by the last that runs, through the path being verified."""
        members = self._running[self._running.index(memo) :]
        error = CycleError([member.call for member in (*members, *path)])
        self._doomed.update(dict.fromkeys(members, error))
        for member in path:  # FAILED, not DIRTY: the next edit must be able to push through them
            member.state, member.value = FAILED, MISSING
            self._failures[member] = error
        return error

    def _run_again(self, db: Database, memo: Memo, value: object) -> None:
        first, self.asked = self.asked, {}
        try:
            again = memo.query.function(db, *memo.args)
            asked = self.asked
        except Exception as error:
            raise ImpureQuery(memo.call, f"it answered, then raised {error!r}") from error
        finally:
            self.asked = first
        if not same(value, again):
            raise ImpureQuery(memo.call, "two runs gave answers that are not equal")
        if first is not None and list(first) != list(asked):
            raise ImpureQuery(memo.call, "two runs asked for different things")
