"""What goes into an ADS conversation and what comes out of it: plain frozen values.

`wire.py` turns bytes into requests; `conversation.py` turns requests into actions. Key bytes occur only in `Send.parts`,
which is never shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from tulle.xds.names import Nonce, ResourceName, Version
from tulle.xds.snapshot import Snapshot

NO_NONCE = Nonce("")


class DeltaRequest(Struct, frozen=True):
    """A DeltaDiscoveryRequest: a subscription, an ACK, a NACK, or several at once."""

    type_url: str
    subscribe: tuple[ResourceName, ...] = ()
    unsubscribe: tuple[ResourceName, ...] = ()
    initial_versions: Mapping[ResourceName, Version] = {}
    """What the client still holds from an earlier stream; only in the first request of a type."""
    nonce: Nonce = NO_NONCE
    error: str | None = None
    """Envoy's reason, when it refuses the response named by `nonce`."""


@dataclass(frozen=True, slots=True)
class SotwRequest:
    """A DiscoveryRequest (state of the world): always carries the whole list of names."""

    type_url: str
    names: tuple[ResourceName, ...] = ()
    nonce: Nonce = NO_NONCE
    error: str | None = None


class SnapshotChanged(Struct, frozen=True):
    """There is a newer snapshot of this client's view. Only the newest counts: skipping some loses nothing."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Overdue:
    """The adapter's clock says an acknowledgement is long overdue: stop holding other types back for it.

    Nothing more is sent in the types whose acknowledgement is missing. Optional: without it order is kept for ever.
    """


Event = DeltaRequest | SotwRequest | SnapshotChanged | Overdue


@dataclass(frozen=True, slots=True)
class Send:
    """Write one response to the stream."""

    type_url: str
    nonce: Nonce
    changed: tuple[ResourceName, ...]
    """The names whose content travels."""
    removed: tuple[ResourceName, ...]
    parts: tuple[bytes, ...] = field(repr=False)
    """The serialised response, to be joined when it is written: megabytes of it are shared by clients in the same state.

    May hold keys, so it is written and dropped, never kept or logged.
    """

    @property
    def body(self) -> bytes:
        """The response."""
        return b"".join(self.parts)

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(map(len, self.parts))


class Acked(Struct, frozen=True):
    """The client applied a response."""

    type_url: str
    versions: Mapping[ResourceName, Version]
    removed: tuple[ResourceName, ...]
    snapshot_version: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client refuses these versions of these resources; they are not sent again until they change."""

    type_url: str
    versions: Mapping[ResourceName, Version]
    detail: str
    """What Envoy said."""


@dataclass(frozen=True, slots=True)
class Doubted:
    """The client refused a response without saying which resource is to blame; it is being searched by halves."""

    type_url: str
    names: tuple[ResourceName, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The client wants names the snapshot does not have (first requests of on-demand discovery)."""

    type_url: str
    names: tuple[ResourceName, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """End the stream: the client broke the protocol. Nothing more will come out of this conversation."""

    reason: str


Action = Send | Acked | Rejected | Doubted | Asked | Closed
