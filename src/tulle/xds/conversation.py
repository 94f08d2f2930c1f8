"""The ADS conversation with one client as a state machine without I/O: events in, actions out.

    conversation = Conversation(snapshot, secrets=vault.read, comparisons=shared)
    actions = conversation.receive(DeltaRequest(...))           # or SotwRequest, SnapshotChanged, Overdue

Rule 1: every subscription is answered. Rule 2: per type at most one response is outstanding; what changes meanwhile
goes into the next one, made from the newest snapshot. Rule 3: what points waits for what is pointed at:

    type | changes wait until these are acknowledged        | removals wait until these are acknowledged
    SDS  | -                                                | CDS LDS RDS VHDS
    CDS  | -                                                | LDS RDS VHDS, and none of them refused
    EDS  | - (right behind the CDS response: warming)       | CDS LDS RDS VHDS (also to lose the last endpoint)
    LDS  | CDS, EDS of new or changed clusters              | as its changes
    RDS  | CDS, EDS of new or changed clusters, LDS         | as its changes
    VHDS | as RDS, and RDS is on the wire                   | as its changes

CDS, LDS, RDS and VHDS walk in rounds: all four are brought to one snapshot before the next is taken up, so a stream of
edits can neither starve the later types nor mix snapshots. EDS and SDS always send the newest.

Why EDS does not wait: Envoy acknowledges CDS when the new clusters are warm, so their endpoints must come first.
Why endpoints are sent again after a cluster changed: the new cluster replaces the old one under the same EDS
subscription, asks for nothing and warms only when a ClusterLoadAssignment comes by. Listeners share route and secret
subscriptions with what they replace, so RDS and SDS need no repetition; where Envoy does need it, it subscribes again.

Doors (`Resource.is_door`) are clusters that a first request waits for. They go behind the virtual hosts of their round, which
need not be acknowledged: Envoy reads in order.

Lanes (`lane.py`) know one type each; bytes are `wire.py`'s; sockets, clocks and fleets are `serve`'s.
"""

from collections.abc import Iterable, Mapping
from itertools import count

from tulle.xds.events import (
    Acked,
    Action,
    Asked,
    Closed,
    DeltaRequest,
    Doubted,
    Event,
    Overdue,
    Rejected,
    Send,
    SnapshotChanged,
    SotwRequest,
)
from tulle.xds.lane import Draft, Lane, Push, Turn, VirtualHostLane
from tulle.xds.names import PUSH_ORDER, WILDCARD, Nonce, ResourceName, TypeUrl, Version
from tulle.xds.resource import Entry, Resource, SecretBytes, SecretRef, framed
from tulle.xds.snapshot import EMPTY, Comparisons, Parcel, Snapshot
from tulle.xds.wire import delta_response, sotw_response

CDS, EDS, LDS, RDS, VHDS, SDS = TypeUrl.CDS, TypeUrl.EDS, TypeUrl.LDS, TypeUrl.RDS, TypeUrl.VHDS, TypeUrl.SDS

CHANGES_AFTER: Mapping[str, tuple[TypeUrl, ...]] = {LDS: (CDS, EDS), RDS: (CDS, EDS, LDS), VHDS: (CDS, EDS, LDS)}
REMOVALS_AFTER: Mapping[str, tuple[TypeUrl, ...]] = {
    CDS: (LDS, RDS, VHDS),
    EDS: (CDS, LDS, RDS, VHDS),
    SDS: (CDS, LDS, RDS, VHDS),
}
_IN_ROUNDS = (CDS, LDS, RDS, VHDS)

# Sets of types as bits: the order is asked for several times per message, and a message is a few microseconds of work.
_BITS: Mapping[str, int] = {url: 1 << at for at, url in enumerate(PUSH_ORDER)}


def _bits(types: Iterable[str]) -> int:
    return sum(_BITS[url] for url in types)


_TURNS: Mapping[str, Turn] = {
    url: Turn(_BITS[url], _bits(CHANGES_AFTER.get(url, ())), _bits(REMOVALS_AFTER.get(url, ()))) for url in PUSH_ORDER
}
_ROUND_BITS = _bits(_IN_ROUNDS)
_LOSE_LAST = _bits((CDS, EDS))
_WHOLE_SETS = frozenset((CDS, LDS))
"""State of the world: a response of these types lists everything; what it does not list is gone."""
MOST_TYPES = 32
MOST_NAMES = 100_000
MOST_LINGERING = 1_000
"""Unreferenced clusters kept for a client that refuses the routes or listeners which no longer use them."""
NEVER_SYNCED = -1


def _no_secrets(_: SecretRef) -> None:
    return None


class Conversation:
    """One stream of one client. Aggregated by default; a single-type stream passes that type as `expects`."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        secrets: SecretBytes = _no_secrets,
        comparisons: Comparisons | None = None,
        expects: frozenset[TypeUrl] = frozenset((CDS, LDS)),
    ) -> None:
        """`secrets` joins key bytes at send time for this client's identity; `comparisons` is shared by all streams.

        `expects`: types that the client must have subscribed to before it can be in sync with anything.
        """
        self._snapshot = snapshot
        self._round = snapshot
        self._secrets = secrets
        self._comparisons = comparisons or Comparisons()
        self._expects = expects
        routes = Lane(RDS, self._comparisons)
        self._virtual_hosts = VirtualHostLane(self._comparisons, routes)
        made = (routes, self._virtual_hosts)
        self._lanes: dict[str, Lane] = {url: Lane(url, self._comparisons) for url in PUSH_ORDER}
        self._lanes |= {lane.type_url: lane for lane in made}  # keeps the order
        for url, turn in _TURNS.items():
            self._lanes[url].turn = turn
        self._in_rounds = tuple(self._lanes[url] for url in _IN_ROUNDS)
        self._clusters, self._endpoints = self._lanes[CDS], self._lanes[EDS]
        self._listeners, self._routes = self._lanes[LDS], routes
        self._has_begun = False  # the client has subscribed to everything it is expected to
        self._is_quiet = False  # it holds the round whole, and nothing is under way
        self._nonces = count(1)
        self._is_delta = True
        self._actions: list[Action] = []
        self._closed = False
        self._returns = False  # the client holds something from an earlier stream
        self.synced_version = NEVER_SYNCED
        """The newest snapshot version of which this client has acknowledged or refused everything."""

    # --- questions ---------------------------------------------------------------------------------------------------

    @property
    def held(self) -> Mapping[TypeUrl, Mapping[ResourceName, Version]]:
        """Which version of which resource the client holds, as acknowledged; built on demand, O(resources)."""
        return {TypeUrl(url): self._lanes[url].held() for url in PUSH_ORDER if self._lanes[url].asked}

    @property
    def rejected(self) -> Mapping[TypeUrl, Mapping[ResourceName, Version]]:
        """The refused versions that are still the newest we have."""
        return {TypeUrl(url): dict(self._lanes[url].rejected) for url in PUSH_ORDER if self._lanes[url].rejected}

    def asked_names(self) -> frozenset[ResourceName]:
        """What the client subscribed to one by one, where it also gets everything: its on-demand lookups."""
        return frozenset(name for lane in self._lanes.values() if lane.is_patient for name in lane.names)

    @property
    def waits_for(self) -> frozenset[str]:
        """Types whose response is not acknowledged yet; empty when the client is quiet."""
        return frozenset(url for url, lane in self._lanes.items() if lane.outstanding is not None)

    @property
    def is_waiting(self) -> bool:
        """Whether some response is not acknowledged yet."""
        return any(lane.outstanding is not None for lane in self._lanes.values())

    def is_synced(self, snapshot_version: int) -> bool:
        """Whether everything up to that snapshot version is acknowledged or refused."""
        return self.synced_version >= snapshot_version

    # --- events ------------------------------------------------------------------------------------------------------

    def receive(self, event: Event) -> list[Action]:
        """Take one event; returns what to do, in order. After `Closed` nothing more happens."""
        if self._closed:
            return []
        match event:
            case DeltaRequest() | SotwRequest():
                self._request(event)
            case SnapshotChanged(snapshot):
                if snapshot.version > self._snapshot.version:
                    self._snapshot = snapshot
            case Overdue():
                for lane in self._lanes.values():
                    lane.overdue = lane.outstanding is not None
        if not self._closed:
            self._advance()
        actions, self._actions = self._actions, []
        return actions

    def _request(self, request: DeltaRequest | SotwRequest) -> None:
        lane = self._lane(request.type_url)
        if lane is None:
            return
        if isinstance(request, DeltaRequest):
            self._answered(lane, request.nonce, request.error)
            self._delta(lane, request)
        else:
            self._is_delta = False
            if lane.asked and request.nonce and request.nonce != lane.last_nonce:
                return  # written before the client saw our last response; it will say it again (xDS protocol)
            self._answered(lane, request.nonce, request.error)
            self._state_of_the_world(lane, request)
        if len(lane.names) > MOST_NAMES:
            self._close(f"more than {MOST_NAMES} names of {lane.type_url}")

    def _lane(self, type_url: str) -> Lane | None:
        lane = self._lanes.get(type_url)
        if lane is None and (not type_url or len(self._lanes) >= MOST_TYPES):
            self._close("a request without a type" if not type_url else f"more than {MOST_TYPES} types")
        elif lane is None:
            lane = self._lanes[type_url] = Lane(type_url, self._comparisons)
        return lane

    def _close(self, reason: str) -> None:
        self._closed = True
        self._actions.append(Closed(reason))

    def _answered(self, lane: Lane, nonce: Nonce, error: str | None) -> None:
        if lane.outstanding is None or nonce != lane.outstanding.nonce:
            return  # a first request, a change of subscription, or a late echo
        if error is None:
            push = lane.accept()
            if push is not None:
                removed = self._removed(lane, push.draft)
                self._actions.append(Acked(lane.type_url, push.draft.versions, removed, push.snapshot_version))
            return
        verdict = lane.reject(error)
        if verdict is not None and verdict.guilty:
            self._actions.append(Rejected(lane.type_url, verdict.guilty, error))
        if verdict is not None and verdict.doubted:
            self._actions.append(Doubted(lane.type_url, verdict.doubted, error))

    def _delta(self, lane: Lane, request: DeltaRequest) -> None:
        if request.unsubscribe:
            self._drop(lane, request.unsubscribe)
        if lane.asked and not request.subscribe:
            return  # an acknowledgement, nearly always
        if lane.asked:
            lane.subscribe(request.subscribe)
            fresh = [name for name in request.subscribe if name != WILDCARD]
        else:
            self._returns |= bool(request.initial_versions)
            fresh = lane.open(request.subscribe, request.initial_versions)
            clusters = self._lanes[CDS].outstanding
            if lane.type_url == EDS and clusters is not None:
                self._warm(clusters.draft)  # the client wrote this before it saw the clusters change
        self._asked_for(lane, fresh)

    def _state_of_the_world(self, lane: Lane, request: SotwRequest) -> None:
        if not lane.asked:
            self._asked_for(lane, lane.open(request.names, {}))
            return
        wanted = set(request.names)
        if not wanted and lane.wildcard and not lane.names:
            return  # the implicit wildcard goes on
        current = lane.names | ({ResourceName(WILDCARD)} if lane.wildcard else set())
        self._drop(lane, tuple(sorted(current - wanted)))
        fresh = sorted(wanted - current)
        lane.subscribe(fresh)
        self._asked_for(lane, [name for name in fresh if name != WILDCARD])

    def _drop(self, lane: Lane, names: tuple[ResourceName, ...]) -> None:
        lane.unsubscribe(names)
        if lane.type_url == RDS:
            for name in names:
                self._virtual_hosts.forget(name)

    def _asked_for(self, lane: Lane, fresh: list[ResourceName]) -> None:
        target = self._snapshot.shelf(lane.type_url)
        absent = tuple(name for name in fresh if name not in target)
        if absent:
            self._actions.append(Asked(lane.type_url, absent))
        if lane.type_url == RDS and self._is_delta:
            for name in fresh:
                self._virtual_hosts.follow(name, self._round.shelf(VHDS))

    # --- pushes ------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._has_begun = self._has_begun or all(self._lanes[url].asked for url in self._expects)
        if self._round is not self._snapshot and (self._is_quiet or not self._pass(self._in_rounds) & _ROUND_BITS):
            self._round = self._snapshot
        busy = self._pass(self._lanes.values())
        if self._round is self._snapshot:
            for lane in (self._endpoints, self._lanes[SDS]):
                busy |= self._remove(lane, busy)
        self._take_stock()

    def _take_stock(self) -> None:
        """How far the client is."""
        synced, is_quiet = self._snapshot.version, self._round is self._snapshot
        for lane in self._lanes.values():
            if lane.asked and lane.synced_version < synced:
                synced = lane.synced_version
            if lane.outstanding is not None or lane.owed or lane.differs:
                is_quiet = False
        self._is_quiet = is_quiet
        if self._has_begun and synced > self.synced_version:
            self.synced_version = synced

    def _pass(self, lanes: Iterable[Lane]) -> int:
        """Send what may be sent now of `lanes`; returns the types that still have to get somewhere, or must wait for others.

        Mere endpoint updates make nobody wait.
        """
        busy = 0
        for lane in self._lanes.values():
            if lane.outstanding is not None and lane.is_waited_for:
                busy |= lane.turn.bit
        for lane in lanes:
            turn = lane.turn
            if busy & turn.changes_after or (lane is self._virtual_hosts and self._routes.owed):
                busy |= turn.bit  # virtual hosts before their route configuration would be dropped by Envoy
            elif lane.outstanding is None and (lane.asked or lane.owed):
                busy |= self._push(lane, may_remove=not turn.removals_after)
        busy |= self._open_doors()
        return busy | self._remove(self._clusters, busy)

    def _open_doors(self) -> int:
        """Let requests go on that wait for a cluster of their own: Envoy reads in order, so behind all that they need."""
        lane, target = self._clusters, self._round.shelf(CDS)
        if lane.outstanding is not None or not lane.keeps_waiting(target):
            return 0
        if not all(map(self._is_told, (self._listeners, self._routes, self._virtual_hosts))):
            return 0
        return self._push(lane, may_remove=False, may_open=True)

    def _is_told(self, lane: Lane) -> bool:
        """Whether what a lane has to say in this round is on the wire, if not acknowledged or refused."""
        push = lane.outstanding
        if push is not None:
            return push.draft.target is self._round.shelf(lane.type_url)
        return lane.asked and lane.synced_version >= self._round.version

    def _remove(self, lane: Lane, busy: int) -> int:
        """Let go of what nothing points at any more; returns the type if something was sent that others wait for."""
        if busy & lane.turn.removals_after or lane.outstanding is not None or not (lane.asked or lane.owed):
            return 0
        if self._returns and not self._has_begun:
            return 0  # it says type by type what it still holds: until then anything may be in use
        if lane is self._clusters and self._round is not self._snapshot and self._comes_again():
            return 0
        return self._push(lane, may_remove=not self._lingers(lane), is_final=True)

    def _comes_again(self) -> bool:
        """Whether a cluster that goes in this round is there again in the newest snapshot: then it need not go at all."""
        lane, target, newest = self._clusters, self._round.shelf(CDS), self._snapshot.shelf(CDS)
        removed = self._comparisons.difference(lane.base, target).removed if lane.base is not target else ()
        return any(name in newest and name not in target for name in (*removed, *lane.differs))

    def _lingers(self, lane: Lane) -> bool:
        """Whether what a lane no longer needs is still used by configuration the client kept by refusing its successor."""
        refused = self._listeners.rejected or self._routes.rejected or self._virtual_hosts.rejected
        return bool(refused) and len(lane.differs) <= MOST_LINGERING

    def _push(self, lane: Lane, *, may_remove: bool, may_open: bool = False, is_final: bool = False) -> int:
        """Bring a lane that waits for no answer as far as it may go; returns its type if others must wait for that."""
        bit = lane.turn.bit
        source = self._round if bit & _ROUND_BITS else self._snapshot
        target = source.types.get(lane.type_url, EMPTY)  # type: ignore[call-overload]
        if not lane.is_idle_at(target):
            draft = lane.draft(target, may_remove=may_remove, may_empty=is_final, may_open=may_open)
            if self._is_worth_sending(lane, draft):
                self._send(lane, draft, source.version)
                return bit if lane.is_waited_for else 0
            lane.owed.difference_update(draft.missing)
            lane.settle(draft, moves_base=lane.asked)
        if lane.asked and (is_final or not bit & _LOSE_LAST):  # what these lose, they lose last
            lane.synced_version = source.version
        return 0

    def _is_worth_sending(self, lane: Lane, draft: Draft) -> bool:
        if draft.send or (not lane.greeted and lane.asked and (lane.wildcard or not self._is_delta)):
            return True
        if self._is_delta:
            return bool(draft.remove or (draft.missing and not lane.is_patient))
        return bool(draft.remove and lane.type_url in _WHOLE_SETS)

    def _send(self, lane: Lane, draft: Draft, version: int) -> None:
        nonce = Nonce(f"{version}.{next(self._nonces)}")
        lane.sent(Push(nonce, draft, version, moves_base=lane.asked, opens=lane.opens(draft)))
        removed = self._removed(lane, draft)
        if self._is_delta:
            parcel = self._comparisons.parcel(draft, self._packed) if draft.is_public else self._packed(draft)
            names, removed = parcel.names, (*removed, *parcel.refused)
            parts: tuple[bytes, ...] = delta_response(lane.type_url, nonce, parcel.frames, removed)
        else:
            bodies = {entry.name: self._body(entry) for entry in self._whole(lane, draft)}
            names = tuple(name for name, found in bodies.items() if found is not None)
            parts = (sotw_response(lane.type_url, nonce, str(version), filter(None, bodies.values())),)
        self._actions.append(Send(lane.type_url, nonce, names, removed, parts))
        if lane.type_url == CDS:
            self._warm(draft)

    def _removed(self, lane: Lane, draft: Draft) -> tuple[ResourceName, ...]:
        return tuple(draft.remove) if lane.is_patient else (*draft.remove, *draft.missing)

    def _warm(self, clusters: Draft) -> None:
        endpoints = self._endpoints
        endpoints.owed.update(name for name in clusters.send if endpoints.covers(name))

    def _whole(self, lane: Lane, draft: Draft) -> list[Entry]:
        """State of the world: everything the client is to hold after this response, for the types that list it all."""
        if lane.type_url not in _WHOLE_SETS:
            return list(draft.send.values())
        entries: list[Entry] = []
        for name in sorted(draft.target.keys() | draft.left_out.keys()):
            entry = draft.left_out[name] if name in draft.left_out else draft.target[name]
            if isinstance(entry, Resource) and lane.wants(entry):
                entries.append(entry)
        return entries

    def _body(self, entry: Entry) -> bytes | None:
        return entry.body if isinstance(entry, Resource) else self._secrets(entry)

    def _packed(self, draft: Draft) -> Parcel:
        """The contents of a draft; a secret this identity may not have gets the same answer as one there is not."""
        frames, refused = {}, []
        for entry in draft.send.values():
            if isinstance(entry, Resource):
                frames[entry.name] = entry.frame
            elif (body := self._secrets(entry)) is not None:
                frames[entry.name] = framed(entry.name, entry.version, body)
            else:
                refused.append(entry.name)
        return Parcel(tuple(frames), b"".join(frames.values()), tuple(refused))
