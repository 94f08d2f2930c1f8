"""What an installation says about injection, and what injection needs to know of a namespace.

Only types and defaults. What a pod asks for itself stands in `wishes`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from tulle.compile.envoy.cluster_bootstrap import Discovery
from tulle.dialects.kubernetes.injection import DEFAULT_REVISION
from tulle.model.objects import MeshSettings

_MESH: Final = MeshSettings()
PROXY_USER: Final = 1337
"""User and group of the proxy: whose traffic is not captured (capture/settings.go)."""
TOKEN_AUDIENCE: Final = "tulle"  # noqa: S105 - a name
LEAST_TOKEN_SECONDS: Final = 600
"""What Kubernetes takes."""


class Resources(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Kubernetes quantities; empty: none."""

    cpu: str = ""
    memory: str = ""
    cpu_limit: str = ""
    memory_limit: str = ""


class InjectionSettings(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Everything about injection that may be set; spelled in camelCase in `mesh.json`, key `injection`."""

    revision: str = DEFAULT_REVISION
    tags: tuple[str, ...] = ()
    """Further names of this revision; `default` among them makes it the one that is meant where none is named."""
    namespace: str = "tulle-system"
    """Of the control plane."""
    discovery: str = ""
    """Host and port of the control plane; empty: `tulled.<namespace>.svc:15012`, with the revision where there is one."""
    proxy_image: str = "tulle/proxy:dev"
    capture_image: str = "tulle/capture:dev"
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    image_pull_secrets: tuple[str, ...] = ()
    capture: Literal["init", "cni"] = "init"
    """Who makes the capture rules: an init container with NET_ADMIN, or the node's CNI plugin."""
    init_containers: Literal["after", "before"] = "after"
    """Where the workload's own init containers run: after the proxy is up, with the mesh; or before there is one."""
    resources: Resources = Resources(cpu="10m", memory="40Mi", cpu_limit="2", memory_limit="1Gi")
    log_level: str = "warning"
    concurrency: int = 1
    """Threads of a proxy; 0: one per CPU of the node."""
    drain_seconds: int = 5
    """How long a container that was told to end still answers, so that callers have time to go elsewhere."""
    rewrite_probes: bool = True
    include_outbound_ranges: tuple[str, ...] = ("*",)
    exclude_outbound_ranges: tuple[str, ...] = ()
    exclude_outbound_ports: tuple[int, ...] = ()
    exclude_inbound_ports: tuple[int, ...] = ()
    token_seconds: Annotated[int, Meta(ge=LEAST_TOKEN_SECONDS)] = 3600
    """Life of the token by which a proxy proves itself; the kubelet renews it after four fifths, its stream ends with it."""
    cluster: str = _MESH.cluster
    mesh_id: str = _MESH.mesh_id
    trust_domain: str = _MESH.trust_domain
    trust_root: str = "tulle-ca-root-cert"
    """ConfigMap of each namespace that holds the roots by which proxies know the control plane."""

    @property
    def revisions(self) -> frozenset[str]:
        """All names this revision goes by."""
        return frozenset((self.revision or DEFAULT_REVISION, *self.tags))

    @property
    def control_plane(self) -> Discovery:
        """Where proxies find the control plane."""
        if self.discovery:
            host, _, port = self.discovery.rpartition(":")
            return Discovery(host, int(port))
        own = "" if self.revision in ("", DEFAULT_REVISION) else f"-{self.revision}"
        return Discovery(f"tulled{own}.{self.namespace}.svc")


class NamespaceFacts(Struct, frozen=True):
    """A pod's namespace."""

    name: str
    labels: dict[str, str] = {}
