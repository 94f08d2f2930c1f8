"""What the local run reads of Kubernetes objects: everything a kubelet and the workload controllers need.

The mesh's own reading (`dialects.kubernetes.schema`) keeps only what proxies depend on, so that an edit of a probe
recomputes no configuration; here it is the other way round. Types and a table, no behaviour.
Source: the Kubernetes API reference, v1, apps/v1, batch/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from tulle.dialects.decode import Decoded, decoded
from tulle.dialects.fitting import fitted
from tulle.dialects.kinds import KindRead, Made, NameRule, Scope
from tulle.dialects.kubernetes.secret import SecretUnreadableError, secret_material
from tulle.model.origin import Origin
from tulle.model.problems import problem

PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[int, Meta(ge=0)]


class Wire(Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """An object or a part of one, spelled as in YAML."""


class KeyRef(Wire, frozen=True):
    """One entry of a ConfigMap or Secret."""

    name: str
    key: str
    optional: bool = False


class FieldRef(Wire, frozen=True):
    """A field of the pod itself (downward API)."""

    field_path: str


class EnvSource(Wire, frozen=True):
    """Where a variable's value comes from."""

    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None


class EnvVar(Wire, frozen=True):
    """One environment variable."""

    name: str
    value: str = ""
    value_from: EnvSource | None = None


class NameRef(Wire, frozen=True):
    """A ConfigMap or Secret as a whole."""

    name: str
    optional: bool = False


class EnvFrom(Wire, frozen=True):
    """All entries of an object as variables."""

    prefix: str = ""
    config_map_ref: NameRef | None = None
    secret_ref: NameRef | None = None


class ContainerPort(Wire, frozen=True):
    """A declared port."""

    container_port: PortNumber
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class HttpHeader(Wire, frozen=True):
    """A header of a probe."""

    name: str
    value: str = ""


class HttpGet(Wire, frozen=True):
    """A probe by request; 200 to 399 is well."""

    port: int | str
    path: str = "/"
    scheme: str = "HTTP"
    http_headers: tuple[HttpHeader, ...] | None = None


class TcpSocket(Wire, frozen=True):
    """A probe by connection."""

    port: int | str


class Exec(Wire, frozen=True):
    """A command in the container; status 0 is well."""

    command: tuple[str, ...] = ()


class Grpc(Wire, frozen=True):
    """A probe by grpc.health.v1."""

    port: PortNumber
    service: str = ""


class Sleep(Wire, frozen=True):
    """A hook that waits."""

    seconds: Seconds


class Probe(Wire, frozen=True):
    """How to ask a container how it is; times in seconds."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: Exec | None = None
    grpc: Grpc | None = None
    initial_delay_seconds: Seconds = 0
    period_seconds: Annotated[int, Meta(ge=1)] = 10
    timeout_seconds: Annotated[int, Meta(ge=1)] = 1
    success_threshold: Annotated[int, Meta(ge=1)] = 1
    failure_threshold: Annotated[int, Meta(ge=1)] = 3


class Hook(Wire, frozen=True):
    """What is done before a container is asked to end."""

    exec: Exec | None = None
    sleep: Sleep | None = None
    http_get: HttpGet | None = None


class Lifecycle(Wire, frozen=True):
    """Hooks of a container."""

    pre_stop: Hook | None = None


class VolumeMount(Wire, frozen=True):
    """Where a container sees a volume."""

    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool = False


class SecurityContext(Wire, frozen=True):
    """As whom a container runs."""

    run_as_user: Annotated[int, Meta(ge=0)] | None = None
    run_as_group: Annotated[int, Meta(ge=0)] | None = None


class Container(Wire, frozen=True):
    """A container: here, a process."""

    name: str
    image: str = ""
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    working_dir: str = ""
    env: tuple[EnvVar, ...] | None = None
    env_from: tuple[EnvFrom, ...] | None = None
    ports: tuple[ContainerPort, ...] | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    volume_mounts: tuple[VolumeMount, ...] | None = None
    security_context: SecurityContext | None = None
    restart_policy: str | None = None
    """`Always` makes an init container a companion that goes on."""


class Item(Wire, frozen=True):
    """One file of a volume."""

    key: str
    path: str


class ConfigMapVolume(Wire, frozen=True):
    """Entries of a ConfigMap as files."""

    name: str
    items: tuple[Item, ...] | None = None
    optional: bool = False


class SecretVolume(Wire, frozen=True):
    """Entries of a Secret as files."""

    secret_name: str
    items: tuple[Item, ...] | None = None
    optional: bool = False


class HostPath(Wire, frozen=True):
    """A path of this machine."""

    path: str


class Claim(Wire, frozen=True):
    """A folder that outlives pods."""

    claim_name: str


class Volume(Wire, frozen=True):
    """A volume of a pod."""

    name: str
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: dict[str, Any] | None = None
    host_path: HostPath | None = None
    persistent_volume_claim: Claim | None = None


class PodSpec(Wire, frozen=True):
    """What a pod runs."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] | None = None
    volumes: tuple[Volume, ...] | None = None
    service_account_name: str = ""
    host_network: bool = False
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: Seconds = 30
    security_context: SecurityContext | None = None
    hostname: str = ""


class TemplateMeta(Wire, frozen=True):
    """Labels and annotations of pods to be."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class PodTemplate(Wire, frozen=True):
    """What pods are made from."""

    metadata: TemplateMeta = TemplateMeta()
    spec: PodSpec = PodSpec()


class WorkloadSpec(Wire, frozen=True):
    """Deployment, ReplicaSet, StatefulSet, DaemonSet or Job, as far as pods come of it."""

    template: PodTemplate = PodTemplate()
    replicas: Annotated[int, Meta(ge=0)] | None = None
    service_name: str = ""
    backoff_limit: Annotated[int, Meta(ge=0)] = 6
    completions: Annotated[int, Meta(ge=1)] | None = None


class ServicePort(Wire, frozen=True):
    """One port of a Service."""

    port: PortNumber
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    target_port: int | str | None = None


class ServiceSpec(Wire, frozen=True):
    """A Service, as far as addresses and published ports need it."""

    type: str = "ClusterIP"
    cluster_ip: str = field(default="", name="clusterIP")
    ports: tuple[ServicePort, ...] | None = None
    selector: dict[str, str] | None = None
    publish_not_ready_addresses: bool = False


class Service(Struct, frozen=True):
    """A Service read and as it was written: it is handed on whole, with its address filled in."""

    spec: ServiceSpec
    raw: dict[str, Any]


class Entries(Struct, frozen=True):
    """A ConfigMap."""

    data: Mapping[str, str]


class Nothing(Wire, frozen=True):
    """A Namespace: its labels are all that counts."""


class SecretSeen(Struct, frozen=True):
    """A Secret: its bytes travel beside the object, never in it."""

    digest: str


def _service(raw: dict[str, Any], origin: Origin) -> Made:
    found = fitted(raw.get("spec") or {}, ServiceSpec, origin.at("spec"))
    if found.value is None:
        return Made(None, found.problems)
    return Made(Service(found.value, raw), found.problems)


def _secret(raw: dict[str, Any], origin: Origin) -> Made:
    try:
        material = secret_material(raw)
    except SecretUnreadableError as error:
        return Made(None, (problem("TUL0310", origin.at(error.path), reason=error.reason),))
    return Made(SecretSeen(material.digest), private=material)


def _config_map(raw: dict[str, Any], origin: Origin) -> Made:
    data = raw.get("data") or {}
    if not isinstance(data, dict):
        return Made(None, (problem("TUL0112", origin.at("data"), field="data"),))
    return Made(Entries({str(name): str(value) for name, value in data.items()}))


def _kind(group: str, kind: str, schema: Any, **fields: Any) -> KindRead:
    return KindRead(group=group, kind=kind, versions=("v1",), schema=schema, is_strict=False, **fields)


_KINDS = (
    _kind("", "Namespace", Nothing, scope=Scope.CLUSTER, name_rule=NameRule.LABEL, requires_root=False),
    _kind("", "Service", Service, make=_service, name_rule=NameRule.LABEL),
    _kind("", "ConfigMap", Entries, make=_config_map, root=""),
    _kind("", "Secret", SecretSeen, make=_secret, root=""),
    _kind("", "Pod", PodSpec),
    _kind("apps", "Deployment", WorkloadSpec),
    _kind("apps", "ReplicaSet", WorkloadSpec),
    _kind("apps", "StatefulSet", WorkloadSpec),
    _kind("apps", "DaemonSet", WorkloadSpec),
    _kind("batch", "Job", WorkloadSpec),
)
KINDS: Mapping[tuple[str, str], KindRead] = {(kind.group, kind.kind): kind for kind in _KINDS}
"""By (group, kind)."""


def read(raw: Any, cluster: str = "Kubernetes", namespace: str = "default") -> Decoded:
    """The object of a raw document; empty for kinds that are the control plane's business alone."""
    if isinstance(raw, dict):
        group, _, _version = str(raw.get("apiVersion", "")).rpartition("/")
        if (group, raw.get("kind")) in KINDS:
            return decoded(raw, KINDS, cluster, namespace)
    return Decoded(None, None, ())
