"""Ports whose connections travel as streams of one connection between two sidecars (docs/decisions/0015)."""

from tulle.compile.inbound import inbound_of
from tulle.dialects.kubernetes import endpoints, workload
from tulle.engine import Database, gate
from tulle.model.keys import ServiceKey, WorkloadKey


@gate
def ending_at(db: Database, key: WorkloadKey) -> frozenset[int]:
    """The ports at which a workload's sidecar takes connections out of streams."""
    found = workload(db, key)
    if found is None or not found.has_sidecar or found.is_gateway:
        return frozenset()
    inbound = inbound_of(db, key)
    return frozenset(port.port for port in inbound.ports if port.ends_tunnels) if inbound else frozenset()


@gate
def is_tunnelled(db: Database, key: ServiceKey, port: int) -> bool:
    """Whether every endpoint of a port takes streams. Nobody knows it of a port without endpoints."""
    found = endpoints(db, key, port)
    return bool(found) and all(one.workload and one.port in ending_at(db, one.workload) for one in found)
