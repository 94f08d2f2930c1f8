"""ServiceEntry and WorkloadEntry as written, all served versions (v1, v1beta1, v1alpha3 are the same fields).

Every field of the kinds is here, so that one we do not enforce is reported and never dropped. Knows no intent.
Source: Istio API reference, networking/v1 ServiceEntry and WorkloadEntry.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

PortNumber = Annotated[int, Meta(ge=1, le=65535)]


class Wire(Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An object's spec or a part of one, spelled as in YAML."""


class WorkloadSelector(Wire, frozen=True):
    """Selects pods and WorkloadEntries of the same namespace by label."""

    labels: dict[str, str] | None = None


class EntryPort(Wire, frozen=True):
    """A port of a ServiceEntry."""

    number: PortNumber
    name: str
    protocol: str = ""
    """HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP, TLS; empty: by name (Istio)."""
    target_port: PortNumber | None = None


class WorkloadEntry(Wire, frozen=True):
    """A machine, or an inline endpoint."""

    address: str = ""
    ports: dict[str, PortNumber] | None = None
    """Port numbers by the service port's name."""
    labels: dict[str, str] | None = None
    network: str = ""
    locality: str = ""
    weight: Annotated[int, Meta(ge=0)] = 0
    """0: 1."""
    service_account: str = ""


class ServiceEntry(Wire, frozen=True):
    """A service that Kubernetes does not know."""

    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[EntryPort, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"] = "NONE"
    endpoints: tuple[WorkloadEntry, ...] = ()
    workload_selector: WorkloadSelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
