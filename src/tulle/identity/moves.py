"""The vocabulary of rotation: what its state is made of, what happens to it (events), what it wants done (actions). Pure.

Times are Unix seconds (float), as data; no value here holds key material. The rules are in `rotation.py`.
"""

from enum import StrEnum

from msgspec import Struct

from tulle.identity.spiffe import SpiffeId


class RootState(StrEnum):
    """Where a root is in its life; stored under these words."""

    PENDING = "pending"
    """In the bundle, signs nothing yet."""
    ACTIVE = "active"
    """Signs."""
    RETIRED = "retired"
    """Signs nothing any more; still in the bundle for the leafs and connections it made."""


class Phase(StrEnum):
    """Where the rotation of the root is."""

    STEADY = "steady"
    CREATING = "creating"
    DISTRIBUTING = "distributing"
    """The new root is on its way to every proxy."""
    REPLACING = "replacing"
    """The new root signs; leafs and connections of the old one are still about."""


class RootStatus(Struct, frozen=True):
    """One root without its key."""

    fingerprint: str
    state: RootState
    since: float
    """When it entered this state."""
    created_at: float
    expires_at: float
    leafs_until: float = 0.0
    """RETIRED: the last of its leafs expires then."""

    def remaining_s(self, now: float) -> float:
        """Seconds of validity left; negative when over."""
        return self.expires_at - now


class LeafStatus(Struct, frozen=True):
    """One leaf without its key, for metrics and `proxy` commands."""

    holder: str
    identity: SpiffeId
    serial: str
    root: str
    """Fingerprint of its root."""
    issued_at: float
    expires_at: float
    renew_at: float
    is_acknowledged: bool
    """Its holder said that it uses it."""

    def age_s(self, now: float) -> float:
        """Seconds since it was issued."""
        return now - self.issued_at

    def remaining_s(self, now: float) -> float:
        """Seconds of validity left; negative when over."""
        return self.expires_at - now


class Timing(Struct, frozen=True):
    """How long things live and wait, in seconds."""

    leaf_ttl_s: float = 24 * 3600.0
    renew_from: float = 0.5
    """Earliest renewal, as a share of the leaf's life."""
    renew_to: float = 0.8
    """Latest renewal."""
    bundle_settle_s: float = 10.0
    """Least time between publishing a new root and signing with it, however fast everyone acknowledges."""
    connection_age_s: float = 3600.0
    """Longest life of an HTTP connection of the mesh: how long a handshake with an old leaf may matter."""
    root_renew_share: float = 0.2
    """A root is replaced when this share of its life is left."""
    retry_s: float = 5.0
    """Wait after an issue that failed."""
    longest_sleep_s: float = 30.0
    """A machine may be suspended, which stops timers but no certificate: look again at least this often."""
    rotates_roots: bool = True
    """False with a plug-in CA, whose owner rotates it."""


class Tick(Struct, frozen=True):
    """Time has passed, or the clock was set."""

    now: float


class LeafWanted(Struct, frozen=True):
    """A holder (a pod, by any unique name) of a verified identity needs a leaf. Again: no effect.

    Send it for every proxy before that proxy counts into `BundleAcked`.
    """

    holder: str
    identity: SpiffeId
    now: float


class LeafGone(Struct, frozen=True):
    """The holder is no more (the pod ended, not merely its stream)."""

    holder: str
    now: float


class LeafIssued(Struct, frozen=True):
    """`IssueLeaf` was done."""

    holder: str
    serial: str
    root: str
    expires_at: float
    now: float


class LeafFailed(Struct, frozen=True):
    """`IssueLeaf` could not be done; it will be asked again."""

    holder: str
    now: float


class LeafAcked(Struct, frozen=True):
    """The holder's proxy acknowledged the leaf with this serial."""

    holder: str
    serial: str
    now: float


class RotateRootRequested(Struct, frozen=True):
    """Someone wants a new root now."""

    now: float


class RootCreated(Struct, frozen=True):
    """`CreateRoot` was done, and is stored."""

    fingerprint: str
    expires_at: float
    now: float


class BundleAcked(Struct, frozen=True):
    """Every live proxy has acknowledged the bundle of exactly these roots."""

    roots: frozenset[str]
    now: float


Event = (
    Tick | LeafWanted | LeafGone | LeafIssued | LeafFailed | LeafAcked | RotateRootRequested | RootCreated | BundleAcked
)


class IssueLeaf(Struct, frozen=True):
    """Sign a leaf with the active root and deliver it; answer with `LeafIssued` or `LeafFailed`."""

    holder: str
    identity: SpiffeId


class CreateRoot(Struct, frozen=True):
    """Make a root and store it as PENDING; answer with `RootCreated`."""


class PublishBundle(Struct, frozen=True):
    """Every proxy shall trust these roots (fingerprints); answer with `BundleAcked` when all do."""

    roots: tuple[str, ...]


class SwitchSigner(Struct, frozen=True):
    """Store: this root ACTIVE, the former one RETIRED with leafs until `leafs_until`; sign with it from now on."""

    root: str
    leafs_until: float


class DropRoot(Struct, frozen=True):
    """Forget a retired root and its key."""

    root: str


class Refuse(Struct, frozen=True):
    """The request is not done; a code of the catalogue and its arguments."""

    code: str
    arguments: tuple[tuple[str, str], ...] = ()


class ArmTimer(Struct, frozen=True):
    """Send `Tick` at this time; replaces the former timer."""

    at: float


Action = IssueLeaf | CreateRoot | PublishBundle | SwitchSigner | DropRoot | Refuse | ArmTimer
