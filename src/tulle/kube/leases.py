"""Who of several replicas may write: a Lease, held by renewing it. A pure step, and the adapter that performs its actions.

Clocks are not compared: a lease of somebody else has run out once *we* have seen it unchanged for its duration. A leader that could
not renew stops being one before others may take over (`renew_by_s` < `lease_s`), also while a request hangs.
Source: coordination.k8s.io/v1 Lease; client-go's leader election has the same durations.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tulle.kube.access import Access
from tulle.kube.discovery import Resource
from tulle.kube.errors import KubeError, Refused

LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
_CONFLICTS = frozenset((409, 404))


class Timing(Struct, frozen=True):
    """Seconds."""

    lease_s: int = 15
    renew_by_s: float = 10.0
    retry_s: float = 2.0


class Record(Struct, frozen=True):
    """A Lease as it was read."""

    holder: str
    """Empty: given up."""
    lease_s: int
    transitions: int
    version: str


class Election(Struct, frozen=True):
    """What one candidate knows."""

    identity: str
    timing: Timing = Timing()
    is_leader: bool = False
    renewed_at: float = 0.0
    seen: Record | None = None
    seen_at: float = 0.0
    """When this version of it was seen first."""


# --- events: `now` is a clock that never goes back -----------------------------------------------------------------


class Due(Struct, frozen=True):
    """Time to look or to renew."""

    now: float


class Looked(Struct, frozen=True):
    """The lease was read; None: there is none."""

    now: float
    record: Record | None


class Stored(Struct, frozen=True):
    """The lease is ours. `sent_at`: when the request began, from which our time counts."""

    sent_at: float
    version: str


class Conflicted(Struct, frozen=True):
    """Somebody else wrote first."""

    now: float


class Broke(Struct, frozen=True):
    """The API did not answer, or refused."""

    now: float


Event = Due | Looked | Stored | Conflicted | Broke


# --- actions --------------------------------------------------------------------------------------------------------


class Look(Struct, frozen=True):
    """Read the lease."""


class Store(Struct, frozen=True):
    """Write the lease as ours; without a version: create it."""

    version: str
    transitions: int
    acquires: bool


class Lead(Struct, frozen=True):
    """We lead from now on."""


class Resign(Struct, frozen=True):
    """We lead no longer."""


class Wait(Struct, frozen=True):
    """Be Due after so many seconds."""

    seconds: float


Action = Look | Store | Lead | Resign | Wait
Stepped = tuple[Election, tuple[Action, ...]]


def step(state: Election, event: Event) -> Stepped:
    """What follows from an event. The last action is the one to go on with."""
    match event:
        case Due(now=now):
            state, left = _lapsed(state, now)
            if state.is_leader and state.seen is not None:
                return state, (Store(state.seen.version, state.seen.transitions, acquires=False),)
            return state, (*left, Look())
        case Looked(now=now, record=record):
            return _looked(state, now, record)
        case Stored(sent_at=sent_at, version=version):
            return _stored(state, sent_at, version)
        case Conflicted(now=now):
            state, left = _lapsed(replace(state, seen=None), now)
            return state, (*left, Look())
        case Broke(now=now):
            state, left = _lapsed(state, now)
            return state, (*left, Wait(state.timing.retry_s))


def _lapsed(state: Election, now: float) -> Stepped:
    if state.is_leader and now >= state.renewed_at + state.timing.renew_by_s:
        return replace(state, is_leader=False), (Resign(),)
    return state, ()


def _looked(state: Election, now: float, record: Record | None) -> Stepped:
    if record is None:
        return replace(state, seen=None), (Store("", 0, acquires=True),)
    if record != state.seen:
        state = replace(state, seen=record, seen_at=now)
    if record.holder == state.identity:
        return state, (Store(record.version, record.transitions, acquires=False),)
    left: tuple[Action, ...] = ()
    if state.is_leader:
        state, left = replace(state, is_leader=False), (Resign(),)
    if not record.holder or now >= state.seen_at + record.lease_s:
        return state, (*left, Store(record.version, record.transitions + 1, acquires=True))
    return state, (*left, Wait(state.timing.retry_s))


def _stored(state: Election, sent_at: float, version: str) -> Stepped:
    before = state.seen.transitions if state.seen is not None else 0
    begun: tuple[Action, ...] = () if state.is_leader else (Lead(),)
    record = Record(state.identity, state.timing.lease_s, before, version)
    state = replace(state, is_leader=True, renewed_at=sent_at, seen=record, seen_at=sent_at)
    return state, (*begun, Wait(state.timing.retry_s))


# --- adapter --------------------------------------------------------------------------------------------------------


class _Spec(Struct, rename="camel", omit_defaults=True):
    holder_identity: str | None = ""
    lease_duration_seconds: int | None = 15
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Meta(Struct, rename="camel", omit_defaults=True):
    name: str
    namespace: str
    resource_version: str = ""
    labels: dict[str, str] = {}


class _Lease(Struct, rename="camel"):
    metadata: _Meta
    spec: _Spec
    api_version: str = LEASES.api_version
    kind: str = LEASES.kind


class Leadership:
    """One candidate for one lease, while `run` runs."""

    def __init__(
        self,
        access: Access,
        namespace: str,
        name: str,
        identity: str,
        *,
        on_change: Callable[[bool], None] | None = None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        labels: dict[str, str] | None = None,
    ) -> None:
        """`identity` must be unique among all that ever run, such as the pod's name and uid."""
        self._access = access
        self._meta = _Meta(name, namespace, labels=labels or {})
        self._state = Election(identity, timing)
        self._on_change = on_change
        self._acquired = ""
        self.holder = ""
        """Who leads, as last seen."""

    @property
    def is_leader(self) -> bool:
        """Whether we may write now."""
        state = self._state
        return state.is_leader and monotonic() < state.renewed_at + state.timing.renew_by_s

    async def run(self) -> None:
        """Stand for election until cancelled; then give the lease up, so that another takes over at once."""
        event: Event = Due(monotonic())
        try:
            while True:
                self._state, actions = step(self._state, event)
                self.holder = self._state.seen.holder if self._state.seen is not None else ""
                for action in actions:
                    if isinstance(action, Lead | Resign) and self._on_change is not None:
                        self._on_change(isinstance(action, Lead))
                event = await self._performed(actions[-1])
        finally:
            await self._give_up()

    async def _performed(self, action: Action) -> Event:
        try:
            async with asyncio.timeout(self._state.timing.renew_by_s / 2):
                match action:
                    case Look():
                        return Looked(monotonic(), await self._read())
                    case Store():
                        return await self._store(action, self._state.identity)
                    case Wait(seconds=seconds):
                        await asyncio.sleep(seconds)
                    case Lead() | Resign():
                        pass  # performed already, and never last
        except Refused as refused:
            return Conflicted(monotonic()) if refused.status in _CONFLICTS else Broke(monotonic())
        except (KubeError, TimeoutError, msgspec.MsgspecError):
            return Broke(monotonic())
        return Due(monotonic())

    async def _read(self) -> Record | None:
        body = await self._access.read(self._path(self._meta.name))
        if body is None:
            return None
        lease = msgspec.json.decode(body, type=_Lease)
        spec = lease.spec
        return Record(
            spec.holder_identity or "",
            spec.lease_duration_seconds or self._state.timing.lease_s,
            spec.lease_transitions or 0,
            lease.metadata.resource_version,
        )

    async def _store(self, store: Store, holder: str) -> Event:
        sent_at, now = monotonic(), datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if store.acquires or not self._acquired:
            self._acquired = now
        seconds = self._state.timing.lease_s if holder else 1
        spec = _Spec(holder, seconds, self._acquired, now, store.transitions)
        meta = msgspec.structs.replace(self._meta, resource_version=store.version)
        verb, name = ("PUT", meta.name) if store.version else ("POST", "")
        answer = await self._access.send(verb, self._path(name), body=msgspec.json.encode(_Lease(meta, spec)))
        return Stored(sent_at, msgspec.json.decode(answer.body, type=_Lease).metadata.resource_version)

    async def _give_up(self) -> None:
        was_leader, seen = self.is_leader, self._state.seen
        self._state = replace(self._state, is_leader=False)
        if not was_leader or seen is None:
            return
        if self._on_change is not None:
            self._on_change(False)
        try:
            async with asyncio.timeout(self._state.timing.retry_s):
                await self._store(Store(seen.version, seen.transitions, acquires=False), "")
        except (KubeError, TimeoutError):
            return  # it runs out by itself

    def _path(self, name: str) -> str:
        return LEASES.path(self._meta.namespace, name)
