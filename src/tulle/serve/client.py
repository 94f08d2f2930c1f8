"""One connected proxy: its conversation, what waits to be written to it, and what it was last told and said.

Knows no gRPC (`ads.py` writes what `outgoing` gives) and no other proxy (`fleet.py`). Everything happens in one event loop.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from time import monotonic, time
from typing import Protocol

from msgspec import Struct

from tulle.compile.keyed import parse
from tulle.identity.spiffe import SpiffeId
from tulle.serve.nodes import Claim
from tulle.serve.seats import Seat
from tulle.serve.shelves import Shown
from tulle.serve.vault import Entitled
from tulle.xds.conversation import Conversation
from tulle.xds.events import Acked, Action, Closed, DeltaRequest, Event, Overdue, Rejected, Send, SnapshotChanged
from tulle.xds.names import ResourceName, TypeUrl, Version
from tulle.xds.resource import SecretRef
from tulle.xds.snapshot import EMPTY, Snapshot

NO_SECRETS: Mapping[ResourceName, SecretRef] = EMPTY  # type: ignore[assignment]
MOST_TIMED = 64
"""Pushes whose time to acknowledgement is remembered per client."""


class Ending(Struct, frozen=True):
    """Why a stream is ended from here; `status` is the name of a gRPC status."""

    status: str
    reason: str


class Refusal(Struct, frozen=True):
    """One version of one resource that the proxy did not take."""

    type_url: str
    name: str
    version: str
    detail: str
    at: float


class Listener(Protocol):
    """Who is told what clients say."""

    def acked(self, client: "Client", acked: Acked) -> None:
        """A response was applied."""

    def rejected(self, client: "Client", rejected: Rejected) -> None:
        """A response, or part of it, was refused."""

    def sent(self, client: "Client", sent: Send) -> None:
        """A response is about to be written."""

    def progressed(self, client: "Client", seconds: tuple[float, ...]) -> None:
        """Its newest state may have changed; `seconds` from push to acknowledgement of what is now in sync."""

    def wants(self, client: "Client", names: tuple[str, ...]) -> None:
        """An on-demand proxy asks for these names, or says that it holds them."""

    def asked_for_secrets(self, client: "Client") -> None:
        """A client without identity subscribed to secrets; it is told nothing."""


class Client:
    """One stream. `conversation` may be asked, not told: use `receive`."""

    def __init__(
        self,
        serial: int,
        conversation: Conversation,
        listener: Listener,
        *,
        transport: str,
        claim: Claim,
        seat: Seat | None = None,
        identity: SpiffeId | None = None,
        entitled: Entitled | None = None,
        learns_as: str = "",
        shown: Shown,
        snapshot: Snapshot,
    ) -> None:
        self.serial = serial
        self.conversation = conversation
        self.transport = transport
        """`unix`, `tls` or `plaintext`."""
        self.claim = claim
        self.seat = seat
        self.identity = identity
        self.entitled = entitled
        """None: no secrets, whatever it asks."""
        self.learns_as = learns_as
        """Whose calls are learned from what it asks for: its workload, or itself alone where it proves nothing."""
        self.shown = shown
        self.snapshot = snapshot
        self.changed_at = snapshot.version
        """Version at which its configuration last changed; a renewed leaf does not count."""
        self.connected_at = time()
        self.heard_at = monotonic()
        self.refusals: dict[tuple[str, str], Refusal] = {}
        self.secret_versions: dict[ResourceName, Version] = {}
        """SDS resources this stream acknowledged."""
        self.expires_at: float | None = None
        """When its certificate ends and its stream with it, Unix seconds; None: with its pod."""
        self.ending: Ending | None = None
        self._listener = listener
        self._outbox: deque[tuple[bytes, ...]] = deque()
        self._wake = asyncio.Event()
        self._timed: deque[tuple[int, float]] = deque(maxlen=MOST_TIMED)
        self._timed.append((snapshot.version, self.heard_at))
        self._is_closed = False

    @property
    def id(self) -> str:
        """How people name it."""
        if self.seat is not None:
            return self.seat.id
        name = ".".join(part for part in (self.claim.name, self.claim.namespace) if part)
        return name or f"stream-{self.serial}"

    @property
    def is_synced(self) -> bool:
        """Whether it has acknowledged or refused everything of its newest snapshot."""
        return self.conversation.is_synced(self.snapshot.version)

    def silent_for(self, now: float) -> float:
        """Seconds since it should have answered; 0 if nothing is expected of it."""
        return now - self.heard_at if self.conversation.is_waiting else 0.0

    # --- events ------------------------------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """A request arrived."""
        self.heard_at = monotonic()
        if self.entitled is None and getattr(event, "type_url", "") == TypeUrl.SDS:
            self._listener.asked_for_secrets(self)
            return
        names = _asked_for(event) if self.shown.view.outbound.is_on_demand else ()
        comes_back = isinstance(event, DeltaRequest) and event.initial_versions
        if names and comes_back:  # what it holds is put on its shelf before anything is found to be missing there
            self._listener.wants(self, names)
        self._receive(event)
        if names and not comes_back:
            self._listener.wants(self, names)

    def asked_names(self) -> frozenset[str]:
        """Every name it has asked for one by one, or been given and not let go."""
        return self.conversation.asked_names()

    def show(self, snapshot: Snapshot) -> None:
        """There is something newer for it."""
        self.snapshot = snapshot
        self._timed.append((snapshot.version, monotonic()))
        if not self.conversation.is_waiting:
            self.heard_at = monotonic()
        self._receive(SnapshotChanged(snapshot))

    def give_up_waiting(self) -> None:
        """What it owes an answer to holds nothing else back any more."""
        self._receive(Overdue())

    def end(self, ending: Ending | None) -> None:
        """End the stream from here; None: the client hung up."""
        if not self._is_closed:
            self._is_closed = True
            self.ending = ending
            self._wake.set()

    async def outgoing(self) -> tuple[bytes, ...] | None:
        """What to write next, in order; None when the stream ends. One reader only."""
        while not self._outbox:
            if self._is_closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._outbox.popleft()

    def _receive(self, event: Event) -> None:
        for action in self.conversation.receive(event):
            self._do(action)
        now, done = monotonic(), []
        while self._timed and self.conversation.is_synced(self._timed[0][0]):
            done.append(now - self._timed.popleft()[1])
        self._listener.progressed(self, tuple(done))

    def _do(self, action: Action) -> None:
        match action:
            case Send():
                self._outbox.append(action.parts)
                self._wake.set()
                self._listener.sent(self, action)
            case Acked():
                for name in action.versions:
                    self.refusals.pop((action.type_url, name), None)
                for name in action.removed:
                    self.refusals.pop((action.type_url, name), None)
                if action.type_url == TypeUrl.SDS:
                    self.secret_versions.update(action.versions)
                self._listener.acked(self, action)
            case Rejected():
                now = time()
                for name, version in action.versions.items():
                    refusal = Refusal(action.type_url, name, version, action.detail, now)
                    self.refusals[action.type_url, name] = refusal
                self._listener.rejected(self, action)
            case Closed():
                self.end(Ending("INVALID_ARGUMENT", action.reason))
            case _:
                pass  # Asked, Doubted: nothing to do here


def _asked_for(event: Event) -> tuple[str, ...]:
    """The names an on-demand proxy asks for one by one in a request, or says that it holds."""
    if not isinstance(event, DeltaRequest) or event.type_url not in (TypeUrl.VHDS, TypeUrl.CDS):
        return ()
    return tuple(name for name in dict.fromkeys((*event.subscribe, *event.initial_versions)) if parse(name))
