"""Does what `rotation.py` decides: keeps its state, moves the stored roots, signs leafs in batches. An adapter, no thread.

Knows no streams: the caller (serve) tells it events, delivers what it returns, and reports acknowledgements as events.
Nothing here waits; a long queue of leafs is worked off in `work` calls of a bounded number each.
"""

from collections import deque
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from tulle.identity.authority import ROOT_LIFETIME, Authority, Bundle, Leaf, Signer
from tulle.identity.errors import IdentityError, RotationNotOurs, RotationUnderWay, StateUnwritable
from tulle.identity.moves import (
    Action,
    ArmTimer,
    CreateRoot,
    DropRoot,
    Event,
    IssueLeaf,
    LeafFailed,
    LeafGone,
    LeafIssued,
    PublishBundle,
    Refuse,
    RootCreated,
    RootStatus,
    RotateRootRequested,
    SwitchSigner,
    Tick,
    Timing,
)
from tulle.identity.rotation import State, begin, phase, step
from tulle.identity.store import utc

BATCH = 16
"""Leafs per `work`: about 5 ms on a slow core, which is what other streams wait."""


class Keyring(Protocol):
    """Where roots live: `RootStore` or `PluginCa`."""

    @property
    def rotates_roots(self) -> bool:
        """Whether `create`, `switch` and `drop` do anything."""

    @property
    def trust_domain(self) -> str:
        """Of all its roots."""

    @property
    def roots(self) -> tuple[RootStatus, ...]:
        """Without keys."""

    def signer(self) -> Signer:
        """What signs now."""

    def bundle(self, fingerprints: tuple[str, ...]) -> Bundle:
        """Certificates of some roots."""

    def create(self, now: datetime, lifetime: timedelta) -> RootStatus:
        """Make a pending root."""

    def switch(self, fingerprint: str, leafs_until: float, now: datetime) -> None:
        """Sign with a pending root."""

    def drop(self, fingerprint: str) -> None:
        """Forget a retired root."""


class LeafReady(Struct, frozen=True):
    """Deliver this leaf to this holder; answer with `LeafAcked(holder, leaf.serial, now)`."""

    holder: str
    leaf: Leaf


class BundleReady(Struct, frozen=True):
    """Deliver this bundle to all; answer with `BundleAcked(frozenset(bundle.fingerprints), now)` when all have it."""

    bundle: Bundle


class WakeAt(Struct, frozen=True):
    """Send `Tick` at this Unix time; replaces the one before."""

    at: float


class Trouble(Struct, frozen=True):
    """Something could not be done and will be tried again: for logs and status."""

    error: IdentityError


Outcome = LeafReady | BundleReady | WakeAt | Trouble


class Office:
    """The CA of one mesh as serving sees it."""

    def __init__(
        self,
        keyring: Keyring,
        timing: Timing,
        now: float,
        root_lifetime: timedelta = ROOT_LIFETIME,
    ) -> None:
        self._keyring = keyring
        self._root_lifetime = root_lifetime
        self._queue: deque[IssueLeaf] = deque()
        self._leafs: dict[str, Leaf] = {}
        self._ttl = timedelta(seconds=timing.leaf_ttl_s)
        self.authority = Authority(keyring.signer(), keyring.trust_domain)
        """Signs with the root that is active now; ask for it anew each time."""
        self.bundle = Bundle(())
        """What every proxy shall trust now."""
        timing = replace(timing, rotates_roots=timing.rotates_roots and keyring.rotates_roots)
        self._state, actions = begin(keyring.roots, timing, now)
        self.opening: list[Outcome] = self._said(actions)
        """The outcomes of the start: the first bundle and timer."""

    @property
    def state(self) -> State:
        """For `rotation.phase`, `leaf_statuses`, `holders_of`."""
        return self._state

    @property
    def has_work(self) -> bool:
        """Leafs are waiting to be signed: call `work`."""
        return bool(self._queue)

    def leaf(self, holder: str) -> Leaf | None:
        """The newest leaf of a holder, for a stream that reconnects."""
        return self._leafs.get(holder)

    def handle(self, event: Event) -> list[Outcome]:
        """One event. Signs nothing: see `has_work`. Raises TUL0512, TUL0513 or TUL0519 for `RotateRootRequested` only."""
        if isinstance(event, LeafGone):
            self._leafs.pop(event.holder, None)
            self._queue = deque(ask for ask in self._queue if ask.holder != event.holder)
        try:
            return self._applied(*step(self._state, event), event.now)
        except StateUnwritable as error:
            if isinstance(event, RotateRootRequested):
                raise
            return [*self._without_moving_roots(event), Trouble(error)]

    def adopt(self, keyring: Keyring, now: float) -> list[Outcome]:
        """Another process moved the roots: publish and sign as they are stored now.

        Leafs of a root that signs no more are forgotten: ask for them again (`LeafWanted`).
        """
        before = self.authority.signer.root_fingerprint
        self._keyring = keyring
        self.authority = Authority(keyring.signer(), keyring.trust_domain)
        state, actions = begin(keyring.roots, self._state.timing, now)
        if self.authority.signer.root_fingerprint == before:
            state = replace(state, holders=self._state.holders)
        else:
            self._leafs.clear()
            self._queue.clear()
        self._state = state
        return self._said(actions)

    def lead(self, *, is_leader: bool, now: float) -> list[Outcome]:
        """Whether this process, of several with the same roots, is the one that moves them."""
        rotates = is_leader and self._keyring.rotates_roots
        if rotates == self._state.timing.rotates_roots:
            return []
        self._state = replace(self._state, timing=replace(self._state.timing, rotates_roots=rotates))
        return self.handle(Tick(now)) if rotates else []

    def work(self, now: float, limit: int = BATCH) -> list[Outcome]:
        """Sign up to `limit` of the waiting leafs. Cost: see the room's README."""
        outcomes: list[Outcome] = []
        for _ in range(min(limit, len(self._queue))):
            ask = self._queue.popleft()
            try:
                leaf = self.authority.issue(ask.identity, self._ttl, utc(now))
            except IdentityError as error:
                outcomes += [Trouble(error), *self.handle(LeafFailed(ask.holder, now))]
                continue
            self._leafs[ask.holder] = leaf
            issued = LeafIssued(ask.holder, leaf.serial, leaf.root_fingerprint, leaf.not_after.timestamp(), now)
            outcomes += [LeafReady(ask.holder, leaf), *self.handle(issued)]
        return outcomes

    def _without_moving_roots(self, event: Event) -> list[Outcome]:
        # A full disk stops the rotation of roots; it must not stop the renewal of leafs, which needs no disk.
        timing = self._state.timing
        state, actions = step(replace(self._state, timing=replace(timing, rotates_roots=False)), event)
        return self._applied(replace(state, timing=timing), actions, event.now)

    def _applied(self, state: State, actions: list[Action], now: float) -> list[Outcome]:
        created = self._moved(actions, now)  # Raises before anything else has changed.
        self._state = state
        outcomes = self._said(actions)
        if created is not None:
            outcomes += self.handle(RootCreated(created.fingerprint, created.expires_at, now))
        return outcomes

    def _moved(self, actions: list[Action], now: float) -> RootStatus | None:
        created = None
        for action in actions:
            match action:
                case CreateRoot():
                    created = self._keyring.create(utc(now), self._root_lifetime)
                case SwitchSigner():
                    self._keyring.switch(action.root, action.leafs_until, utc(now))
                    self.authority = Authority(self._keyring.signer(), self._keyring.trust_domain)
                case DropRoot():
                    self._keyring.drop(action.root)
                case Refuse():
                    raise (
                        RotationNotOurs
                        if action.code == RotationNotOurs.code
                        else RotationUnderWay(phase=phase(self._state))
                    )
        return created

    def _said(self, actions: list[Action]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for action in actions:
            match action:
                case IssueLeaf():
                    self._queue.append(action)
                case PublishBundle():
                    self.bundle = self._keyring.bundle(action.roots)
                    outcomes.append(BundleReady(self.bundle))
                case ArmTimer():
                    outcomes.append(WakeAt(action.at))
        return outcomes
