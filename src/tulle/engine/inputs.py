"""Inputs: what enters from outside, by key, with indexes that turn one edit into few dirty buckets.

Must not know queries: reading tells the graph which key was read, an edit tells it which keys changed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from tulle.engine.errors import EngineError
from tulle.engine.graph import MISSING, Graph, Source, same

if TYPE_CHECKING:
    from tulle.engine.database import Database

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
B = TypeVar("B", bound=Hashable)

_FEW: Final = 16  # joins per bucket up to which inserting beats sorting again


class Input(Source, Generic[K, V]):
    """A table of values by key. Declared at module level; the rows live in each database. Values are never mutated."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.indexes: list[Index[K, V, Any]] = []

    def __call__(self, db: Database, key: K) -> V | None:
        """The value at the key, None if there is none. The asking query then depends on this key alone."""
        db.graph.note(self, key)
        value: V | None = db.graph.rows[self].get(key)
        return value

    def index(self, name: str, buckets: Callable[[K, V], Iterable[B]]) -> Index[K, V, B]:
        """Sort keys into buckets by a pure function of key and value. One constant bucket lists all keys.

        Cost: O(rows) at the first read in a database, then O(log bucket + bucket copied) per edited key.
        """
        index = Index(self, name, buckets)
        self.indexes.append(index)
        return index

    def snapshot(self, db: Database) -> dict[K, V]:
        """All rows, copied; for adapters. Errors: InsideQuery, because nothing would be recorded."""
        db.graph.require_outside(f"{self.name}.snapshot")
        return dict(db.graph.rows[self])


class Index(Source, Generic[K, V, B]):
    """Which keys are in a bucket. A reader depends on membership only; values it reads by key."""

    def __init__(self, table: Input[K, V], name: str, buckets: Callable[[K, V], Iterable[B]]) -> None:
        super().__init__(f"{table.name}.{name}")
        self.table = table
        self.buckets = buckets

    def __call__(self, db: Database, bucket: B) -> tuple[K, ...]:
        """The keys in the bucket, sorted by `<`; empty if there are none."""
        db.graph.note(self, bucket)
        shelf = db.graph.shelves.get(self)
        if shelf is None:
            shelf = db.graph.shelves[self] = self._filled(db.graph.rows[self.table])
        return shelf.get(bucket, ())

    def _filled(self, rows: dict[K, V]) -> dict[Hashable, tuple[K, ...]]:
        shelf: defaultdict[Hashable, list[K]] = defaultdict(list)
        for key in sorted(rows):  # type: ignore[type-var]  # orderable by contract
            for bucket in set(self.buckets(key, rows[key])):
                shelf[bucket].append(key)
        return {bucket: tuple(keys) for bucket, keys in shelf.items()}


class Singleton(Source, Generic[V]):
    """One value, such as the settings of the whole."""

    def __init__(self, name: str, default: V) -> None:
        super().__init__(name)
        self.default: Final = default

    def __call__(self, db: Database) -> V:
        """The value now; the default until it is first set."""
        db.graph.note(self, ())
        value: V = db.graph.rows[self].get((), self.default)
        return value


class Edit:
    """Changes that become visible together when the block ends, or not at all if it raises. The last word wins."""

    def __init__(self) -> None:
        self._changes: dict[tuple[Source, Hashable], Any] | None = {}

    @overload
    def set(self, source: Input[K, V], key: K, value: V, /) -> None: ...
    @overload
    def set(self, source: Singleton[V], value: V, /) -> None: ...
    def set(self, source: Source, *key_and_value: Any) -> None:
        """Put a value: `set(table, key, value)` or `set(singleton, value)`."""
        *key, value = key_and_value
        self._open()[source, key[0] if key else ()] = value

    def delete(self, source: Input[K, V], key: K) -> None:
        """Take the row away; nothing if there is none."""
        self._open()[source, key] = MISSING

    def _open(self) -> dict[tuple[Source, Hashable], Any]:
        if self._changes is None:
            raise EngineError("this edit block has ended")
        return self._changes

    def apply(self, graph: Graph) -> None:
        """End the block: one revision if anything differs from before, none otherwise."""
        changes, self._changes = self._open(), None
        real = [
            (source, key, old, new)
            for (source, key), new in changes.items()
            if not same(old := _stored(graph, source, key), new)
        ]
        if not real:
            return
        shelved = _shelved(graph, real)  # runs foreign code, so before anything is touched
        graph.revision += 1
        for source, key, _, new in real:
            if new is MISSING:
                del graph.rows[source][key]
            else:
                graph.rows[source][key] = new
        for (index, bucket), keys in shelved.items():
            if keys:
                graph.shelves[index][bucket] = tuple(keys)
            else:
                del graph.shelves[index][bucket]
        graph.dirty([(source, key) for source, key, _, _ in real])
        graph.dirty(shelved)


def _stored(graph: Graph, source: Source, key: Hashable) -> Any:
    default = source.default if isinstance(source, Singleton) else MISSING
    return graph.rows[source].get(key, default)


def _shelved(
    graph: Graph, real: list[tuple[Source, Hashable, Any, Any]]
) -> dict[tuple[Index[Any, Any, Any], Hashable], list[Any]]:
    """The new keys of each bucket whose membership changes."""
    joined: defaultdict[tuple[Index[Any, Any, Any], Hashable], list[Any]] = defaultdict(list)
    left: defaultdict[tuple[Index[Any, Any, Any], Hashable], list[Any]] = defaultdict(list)
    for source, key, old, new in real:
        for index in source.indexes if isinstance(source, Input) else ():
            if index in graph.shelves:
                before = set() if old is MISSING else set(index.buckets(key, old))
                after = set() if new is MISSING else set(index.buckets(key, new))
                for bucket in before - after:
                    left[index, bucket].append(key)
                for bucket in after - before:
                    joined[index, bucket].append(key)
    shelved = {}
    for index, bucket in {**joined, **left}:
        keys = list(graph.shelves[index].get(bucket, ()))
        for key in left.get((index, bucket), ()):
            del keys[bisect_left(keys, key)]
        joining = joined.get((index, bucket), ())
        if len(joining) > _FEW:
            keys = sorted([*keys, *joining])
        else:
            for key in joining:
                insort(keys, key)
        shelved[index, bucket] = keys
    return shelved
