"""Which Kubernetes kinds are read, and how an object of each becomes the value the engine holds.

Knows no files and no decoder: `dialects/reading.py` reads this table. The part named by `part` is decoded into `struct`, or
`digest` makes the value where bytes must not be kept.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from tulle.dialects.kubernetes import schema
from tulle.dialects.kubernetes.checks import range_problems, service_problems
from tulle.dialects.kubernetes.secret import secret_digest
from tulle.model.origin import Origin
from tulle.model.problems import Problem


class CoreKind(Struct, frozen=True):
    """One kind of Kubernetes object. Unknown fields are Kubernetes' business and pass without a problem."""

    group: str
    versions: tuple[str, ...]
    kind: str
    struct: type[Struct]
    part: str = "spec"
    """The part of the object that is decoded: `spec`, or empty for the whole object."""
    is_namespaced: bool = True
    digest: Callable[[Mapping[str, Any]], Struct] | None = None
    """Makes the value instead of decoding; raises `SecretUnreadableError`."""
    check: Callable[[Any, Origin], tuple[Problem, ...]] | None = None
    """What types cannot refuse; gets the decoded value and the origin of its part."""


KINDS: tuple[CoreKind, ...] = (
    CoreKind("", ("v1",), "Namespace", schema.Namespace, is_namespaced=False),
    CoreKind("", ("v1",), "Service", schema.Service, check=service_problems),
    CoreKind("", ("v1",), "Pod", schema.Pod, part=""),
    CoreKind("", ("v1",), "ServiceAccount", schema.ServiceAccount, part=""),
    CoreKind("", ("v1",), "Secret", schema.SecretDigest, part="", digest=secret_digest),
    CoreKind("", ("v1",), "ConfigMap", schema.ConfigMap, part=""),
    CoreKind("apps", ("v1",), "Deployment", schema.Deployment),
    CoreKind("apps", ("v1",), "ReplicaSet", schema.Deployment),
    CoreKind("apps", ("v1",), "StatefulSet", schema.StatefulSet),
    CoreKind("batch", ("v1",), "Job", schema.Job),
    CoreKind("discovery.k8s.io", ("v1",), "EndpointSlice", schema.EndpointSlice, part=""),
    CoreKind(
        *("networking.k8s.io", ("v1", "v1beta1"), "ServiceCIDR", schema.ServiceCIDR),
        is_namespaced=False,
        check=range_problems,
    ),
)
