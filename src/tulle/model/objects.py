"""Objects as users wrote them, decoded: the inputs of the engine."""

from typing import Any, Literal

from msgspec import Struct

from tulle.model.intent import Depth
from tulle.model.keys import Labels, ObjectKey


class Object(Struct, frozen=True, gc=False):
    """One decoded object. Equal objects are equal whatever their place in a file and their served version."""

    key: ObjectKey
    spec: Any
    """The kind's own frozen struct (dialects.<dialect>.schema): spec, or the whole of kinds without one (Secret's digest)."""
    labels: Labels = ()
    annotations: Labels = ()
    uid: str = ""
    created: str = ""
    """RFC 3339, empty for files: where Istio lets the oldest win, ties go by name."""
    generation: int = 0
    """Of the API server, counted up with every change of the spec; 0 for files, and for kinds whose status does not ask for it."""


Discovery = Literal["full", "on-demand"]
"""Whether sidecars hold everything they may call, or what they have called."""


class MeshSettings(Struct, frozen=True):
    """What Istio calls MeshConfig, the part in use. Names and defaults are Istio's."""

    cluster: str = "Kubernetes"
    mesh_id: str = "cluster.local"
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    root_namespace: str = "istio-system"
    cluster_domain: str = "cluster.local"
    network: str = ""
    registry_only: bool = False
    """outboundTrafficPolicy REGISTRY_ONLY: unknown destinations are refused; otherwise they pass through."""
    auto_allocate_cidr: str = "240.240.0.0/16"
    """ServiceEntry hosts without addresses get one of these (Istio's range)."""
    max_connection_age_seconds: int = 3600
    """HTTP connections between sidecars are drained after this, so that rotated roots reach old connections."""
    default_retry_attempts: int = 2
    """Istio retries idempotently safe failures twice unless a route says otherwise; 0 turns mesh retries off."""
    http_trust_denials: bool = True
    """Denials tell mTLS-authenticated callers which policy refused them."""
    depth: Depth = Depth.ONCE
    """How much of HTTP sidecars parse where neither namespace nor workload says it (annotation `tulle.dev/depth`)."""
    discovery: Discovery = "on-demand"
    """`full` or `on-demand`: what sidecars hold where neither namespace nor workload says it (annotation `tulle.dev/discovery`)."""
    service_cidrs: tuple[str, ...] = ()
    """Where services have their addresses; empty: around the addresses that services have."""
    access_log: str = "failures"
    """`failures` or `all`: which requests and connections proxies write a line about. Refusals count as failures."""
