"""What every client of one view should hold, and the difference between two such states.

A snapshot is immutable and shared by all streams that show the same view; it knows no stream. Maps of types that did
not change are the same object in the next snapshot: that identity makes "nothing to do" free.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from weakref import ref

from msgspec import Struct

from tulle.xds.names import ResourceName, TypeUrl
from tulle.xds.resource import Entry

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
Names = frozenset[ResourceName]
Shelf = Mapping[ResourceName, Entry]
"""All resources of one type, by name."""
EMPTY: Shelf = MappingProxyType({})


class Snapshot(Struct, frozen=True):
    """The resources of one view at one moment."""

    version: int
    """Grows with every change of this control plane; means nothing to another replica."""
    types: Mapping[TypeUrl, Shelf]

    def __repr__(self) -> str:
        return f"Snapshot(version={self.version})"

    def shelf(self, type_url: str) -> Shelf:
        """The resources of one type; empty for a type this view has none of."""
        return self.types.get(type_url, EMPTY)  # type: ignore[call-overload,no-any-return]


class Difference(NamedTuple):
    """How one shelf became another."""

    changed: frozenset[ResourceName]
    """Added, or of another version."""
    removed: frozenset[ResourceName]


def difference(old: Shelf, new: Shelf) -> Difference:
    """Compare two shelves; O(names), or nothing when they are the same object."""
    if old is new:
        return Difference(frozenset(), frozenset())
    changed = frozenset(name for name, entry in new.items() if name not in old or old[name].version != entry.version)
    return Difference(changed, frozenset(name for name in old if name not in new))


class Parcel(NamedTuple):
    """The contents of a delta response, ready to be written."""

    names: tuple[ResourceName, ...]
    frames: bytes
    refused: tuple[ResourceName, ...] = ()
    """Secrets that this client may not have."""


PARCEL_BYTES = 64 * 1024 * 1024
"""Of contents kept for the next client in the same state."""


SHARED_NAMES = 2_000_000
"""In all sets of names that are remembered, some 32 bytes each."""


class _Recent(OrderedDict[_Key, _Value]):
    """The newest entries; which are the oldest is the order they were kept in."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def keep(self, key: _Key, value: _Value) -> _Value:
        """Remember, and forget the oldest where there are too many."""
        self[key] = value
        if len(self) > self._capacity:
            self.popitem(last=False)
        return value


class _RecentNames(_Recent[_Key, _Value]):
    """The newest entries that together hold no more than `SHARED_NAMES`; the newest of all in any case."""

    def __init__(self, capacity: int, weigh: Callable[[_Value], int]) -> None:
        super().__init__(capacity)
        self._weigh = weigh
        self._held = 0

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._held = 0

    def keep(self, key: _Key, value: _Value) -> _Value:
        """Remember as the newest, and forget the oldest where there is too much."""
        if (former := self.pop(key, None)) is not None:
            self._held -= self._weigh(former)
        self[key] = value
        self._held += self._weigh(value)
        while len(self) > 1 and (len(self) > self._capacity or self._held > SHARED_NAMES):
            self._held -= self._weigh(self.popitem(last=False)[1])
        return value


class Comparisons:
    """Differences and groupings that many streams ask for, computed once.

    One instance is shared by all conversations of a process. It remembers a bounded number of pairs of shelves, by
    identity; `publish` puts in a difference the compiler already knows, so that no shelf is walked at all.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._differences: _Recent[tuple[int, int], tuple[Shelf, Shelf, Difference]] = _Recent(capacity)
        self._made: _Recent[tuple[int, ...], tuple[tuple[object, ...], Any]] = _Recent(capacity)
        self._unions: _RecentNames[tuple[int, Names], tuple[Names, Names]]
        self._unions = _RecentNames(capacity, lambda pair: len(pair[0]) + len(pair[1]))
        self._parcels: OrderedDict[int, tuple[Any, Parcel]] = OrderedDict()
        self._parcel_bytes = 0
        self._names: _RecentNames[Names, Names] = _RecentNames(capacity, len)
        self._routes: _Recent[int, tuple[Shelf, Mapping[str, tuple[ResourceName, ...]]]] = _Recent(capacity)

    def publish(self, old: Shelf, new: Shelf, known: Difference) -> None:
        """Remember a difference found elsewhere."""
        self._differences.keep((id(old), id(new)), (old, new, known))  # holding the shelves keeps their ids unique

    def forget(self) -> None:
        """Let go of everything but the sets of names that some stream holds: they stand for their equals."""
        names = [ref(found) for found in self._names]
        for kept in (self._differences, self._made, self._parcels, self._routes, self._unions, self._names):
            kept.clear()
        self._parcel_bytes = 0
        for found in filter(None, (one() for one in names)):
            self._names.keep(found, found)

    def one_of_equals(self, names: frozenset[ResourceName]) -> frozenset[ResourceName]:
        """The set that stands for all equal ones: a thousand clients that subscribe to the same names share it."""
        kept = self._names.get(names, names)
        return self._names.keep(kept, kept)

    def union(self, names: frozenset[ResourceName], more: frozenset[ResourceName]) -> frozenset[ResourceName]:
        """Both, as the set that stands for all equal ones; made once for all that have the same and want the same more."""
        found = self._unions.get((id(names), more))
        if found is None:
            found = self._unions.keep((id(names), more), (names, self.one_of_equals(names | more)))
        return found[1]

    def once(self, state: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """`make()`, or what it made for the same objects before. `state` is compared by identity, and kept alive."""
        key = tuple(map(id, state))
        found = self._made.get(key)
        if found is None:
            found = self._made.keep(key, (state, make()))
        return found[1]

    def parcel(self, draft: Any, pack: Callable[[Any], Parcel]) -> Parcel:
        """`pack(draft)`, once while it is remembered. Never for drafts with secrets: bytes of keys are not kept."""
        found = self._parcels.get(id(draft))
        if found is None:
            found = self._parcels[id(draft)] = (draft, pack(draft))
            self._parcel_bytes += len(found[1].frames)
            while self._parcel_bytes > PARCEL_BYTES or len(self._parcels) > self._capacity:
                if len(self._parcels) == 1:
                    break
                _, (_, oldest) = self._parcels.popitem(last=False)
                self._parcel_bytes -= len(oldest.frames)
        return found[1]

    def difference(self, old: Shelf, new: Shelf) -> Difference:
        """`difference(old, new)`, walked at most once while it is remembered."""
        remembered = self._differences.get((id(old), id(new)))
        if remembered is not None:
            return remembered[2]
        found = difference(old, new)
        if old is not new:
            self.publish(old, new, found)
        return found

    def virtual_hosts(self, shelf: Shelf, route_configuration: str) -> tuple[ResourceName, ...]:
        """The VHDS names that belong to one route configuration: those before whose first `/` its name stands."""
        remembered = self._routes.get(id(shelf))
        if remembered is None:
            groups: dict[str, list[ResourceName]] = {}
            for name in shelf:
                groups.setdefault(route_of(name), []).append(name)
            remembered = (shelf, {route: tuple(names) for route, names in groups.items()})
            self._routes.keep(id(shelf), remembered)
        return remembered[1].get(route_configuration, ())


def route_of(virtual_host: str) -> str:
    """`9080` of `9080/reviews`: the route configuration a VHDS resource reaches (Envoy matches up to the first `/`)."""
    return virtual_host.partition("/")[0]
