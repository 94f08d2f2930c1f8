"""The Kubernetes dialect: core objects as services, workloads and endpoints of the mesh (see README.md)."""

from tulle.dialects.kubernetes.depth import namespace_depth
from tulle.dialects.kubernetes.injection import Injection, Role, injects
from tulle.dialects.kubernetes.namespace_labels import namespace, namespaces
from tulle.dialects.kubernetes.pods import EVERYWHERE
from tulle.dialects.kubernetes.registry import (
    alias_target,
    allocated,
    endpoints,
    secret_digest,
    service,
    services_in,
    workload,
    workloads_in,
    workloads_selected,
)
from tulle.dialects.kubernetes.services import service_ranges

__all__ = [
    "EVERYWHERE",
    "Injection",
    "Role",
    "alias_target",
    "allocated",
    "endpoints",
    "injects",
    "namespace",
    "namespace_depth",
    "namespaces",
    "secret_digest",
    "service",
    "service_ranges",
    "services_in",
    "workload",
    "workloads_in",
    "workloads_selected",
]
