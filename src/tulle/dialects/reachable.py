"""Endpoints: a workload at one port, or a bare address. The same for pods and WorkloadEntries, whoever selected them."""

from tulle.model.intent import Endpoint, Workload


def endpoint_at(workload: Workload, address: str, port: int, weight: int = 1) -> Endpoint:
    """The endpoint at an address of the workload; listed means it may get traffic."""
    return Endpoint(
        address=address,
        port=port,
        workload=workload.key,
        labels=workload.labels,
        has_sidecar=workload.has_sidecar,
        is_ready=True,
        service_account=workload.service_account,
        owner=workload.owner,
        canonical_service=workload.canonical_service,
        canonical_revision=workload.canonical_revision,
        locality=workload.locality,
        weight=weight,
        depth=workload.depth,
    )


def bare_endpoint(address: str, port: int) -> Endpoint:
    """An address, or a DNS name, that nothing is known of: no sidecar, no labels."""
    return Endpoint(
        address=address, port=port, workload=None, labels=(), has_sidecar=False, is_ready=True, service_account=""
    )


def in_order(endpoints: list[Endpoint]) -> tuple[Endpoint, ...]:
    """Sorted by address and port, each once: the order never depends on who reported them first."""
    unique = {(one.address, one.port): one for one in reversed(endpoints)}
    return tuple(unique[place] for place in sorted(unique))
