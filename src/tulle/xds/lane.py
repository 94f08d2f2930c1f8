"""What one client holds, wants and has refused of one resource type. No order between types: see `conversation.py`.

Theory of operation. A lane does not keep a table of the client's resources. It keeps a pointer to the shelf (shared by
all streams) that the client was last brought up to, `base`, and the names where the client differs from it:

    known(name) = differs[name] if present, else base[name] if the client subscribes to it, else nothing

Drafting compares `base` with the newest shelf (a difference shared by all streams) plus the few names in `differs` and
`owed`. At most one response is outstanding; when it is acknowledged, `base` moves to the shelf it was made from, and
what was left out stays behind in `differs`. A client that answers nothing therefore costs one response, however often
the snapshot changes.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tulle.xds.blame import blame
from tulle.xds.names import WILDCARD, Nonce, ResourceName, TypeUrl, Version
from tulle.xds.resource import Entry
from tulle.xds.snapshot import EMPTY, Comparisons, Shelf, route_of

_IMPLICIT_WILDCARD = frozenset((TypeUrl.CDS, TypeUrl.LDS, TypeUrl.VHDS))


_NO_NAMES: frozenset[ResourceName] = frozenset()


@dataclass(frozen=True, slots=True)
class Stated:
    """A resource the client says it holds from an earlier stream."""

    version: Version


Known = Entry | Stated


@dataclass(slots=True, eq=False)
class Draft:
    """What the next response would do. Not changed once made: clients in the same state share one."""

    target: Shelf
    send: dict[ResourceName, Entry] = field(default_factory=dict)
    remove: list[ResourceName] = field(default_factory=list)
    left_out: dict[ResourceName, Known | None] = field(default_factory=dict)
    """Names that differ from `target` but must wait or were refused, with what the client holds instead."""
    missing: list[ResourceName] = field(default_factory=list)
    """Names asked for just now which the shelf does not have."""
    versions: dict[ResourceName, Version] = field(default_factory=dict)
    """Of `send`."""
    is_public: bool = True
    """Without references to secrets: its bytes may be kept and are the same for everybody."""


class Turn(NamedTuple):
    """When a lane may go, as the conversation sees it: sets of types are bits."""

    bit: int = 0
    """Its own type; 0 for types nobody waits for."""
    changes_after: int = 0
    removals_after: int = 0


class Push(NamedTuple):
    """The outstanding response of a lane."""

    nonce: Nonce
    draft: Draft
    snapshot_version: int
    moves_base: bool
    opens: bool
    """Carries something the client did not have at all: what points at it should wait."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a refused push was judged."""

    guilty: Mapping[ResourceName, Version]
    doubted: tuple[ResourceName, ...]
    """Not judged yet: they will be tried apart, in halves."""


class Lane:
    """One resource type of one stream."""

    __slots__ = (
        "_comparisons",
        "asked",
        "base",
        "differs",
        "greeted",
        "last_nonce",
        "names",
        "outstanding",
        "overdue",
        "owed",
        "rejected",
        "synced_version",
        "trials",
        "turn",
        "type_url",
        "wildcard",
    )

    def __init__(self, type_url: str, comparisons: Comparisons) -> None:
        self.type_url = type_url
        self.turn = Turn()
        self._comparisons = comparisons
        self.asked = False  # the client has sent a request of this type
        self.greeted = False  # it has been sent a response
        self.wildcard = False
        self.names: frozenset[ResourceName] = _NO_NAMES  # shared by all clients that subscribe to the same
        self.base: Shelf = EMPTY
        self.differs: dict[ResourceName, Known | None] = {}
        self.owed: set[ResourceName] = set()  # must be sent even when the version is the one it had
        self.rejected: dict[ResourceName, Version] = {}
        self.trials: deque[frozenset[ResourceName]] = deque()
        self.outstanding: Push | None = None
        self.overdue = False
        self.last_nonce = Nonce("")
        self.synced_version = -1  # the newest snapshot version of which nothing is left to deliver here

    # --- what the client wants ---------------------------------------------------------------------------------------

    def covers(self, name: ResourceName) -> bool:
        """Whether the client subscribes to `name`."""
        return self.wildcard or name in self.names

    @property
    def is_patient(self) -> bool:
        """Whether names asked for one by one are on-demand lookups: answered when they are there, never by a removal.

        Envoy would wait for ever, or fail the name for good (envoy#47201; docs/facts/envoy.md §9).
        """
        return self.type_url == TypeUrl.VHDS or (self.type_url == TypeUrl.CDS and self.wildcard)

    @property
    def is_waited_for(self) -> bool:
        """Whether the outstanding push holds other types back."""
        push = self.outstanding
        return push is not None and not self.overdue and (push.opens or self.type_url != TypeUrl.EDS)

    def known(self, name: ResourceName) -> Known | None:
        """What the client holds under `name`, as far as it has said."""
        if name in self.differs:
            return self.differs[name]
        entry = self.base.get(name) if self.covers(name) else None
        return entry if entry is None or self.wants(entry) else None

    def wants(self, entry: Entry) -> bool:
        """Whether the client is to have it: what it subscribes to, doors only by name."""
        return entry.name in self.names if entry.is_door else self.covers(entry.name)

    def open(self, names: Iterable[ResourceName], initial: Mapping[ResourceName, Version]) -> list[ResourceName]:
        """The first request of this type; returns the names the client starts without."""
        self.asked = True
        names = list(names)
        under_way = self.outstanding.draft.send if self.outstanding else {}
        for name, version in initial.items():
            if name not in self.differs and name not in under_way:
                self.differs[name] = Stated(version)
        if not names and self.type_url in _IMPLICIT_WILDCARD:
            self.wildcard = True
        fresh = [name for name in names if name not in initial] if initial else names
        if initial:
            self._want(name for name in names if name in initial)
        self.subscribe(fresh)
        return [name for name in fresh if name != WILDCARD]

    def subscribe(self, names: Iterable[ResourceName]) -> None:
        """The client asks for `names` and must be answered, even with what it had before."""
        wanted = frozenset(names)
        if WILDCARD in wanted:
            wanted -= {WILDCARD}
            if not self.wildcard:
                self.differs |= {held: None for held in self.base if held not in self.differs and not self.covers(held)}
            self.wildcard = True
        if wanted:
            self._want(wanted)
            self.owe(wanted)

    def _want(self, names: Iterable[ResourceName]) -> None:
        self.names = self._comparisons.union(self.names, frozenset(names))

    def owe(self, names: frozenset[ResourceName]) -> None:
        """The client holds nothing under `names` and is to get them, whatever was sent before."""
        self.owed |= names
        # What `base` lacks is not held anyway, unless an acknowledgement is about to move it.
        doubtful = names if self.outstanding else [name for name in names if name in self.base or name in self.differs]
        self.differs |= dict.fromkeys(doubtful)
        if self.rejected:
            for name in names:
                self.rejected.pop(name, None)

    def unsubscribe(self, names: Iterable[ResourceName]) -> None:
        """The client drops `names`."""
        names = tuple(names)
        if names:
            self.names = self._comparisons.one_of_equals(self.names.difference(names))
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
                continue
            self.owed.discard(name)
            self.differs.pop(name, None)
            self.rejected.pop(name, None)
            if self.covers(name):  # still wanted by the wildcard: the protocol wants it sent, or said to be gone
                self.owe(frozenset((name,)))

    # --- what to send ------------------------------------------------------------------------------------------------

    def draft(self, target: Shelf, *, may_remove: bool, may_empty: bool = True, may_open: bool = False) -> Draft:
        """What would bring the client from what it holds to `target`. Costs the difference, and once for all alike."""
        # Where it differs in nothing but what it is owed, what it holds there does not matter.
        if self.rejected or self.trials or not self.differs.keys() <= self.owed:
            return self._drafted(target, may_remove=may_remove, may_empty=may_empty, may_open=may_open)
        owed = self._comparisons.one_of_equals(frozenset(self.owed))
        state = (self.type_url, self.base, target, owed, *self._coverage(), self.asked, may_remove, may_empty, may_open)
        draft: Draft = self._comparisons.once(
            state, lambda: self._drafted(target, may_remove=may_remove, may_empty=may_empty, may_open=may_open)
        )
        return draft

    def _coverage(self) -> tuple[object, ...]:
        """What decides what `covers` says; equal coverage is the same objects."""
        return (self.wildcard, self.names)

    def _drafted(self, target: Shelf, *, may_remove: bool, may_empty: bool, may_open: bool) -> Draft:
        draft = Draft(target)
        allowed = self._trial(target)
        for name in sorted(self._candidates(target)):
            entry, have = target.get(name), self.known(name)
            if entry is None:
                self._draft_absent(draft, name, have, may_remove=may_remove)
            elif not self.wants(entry):
                self.differs.pop(name, None)
            elif (entry.is_door and not may_open) or (allowed is not None and name not in allowed):
                draft.left_out[name] = have
            elif name in self.owed:
                draft.send[name] = entry
            elif have is not None and have.version == entry.version:
                continue  # agrees: `settle` forgets that it ever differed
            elif self.rejected.get(name) == entry.version or (entry.is_empty and have is not None and not may_empty):
                draft.left_out[name] = have
            else:
                draft.send[name] = entry
        draft.versions = {name: entry.version for name, entry in draft.send.items()}
        draft.is_public = self.type_url != TypeUrl.SDS
        return draft

    def _draft_absent(self, draft: Draft, name: ResourceName, have: Known | None, *, may_remove: bool) -> None:
        if name in self.owed:
            draft.missing.append(name)
        elif self.is_patient and name in self.names:
            return  # never said to be gone: the client keeps what it has of it
        elif have is not None and may_remove:
            draft.remove.append(name)
        elif have is not None:
            draft.left_out[name] = have

    def _candidates(self, target: Shelf) -> set[ResourceName]:
        if not self.asked:
            return set(self.owed)
        found = self.owed | self.differs.keys()
        if target is not self.base:
            changed, removed = self._comparisons.difference(self.base, target)
            found.update(self._covered(changed), self._covered(removed))
        return found

    def _covered(self, names: frozenset[ResourceName]) -> Iterable[ResourceName]:
        return names if self.wildcard else self.names & names

    def _trial(self, target: Shelf) -> frozenset[ResourceName] | None:
        while self.trials:
            waiting = frozenset(name for name in self.trials[0] if self._still_to_send(name, target.get(name)))
            if waiting:
                return waiting
            self.trials.popleft()
        return None

    def _still_to_send(self, name: ResourceName, entry: Entry | None) -> bool:
        if entry is None or not self.wants(entry) or self.rejected.get(name) == entry.version:
            return False
        have = self.known(name)
        return have is None or have.version != entry.version

    def is_idle_at(self, target: Shelf) -> bool:
        """Whether there is nothing to draft: the usual answer, found without work."""
        return target is self.base and self.greeted and not self.differs and not self.owed

    def keeps_waiting(self, target: Shelf) -> bool:
        """Whether the client waits for doors of `target`."""
        return any((entry := target.get(name)) is not None and entry.is_door for name in (*self.owed, *self.differs))

    def opens(self, draft: Draft) -> bool:
        """Whether `draft` brings something the client lacks or waits for."""
        return any(name in self.owed or self.known(name) is None for name in draft.send)

    def sent(self, push: Push) -> None:
        """`push` is on the wire. A name asked for again from now on is owed again."""
        self.outstanding, self.last_nonce, self.greeted = push, push.nonce, True
        self.owed.difference_update(push.draft.send, push.draft.missing)

    # --- what the client said ----------------------------------------------------------------------------------------

    def settle(self, draft: Draft, *, moves_base: bool = True) -> None:
        """The client now holds `draft.target`, except for what was left out."""
        if moves_base and not (self.differs or self.owed or self.rejected or draft.left_out):
            self.base = draft.target
            return
        done = (*draft.send, *draft.remove, *draft.missing)
        if self.owed:
            done = tuple(name for name in done if name not in self.owed)
        if self.differs:
            for name in done:
                self.differs.pop(name, None)
        if moves_base:
            for name in [n for n, known in self.differs.items() if _agrees(known, draft.target.get(n))]:
                if name not in self.owed:
                    del self.differs[name]
            for name in [n for n in self.rejected if n not in draft.target]:
                del self.rejected[name]
            self.base = draft.target
        else:
            self.differs |= {name: draft.send[name] for name in done if name in draft.send}
        waiting = {name: known for name, known in draft.left_out.items() if name not in self.owed}
        self.differs |= {name: known for name, known in waiting.items() if known is not None or self.covers(name)}
        if not self.differs:
            self.differs = {}  # a dictionary that was once large stays large
        if not self.owed:
            self.owed = set()

    def accept(self) -> Push | None:
        """The outstanding push was acknowledged."""
        push = self._answered()
        if push is not None:
            for name in push.draft.send if self.rejected else ():
                self.rejected.pop(name, None)
            self.settle(push.draft, moves_base=push.moves_base)
            self._synced(push)
        return push

    def _synced(self, push: Push) -> None:
        target, left_out = push.draft.target, push.draft.left_out
        lingers = self.type_url == TypeUrl.CDS and any(name not in target for name in left_out)
        lingers |= any(entry.is_empty or entry.is_door for name in left_out if (entry := target.get(name)) is not None)
        if push.moves_base and not self.trials and not lingers:
            self.synced_version = push.snapshot_version

    def reject(self, detail: str) -> Verdict | None:
        """The outstanding push was refused: find the guilty, remember them, plan to deliver the rest."""
        push = self._answered()
        if push is None:
            return None
        names = tuple(push.draft.send)
        guilty, others_applied, suspected = blame(detail, names)
        doubted: tuple[ResourceName, ...] = ()
        lost = set(guilty if others_applied else names)  # the innocent may have gone down with the guilty: sent again
        if not guilty and len(names) == 1:
            guilty = names
        elif not guilty:
            doubted = names
            apart = frozenset(suspected) if 0 < len(suspected) < len(names) else frozenset(names[: len(names) // 2])
            self.trials.extend(part for part in (apart, frozenset(names) - apart) if part)
        for name in set(names) - lost:
            self.rejected.pop(name, None)
        verdict = Verdict({name: push.draft.send[name].version for name in guilty}, doubted)
        self.rejected |= verdict.guilty
        self._settle_refused(push, lost)
        return verdict

    def _settle_refused(self, push: Push, lost: set[ResourceName]) -> None:
        send = push.draft.send
        left_out = push.draft.left_out | {name: self._lost(name, send[name]) for name in send if name in lost}
        kept = {name: entry for name, entry in send.items() if name not in lost}
        versions = {name: entry.version for name, entry in kept.items()}
        draft = Draft(push.draft.target, kept, push.draft.remove, left_out, push.draft.missing, versions)
        self.settle(draft, moves_base=push.moves_base)
        if all(self.rejected.get(name) == send[name].version for name in lost):
            self._synced(push)

    def _lost(self, name: ResourceName, entry: Entry) -> Known | None:
        have = self.known(name)
        if have is not None and have.version == entry.version:
            return None  # a repetition was lost: forget that it was there, so that it is sent again
        return have

    def _answered(self) -> Push | None:
        push, self.outstanding, self.overdue = self.outstanding, None, False
        if push is not None and self.trials and set(push.draft.send) & self.trials[0]:
            self.trials.popleft()
        return push

    def held(self) -> dict[ResourceName, Version]:
        """The versions this client holds, by name; walks them all."""
        names = self.base.keys() | self.differs.keys()
        known = ((name, self.known(name)) for name in sorted(names))
        return {name: entry.version for name, entry in known if entry is not None}


def _agrees(known: Known | None, entry: Entry | None) -> bool:
    if known is None or entry is None:
        return known is entry
    return known.version == entry.version


class VirtualHostLane(Lane):
    """VHDS: its one wildcard subscription means the virtual hosts of the route configurations the client holds.

    Envoy sends no VHDS request for a route configuration that appears later, and drops virtual hosts that come before
    it (docs/facts/envoy.md §1): so they follow the RDS subscription, not a request of their own.
    """

    __slots__ = ("_routes",)

    def __init__(self, comparisons: Comparisons, routes: Lane) -> None:
        super().__init__(TypeUrl.VHDS, comparisons)
        self._routes = routes

    def covers(self, name: ResourceName) -> bool:
        """Asked for by name, or of a route configuration the client has."""
        return name in self.names or self._routes.covers(ResourceName(route_of(name)))

    def _covered(self, names: frozenset[ResourceName]) -> Iterable[ResourceName]:
        return (name for name in names if self.covers(name))

    def _coverage(self) -> tuple[object, ...]:
        return (self.names, self._routes.wildcard, self._routes.names)

    def follow(self, route: ResourceName, target: Shelf) -> None:
        """The client starts with an empty `route`: all its virtual hosts are owed right behind it."""
        self.owe(frozenset(self._comparisons.virtual_hosts(target, route)))

    def forget(self, route: ResourceName) -> None:
        """The client dropped `route` and its virtual hosts with it."""
        for names in (self.owed, self.differs, self.rejected):
            for name in [n for n in names if route_of(n) == route]:
                names.discard(name) if isinstance(names, set) else names.pop(name, None)
