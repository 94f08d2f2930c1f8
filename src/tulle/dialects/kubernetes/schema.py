"""Kubernetes core objects: the fields the mesh reads, typed, and nothing else.

Kubernetes owns these kinds and validates them, so fields not named here are passed over in silence. Two objects that
differ only in what is not named here (a heartbeat, a condition's time) are equal, so nothing is recomputed for them.
Knows no intent and no Istio; `kinds.py` says which struct belongs to which kind.
Source: the Kubernetes API reference, v1, apps/v1, batch/v1, discovery.k8s.io/v1.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

PortNumber = Annotated[int, Meta(ge=1, le=65535)]
IpProtocol = Literal["TCP", "UDP", "SCTP"]


class Wire(Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """An object or a part of one, spelled as in YAML."""


class OwnerReference(Wire, frozen=True):
    """Who made this object."""

    kind: str
    name: str
    controller: bool = False


class ObjectMeta(Wire, frozen=True):
    """The part of metadata that `Object` does not hold itself."""

    deletion_timestamp: str | None = None
    """Set while the object is being deleted."""
    owner_references: tuple[OwnerReference, ...] = ()


class TemplateMeta(Wire, frozen=True):
    """Metadata of a pod template."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Namespace(Wire, frozen=True):
    """A namespace: what the mesh reads of it are its labels, which `Object` holds."""


class ServicePort(Wire, frozen=True):
    """One port of a Service."""

    port: PortNumber
    name: str = ""
    protocol: IpProtocol = "TCP"
    app_protocol: str | None = None
    target_port: Annotated[int, Meta(ge=0, le=65535)] | str | None = None
    """Number or name of a container port; absent or 0: the same number."""


class Service(Wire, frozen=True):
    """The spec of a Service."""

    type: str = "ClusterIP"
    cluster_ip: str | None = field(default=None, name="clusterIP")
    """`None` (the word): headless."""
    cluster_ips: tuple[str, ...] | None = field(default=None, name="clusterIPs")
    ports: tuple[ServicePort, ...] | None = None
    selector: dict[str, str] | None = None
    external_name: str = ""
    publish_not_ready_addresses: bool = False


class ContainerPort(Wire, frozen=True):
    """A declared port of a container."""

    container_port: PortNumber
    name: str = ""
    protocol: IpProtocol = "TCP"


class Container(Wire, frozen=True):
    """A container, as far as the mesh can see it."""

    name: str
    image: str = ""
    ports: tuple[ContainerPort, ...] | None = None


class PodSpec(Wire, frozen=True):
    """The spec of a pod or of a pod template."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] | None = None
    service_account_name: str = ""
    """Empty: `default`."""
    host_network: bool = False
    node_name: str = ""
    """Empty until it is scheduled, and where there are no nodes."""


class PodCondition(Wire, frozen=True):
    """One condition of a pod; only `Ready` is read."""

    type: str
    status: str


class PodStatus(Wire, frozen=True):
    """What runs."""

    phase: str = ""
    pod_ip: str = field(default="", name="podIP")
    """Empty until the pod has one."""
    conditions: tuple[PodCondition, ...] | None = None


class Pod(Wire, frozen=True):
    """A whole Pod."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodTemplate(Wire, frozen=True):
    """What a workload makes pods of."""

    metadata: TemplateMeta = TemplateMeta()
    spec: PodSpec = PodSpec()


class LabelSelector(Wire, frozen=True):
    """The equality part of a label selector."""

    match_labels: dict[str, str] | None = None


class Deployment(Wire, frozen=True):
    """The spec of a Deployment or ReplicaSet."""

    template: PodTemplate = PodTemplate()
    selector: LabelSelector | None = None
    replicas: Annotated[int, Meta(ge=0)] | None = None
    """None: 1."""


class StatefulSet(Wire, frozen=True):
    """The spec of a StatefulSet."""

    template: PodTemplate = PodTemplate()
    selector: LabelSelector | None = None
    replicas: Annotated[int, Meta(ge=0)] | None = None
    service_name: str = ""


class Job(Wire, frozen=True):
    """The spec of a Job."""

    template: PodTemplate = PodTemplate()


class ServiceAccount(Wire, frozen=True):
    """A service account: the mesh needs its name only."""


class SecretDigest(Wire, frozen=True):
    """A Secret without its bytes: enough to know that it changed and which keys it has (see `secret.py`)."""

    type: str
    keys: tuple[str, ...]
    """Sorted names of its entries."""
    digest: str
    """Hex SHA-256 over type, names and bytes."""
    unusable: tuple[str, ...] = ()
    """Entries that a proxy would refuse as certificate, key or roots."""

    @property
    def usable(self) -> frozenset[str]:
        """The other entries."""
        return frozenset(self.keys) - frozenset(self.unusable)


class ConfigMap(Wire, frozen=True):
    """A whole ConfigMap; binary entries are not read."""

    data: dict[str, str] | None = None


class ObjectReference(Wire, frozen=True):
    """The object an endpoint stands for."""

    kind: str = ""
    name: str = ""
    namespace: str = ""


class EndpointConditions(Wire, frozen=True):
    """State of an endpoint; None means unknown, which clients must read as ready."""

    ready: bool | None = None


class SliceEndpoint(Wire, frozen=True):
    """One endpoint of a slice."""

    addresses: tuple[str, ...]
    """Only the first means anything (Kubernetes)."""
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectReference | None = None


class SlicePort(Wire, frozen=True):
    """One port of every endpoint of the slice, resolved to a number."""

    name: str | None = None
    port: PortNumber | None = None
    protocol: IpProtocol | None = None


class EndpointSlice(Wire, frozen=True):
    """A whole EndpointSlice."""

    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


class ServiceCIDR(Wire, frozen=True):
    """Ranges from which Services get their addresses (Kubernetes 1.33 and later)."""

    cidrs: tuple[str, ...] = ()
