"""Types of the admin API as they travel: camelCase JSON. Not the model's: those may change without breaking a client."""

from typing import Any

from msgspec import Struct


class Wire(Struct, frozen=True, rename="camel", kw_only=True):
    """Anything that travels."""


class Place(Wire, frozen=True):
    """A field of an object and where it is written; `file` is empty for what is in no file."""

    kind: str
    namespace: str
    name: str
    path: str
    file: str = ""
    line: int = 0
    column: int = 0


class Problem(Wire, frozen=True):
    """A problem of the catalogue at its place."""

    code: str
    severity: str
    text: str
    advice: str
    kind: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    file: str = ""
    line: int = 0
    column: int = 0


class Problems(Wire, frozen=True):
    """`/v1/problems`."""

    problems: tuple[Problem, ...]


class Version(Wire, frozen=True):
    """`/v1/version`."""

    tulle: str
    envoy: str
    revision: int
    """Grows with every change that reaches a proxy."""
    pid: int
    mesh: str
    trust_domain: str
    metrics: str = ""
    """URL of every sidecar's metrics together; empty where no sidecars are."""


class Refused(Wire, frozen=True):
    """One resource that one proxy did not take."""

    proxy: str
    type_url: str
    resource: str
    message: str
    origin: Place | None


class Proxy(Wire, frozen=True):
    """One proxy; `connectedAt` 0: a pod whose proxy is not connected."""

    id: str
    stream: int
    pod: str
    namespace: str
    uid: str
    is_gateway: bool
    identity: str
    transport: str
    view: str
    """Proxies with the same word hold the same configuration."""
    connected_at: float
    types: dict[str, str]
    """CDS, EDS, LDS, RDS, VHDS, SDS: SYNCED, STALE, NOT SENT or NACKED."""
    target_revision: int
    synced_revision: int
    is_synced: bool
    refused: tuple[Refused, ...]
    is_on_demand: bool = False
    """It holds what its workload has called."""


class Proxies(Wire, frozen=True):
    """`/v1/proxies`."""

    revision: int
    proxies: tuple[Proxy, ...]


class Held(Wire, frozen=True):
    """One resource a proxy holds. `resource` is null for secrets, and where only its version is known."""

    type: str
    name: str
    version: str
    is_newest: bool
    resource: dict[str, Any] | None


class HeldAll(Wire, frozen=True):
    """`/v1/proxies/{id}/held`."""

    proxy: str
    resources: tuple[Held, ...]


class ObjectShown(Wire, frozen=True):
    """One object of the mesh."""

    group: str
    kind: str
    namespace: str
    name: str
    labels: dict[str, str]
    file: str
    line: int
    document: Any = None
    """As written, where it was asked for; values of Secrets are left out."""


class Objects(Wire, frozen=True):
    """`/v1/objects`."""

    objects: tuple[ObjectShown, ...]


class WrittenObject(Wire, frozen=True):
    """An object that was written to the API of a cluster."""

    group: str
    kind: str
    namespace: str
    name: str
    version: str = ""
    """resourceVersion; empty: deleted."""


class ApplyRequest(Wire, frozen=True):
    """`POST /v1/apply`: files to read at once (none: all), or objects of a cluster to wait for."""

    paths: tuple[str, ...] = ()
    objects: tuple[WrittenObject, ...] = ()
    timeout_seconds: float = 10.0
    since_revision: int | None = None
    """The revision before the files were written: the watcher may have read them, under whatever name, before this."""


class Applied(Wire, frozen=True):
    """What an apply came to."""

    revision: int
    milliseconds: int
    affected: int
    """Connected proxies whose configuration changed."""
    live: int
    """Of those: acknowledged everything."""
    refused: tuple[Refused, ...]
    waiting: tuple[str, ...]
    """Proxies that had not answered in time."""
    problems: tuple[Problem, ...]
    """Of the objects in the files given."""
    disconnected: tuple[str, ...] = ()
    """Pods whose proxy was not connected; they get it when they connect."""


class SettleRequest(Wire, frozen=True):
    """`POST /v1/settle`."""

    timeout_seconds: float = 10.0
    all_pods: bool = False
    """Wait for pods whose proxy is not connected yet, too."""


class Settled(Wire, frozen=True):
    """All connected proxies hold this revision, except those listed."""

    revision: int
    milliseconds: int
    proxies: int
    waiting: tuple[str, ...]


class Explained(Wire, frozen=True):
    """`/v1/explain`: a resource, the plan behind it and the lines that asked for it."""

    proxy: str
    type: str
    name: str
    plan: Any
    origins: tuple[Place, ...]
    note: str


class Plan(Wire, frozen=True):
    """`/v1/plan`."""

    proxy: str
    view: Any
    resources: tuple[Explained, ...]


class Port(Wire, frozen=True):
    """A service port."""

    number: int
    name: str
    protocol: str
    target: int | str


class ServiceShown(Wire, frozen=True):
    """One service host."""

    host: str
    namespace: str
    ports: tuple[Port, ...]
    addresses: tuple[str, ...]
    resolution: str
    is_external: bool
    aliases: tuple[str, ...]
    endpoints: int
    """Addresses that may get traffic now, over all ports."""
    origin: Place


class Services(Wire, frozen=True):
    """`/v1/services`."""

    services: tuple[ServiceShown, ...]


class WorkloadShown(Wire, frozen=True):
    """One running instance."""

    name: str
    namespace: str
    address: str
    labels: dict[str, str]
    service_account: str
    identity: str
    owner: str
    has_sidecar: bool
    is_gateway: bool
    is_ready: bool
    is_connected: bool
    origin: Place


class Workloads(Wire, frozen=True):
    """`/v1/workloads`."""

    workloads: tuple[WorkloadShown, ...]


class RootShown(Wire, frozen=True):
    """One root certificate."""

    fingerprint: str
    state: str
    age_seconds: float
    remaining_seconds: float
    waits_for: tuple[str, ...]
    """Pods that may still use a leaf of it."""


class LeafShown(Wire, frozen=True):
    """One workload certificate."""

    holder: str
    proxy: str
    identity: str
    serial: str
    root: str
    age_seconds: float
    remaining_seconds: float
    renews_in_seconds: float
    is_acknowledged: bool


class Authority(Wire, frozen=True):
    """`/v1/ca`."""

    phase: str
    trust_domain: str
    roots: tuple[RootShown, ...]
    leafs: tuple[LeafShown, ...]
    lacking_bundle: tuple[str, ...]
    """Pods that have not acknowledged the newest bundle: a new root waits for them."""


class Failure(Wire, frozen=True):
    """Any answer that is an error."""

    error: Problem | None = None
    message: str = ""
