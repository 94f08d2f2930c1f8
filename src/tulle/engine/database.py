"""The database: what callers hold. Edits in, answers out, roots to know what to ask again, and forgetting.

One thread, no awaiting inside a query. Must not know what is stored; the algorithm is graph.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from operator import attrgetter
from typing import Final, Generic, TypeVar

from tulle.engine.errors import EngineError
from tulle.engine.explain import Explanation, Read, explanation, reads_below
from tulle.engine.graph import CLEAN, Graph, Memo, Runs
from tulle.engine.inputs import Edit
from tulle.engine.query import P, Query, R

T_co = TypeVar("T_co", covariant=True)

_FRAMES: Final = 5_000
# A query asked cold costs the interpreter three frames, four from a comprehension: Python's 1,000 end 250 deep.
# Raised at import: a limit that moves while something runs surprises whoever saved it to restore it.
sys.setrecursionlimit(max(sys.getrecursionlimit(), _FRAMES))


class Root(Generic[T_co]):
    """An answer someone holds on to. Keeps everything below it from being collected, until closed."""

    __slots__ = ("_db", "_memo", "serial")

    def __init__(self, db: Database, memo: Memo, serial: int) -> None:
        self._db = db
        self._memo: Memo | None = memo
        self.serial = serial
        """Order of opening."""

    def value(self) -> T_co:
        """The answer as of now. Errors: whatever the query raises; EngineError once closed."""
        memo = self._open()
        answer: T_co = memo.query(self._db, *memo.args)
        return answer

    @property
    def is_dirty(self) -> bool:
        """Whether asking may do work: never asked, failed, or something below was edited since."""
        return self._open().state != CLEAN

    @property
    def changed_at(self) -> int:
        """Revision at which the answer last changed, as of the last asking; 0 if there was none yet."""
        return self._open().changed_at

    def close(self) -> None:
        """Let go. Closing twice is nothing."""
        if self._memo is not None:
            holders = self._db.graph.roots[self._memo]
            del holders[self]
            if not holders:
                del self._db.graph.roots[self._memo]
                self._db.graph.dirtied.pop(self._memo, None)
            self._memo = None

    def _open(self) -> Memo:
        if self._memo is None:
            raise EngineError("this root is closed")
        return self._memo


class Database:
    """Inputs, and the memoised answers of queries over them."""

    def __init__(self, *, check_purity: bool = False) -> None:
        """With `check_purity` every query runs twice and must answer and ask the same (ImpureQuery otherwise)."""
        self.graph = Graph(check_purity)
        """The engine's own; callers leave it alone."""
        self._serials = count()

    @property
    def revision(self) -> int:
        """Grows with every edit that changes something, and with every gate it reaches."""
        return self.graph.revision

    @property
    def runs(self) -> int:
        """How many times any query ran, since the beginning. Second runs of the purity check do not count."""
        return self.graph.runs

    @property
    def node_count(self) -> int:
        """Memos, and input keys and buckets that some memo has read."""
        return sum(map(len, self.graph.memos.values())) + sum(map(len, self.graph.leaves.values()))

    @contextmanager
    def edit(self) -> Iterator[Edit]:
        """A block of changes, applied together as one revision when it ends; dropped if it raises.

        Cost: O(nodes dirtied), and of asking the gates reached. Errors: InsideQuery; whatever an index's function raises, then nothing is changed.
        """
        self.graph.require_outside("an edit")
        edit = Edit()
        yield edit
        edit.apply(self.graph)
        self.graph.open_gates(self)

    def root(self, query: Query[P, R], *args: P.args, **kwargs: P.kwargs) -> Root[R]:
        """Hold an answer. Nothing runs yet: ask it once yourself, it is listed as dirty only from then on."""
        self.graph.require_outside("opening a root")
        memo = self.graph.memo(query, query.bound(*args, **kwargs))
        root: Root[R] = Root(self, memo, next(self._serials))
        self.graph.roots.setdefault(memo, {})[root] = None
        return root

    def take_dirty_roots(self) -> tuple[Root[object], ...]:
        """Open roots dirtied since last taken, in order of opening. Ask each: unasked, it is not listed again."""
        dirtied, self.graph.dirtied = self.graph.dirtied, {}
        return tuple(sorted((root for memo in dirtied for root in self.graph.roots[memo]), key=attrgetter("serial")))

    def collect(self) -> int:
        """Forget every node that no open root rests on; returns how many. Cost: O(all nodes)."""
        self.graph.require_outside("collecting")
        before = self.node_count
        kept: set[Memo] = set()
        stack = list(self.graph.roots)
        while stack:
            memo = stack.pop()
            if memo not in kept:
                kept.add(memo)
                stack += [dep for dep in memo.deps if isinstance(dep, Memo)]
        for memos in self.graph.memos.values():
            for memo in [memo for memo in memos.values() if memo not in kept]:
                del memos[memo.args]
                for dep in memo.deps:
                    if dep.dependents is not None:
                        dep.dependents.discard(memo)
                memo.deps = ()  # members of a CycleError ask each other: freed without a garbage collector
        for leaves in self.graph.leaves.values():
            for key in [key for key, leaf in leaves.items() if not leaf.dependents]:
                del leaves[key]
        return before - self.node_count

    def explain(self, query: Query[P, R], *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Everything an answer rests on, as a printable tree. Asks first, so it raises what the query raises."""
        return explanation(self._settled(query, *args, **kwargs))

    def dependencies(self, query: Query[P, R], *args: P.args, **kwargs: P.kwargs) -> frozenset[Read]:
        """(input name, key) of everything an answer rests on, however deep. Asks first."""
        return reads_below(self._settled(query, *args, **kwargs))

    def _settled(self, query: Query[P, R], *args: P.args, **kwargs: P.kwargs) -> Memo:
        self.graph.require_outside("explaining")
        query(self, *args, **kwargs)
        return self.graph.memo(query, query.bound(*args, **kwargs))

    @contextmanager
    def counting(self) -> Iterator[Runs]:
        """Record which queries run in the block. May be nested; costs nothing outside of it."""
        runs = Runs()
        self.graph.counters.append(runs)
        try:
            yield runs
        finally:
            self.graph.counters.remove(runs)
