"""The settings of one mesh, from one JSON file: what Istio calls MeshConfig, and how long certificates live.

Knows names and ranges; what a setting means is said where it is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from tulle.identity.moves import Timing
from tulle.model.intent import Depth
from tulle.model.objects import Discovery, MeshSettings
from tulle.sources.cluster_namespaces import LabelSelector

_MESH = MeshSettings()


class Settings(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Everything that may be set; spelled in camelCase in the file."""

    cluster: str = _MESH.cluster
    mesh_id: str = _MESH.mesh_id
    trust_domain: str = _MESH.trust_domain
    trust_domain_aliases: tuple[str, ...] = ()
    root_namespace: str = _MESH.root_namespace
    cluster_domain: str = _MESH.cluster_domain
    network: str = ""
    registry_only: bool = False
    auto_allocate_cidr: str = _MESH.auto_allocate_cidr
    max_connection_age_seconds: int = _MESH.max_connection_age_seconds
    default_retry_attempts: int = _MESH.default_retry_attempts
    http_trust_denials: bool = True
    depth: Depth = _MESH.depth
    discovery: Discovery = _MESH.discovery
    """Whether sidecars hold everything they may call, or what they have called."""
    service_cidrs: tuple[str, ...] = _MESH.service_cidrs
    discovery_selectors: tuple[LabelSelector, ...] = ()
    """In a cluster: which namespaces are read, by their labels; none given: all. The root namespace always is."""
    access_log: Literal["failures", "all"] = "failures"
    """Which requests and connections proxies write a line about."""
    leaf_ttl_seconds: float = 24 * 3600.0
    """Life of a workload's certificate; it is renewed between half and four fifths of it."""
    bundle_settle_seconds: float = 10.0
    """Least time between publishing a new root and signing with it."""
    log_format: str = "text"
    """`text` or `json`."""
    namespace: str = "default"
    """For objects that name none."""

    def mesh(self) -> MeshSettings:
        """The part that shapes configuration."""
        mine = asdict(self)
        return MeshSettings(**{name: mine[name] for name in MeshSettings.__struct_fields__})

    def timing(self) -> Timing:
        """The part that rotates certificates."""
        return Timing(
            leaf_ttl_s=self.leaf_ttl_seconds,
            bundle_settle_s=self.bundle_settle_seconds,
            connection_age_s=float(self.max_connection_age_seconds),
        )


class SettingsRefusedError(ValueError):
    """The settings file is not one; says where."""


def load(path: Path | None, unsaid: Mapping[str, object] | None = None) -> Settings:
    """The settings of a file; defaults without one, `unsaid` (by their names in the file) before ours.

    Raises SettingsRefusedError, OSError.
    """
    try:
        said = msgspec.json.decode(path.read_bytes() if path else b"{}", type=dict[str, object])
        return msgspec.convert({**(unsaid or {}), **said}, Settings)
    except msgspec.MsgspecError as error:
        raise SettingsRefusedError(f"{path}: {error}") from error
