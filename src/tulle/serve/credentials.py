"""The life of leafs and roots, as far as serving has a part in it: who needs a leaf, who has acknowledged what.

Decisions are `identity.rotation`'s, keys `identity.office`'s, delivering `pushing.py`'s through the two callbacks. This is
where the clock enters.
"""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic, time
from typing import Protocol

from tulle.identity.moves import (
    BundleAcked,
    Event,
    LeafAcked,
    LeafGone,
    LeafStatus,
    LeafWanted,
    RootStatus,
    RotateRootRequested,
    Tick,
)
from tulle.identity.office import BundleReady, Keyring, LeafReady, Office, Outcome, Trouble, WakeAt
from tulle.identity.rotation import holders_of, leaf_statuses, phase
from tulle.identity.spiffe import SpiffeId
from tulle.serve.client import Client
from tulle.serve.fleet import Ears, Fleet
from tulle.serve.seats import Seat
from tulle.serve.vault import LEAF, ROOTS, Vault
from tulle.xds.events import Acked
from tulle.xds.names import TypeUrl

_LONG_S = 0.001
_REST = 20.0
"""Times as long as a long look took: so long none follows, unless `look_again` is called."""


class Delivery(Protocol):
    """Who brings secrets to proxies."""

    def push_secrets(self, holders: Iterable[str] | None) -> None:
        """The secrets of these holders changed; None: everybody's."""


class Credentials(Ears):
    """Leafs and the bundle of the fleet. `start` it in the loop; `close` it."""

    def __init__(self, office: Office, vault: Vault, fleet: Fleet, on_trouble: Callable[[Trouble], None]) -> None:
        self._office = office
        self._vault = vault
        self._fleet = fleet
        self._on_trouble = on_trouble
        self._delivery: Delivery | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._working: asyncio.Handle | None = None
        self._acked_bundle = ""
        self._rests_until = 0.0
        self.trusted_elsewhere: Callable[[str], int] = lambda _: 0
        """How many proxies, connected to other replicas, trust the bundle of this version; -1: there are some that do not."""
        self.runs: Callable[[Seat], bool] = lambda _: True
        """Whether a proxy runs in a pod, as far as is known: a new root waits for no other that is connected nowhere."""
        self.issued = 0
        self.troubles = 0

    def start(self, delivery: Delivery) -> None:
        """Publish the first bundle and arm the first timer."""
        self._delivery = delivery
        self._do(self._office.opening)
        self._office.opening = []

    def close(self) -> None:
        """No more timers."""
        for handle in (self._timer, self._working):
            if handle is not None:
                handle.cancel()

    # --- asked by serving --------------------------------------------------------------------------------------------

    def want(self, holder: str, identity: SpiffeId) -> None:
        """A proven client is there: its leaf is ready when this returns, at the price of one signature."""
        outcomes = self._office.handle(LeafWanted(holder, identity, time()))
        while self._office.leaf(holder) is None and self._office.has_work:
            outcomes += self._office.work(time())
        self._do(outcomes, quiet=holder)

    def gone(self, holder: str) -> None:
        """The pod is no more."""
        self._vault.drop_leaf(holder)
        self._do(self._office.handle(LeafGone(holder, time())))

    def rotate(self) -> None:
        """Begin to replace the root. Raises TUL0512, TUL0513 or TUL0519."""
        self._do(self._office.handle(RotateRootRequested(time())))

    def adopt(self, keyring: Keyring) -> None:
        """Another replica moved the roots."""
        self._do(self._office.adopt(keyring, time()))
        for client in self._fleet.clients.values():
            if client.entitled is not None and client.identity is not None:
                self._do(self._office.handle(LeafWanted(client.entitled.holder, client.identity, time())))

    def lead(self, *, is_leader: bool) -> None:
        """Whether this replica moves the roots."""
        self._do(self._office.lead(is_leader=is_leader, now=time()))

    def look_again(self) -> None:
        """Call it every second: other replicas may have told more, and in a large fleet not every proxy's word is followed at once."""
        self._rests_until = 0.0
        self._look_at_bundle()

    def trusting(self) -> tuple[str, int]:
        """The version of the bundle that every proxy connected here trusts, and how many of them run; empty while they differ."""
        version = self._vault.bundle_version
        connected = {uid: seat for uid, seat in self._fleet.seats.items() if self._fleet.of_seat(uid)}
        if not all(self._trusts(uid, version) for uid in connected):
            return "", 0
        return version, sum(self.runs(seat) for seat in connected.values())

    @property
    def phase(self) -> str:
        """Where the rotation of the root is."""
        return phase(self._office.state).value

    @property
    def roots(self) -> tuple[RootStatus, ...]:
        """The roots, without keys."""
        return self._office.state.roots

    @property
    def leafs(self) -> tuple[LeafStatus, ...]:
        """The newest leaf of each holder, without key."""
        return leaf_statuses(self._office.state)

    def waited_for(self, root: str) -> tuple[str, ...]:
        """Holders that may still use a leaf of this root."""
        return holders_of(self._office.state, root, time())

    @property
    def lacking_bundle(self) -> tuple[str, ...]:
        """Uids of pods that have not acknowledged the bundle of now: whom a new root waits for."""
        version = self._vault.bundle_version
        return tuple(uid for uid, seat in self._fleet.seats.items() if self._is_awaited(uid, seat, version))

    # --- heard from the fleet ----------------------------------------------------------------------------------------

    def acked(self, client: Client, acked: Acked) -> None:
        """A proxy has applied secrets."""
        if acked.type_url != TypeUrl.SDS or client.entitled is None:
            return
        holder = client.entitled.holder
        serial = acked.versions.get(LEAF)
        streams = self._fleet.of_seat(holder)
        if serial is not None and all(stream.secret_versions.get(LEAF) == serial for stream in streams):
            self._do(self._office.handle(LeafAcked(holder, serial, time())))
        self._look_at_bundle()

    def converged(self, seconds: float) -> None:
        """A proxy is in sync; after a restart this is how we learn which bundle it kept."""
        del seconds
        self._look_at_bundle()

    def _look_at_bundle(self) -> None:
        version, began = self._vault.bundle_version, monotonic()
        if self._acked_bundle == version or began < self._rests_until:
            return
        lacking = self.lacking_bundle
        # Every acknowledgement of every proxy comes here: thousands of pods are not walked for each.
        if (took := monotonic() - began) > _LONG_S:
            self._rests_until = began + _REST * took
        elsewhere = self.trusted_elsewhere(version)
        if elsewhere < 0 or len(lacking) > elsewhere or any(self._fleet.of_seat(uid) for uid in lacking):
            return
        self._acked_bundle = version
        self._do(self._office.handle(BundleAcked(frozenset(self._office.bundle.fingerprints), time())))

    def _is_awaited(self, uid: str, seat: Seat, version: str) -> bool:
        """Whether a pod's proxy is yet to trust the bundle. One that is not there gets the newest when it comes."""
        return not self._trusts(uid, version) and (bool(self._fleet.of_seat(uid)) or self.runs(seat))

    def _trusts(self, uid: str, version: str) -> bool:
        streams = self._fleet.of_seat(uid)
        return bool(streams) and all(_has_bundle(stream, version) for stream in streams)

    # --- time --------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        self._tell(Tick(time()))
        self._look_at_bundle()

    def _tell(self, event: Event) -> None:
        self._do(self._office.handle(event))

    def _work(self) -> None:
        self._working = None
        self._do(self._office.work(time()))

    def _do(self, outcomes: list[Outcome], quiet: str = "") -> None:
        """Carry out what the office says; `quiet`: a holder that is being admitted and needs no push."""
        holders: set[str] = set()
        is_for_all = False
        for outcome in outcomes:
            match outcome:
                case LeafReady():
                    self.issued += 1
                    self._vault.put_leaf(outcome.holder, outcome.leaf)
                    holders.add(outcome.holder)
                case BundleReady():
                    self._vault.put_bundle(outcome.bundle)
                    self._acked_bundle = ""
                    is_for_all = True
                case WakeAt():
                    self._arm(outcome.at)
                case Trouble():
                    self.troubles += 1
                    self._on_trouble(outcome)
        if self._office.has_work and self._working is None:
            self._working = asyncio.get_running_loop().call_soon(self._work)
        holders.discard(quiet)
        if self._delivery is not None and (is_for_all or holders):
            self._delivery.push_secrets(None if is_for_all else holders)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - time()), self._tick)


def _has_bundle(client: Client, version: str) -> bool:
    """Whether a stream trusts the bundle: it said so now, or on reconnecting, or it wants no bundle at all."""
    known = client.secret_versions.get(ROOTS)
    if known is None and client.is_synced:
        known = client.conversation.held.get(TypeUrl.SDS, {}).get(ROOTS)
        if known is None:
            return True  # synced, and subscribed to no bundle: it is given the newest when it asks
        client.secret_versions[ROOTS] = known
    return known == version
