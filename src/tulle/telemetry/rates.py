"""Two scrapes of the mesh's sidecars to rates: requests, success, latency and connections, by workload, service or edge.

Pure. Metric and label names are Istio's (docs/facts/envoy.md §5). A connection's two ends both report it: the receiving side
counts where its sidecar parses, because it sees also callers without one; the calling side counts for everything else.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from tulle.telemetry.exposition import Sample

REQUESTS = "istio_requests_total"
DURATION = "istio_request_duration_milliseconds_bucket"
OPENED = "istio_tcp_connections_opened_total"
CLOSED = "istio_tcp_connections_closed_total"
SENT = "istio_tcp_sent_bytes_total"
RECEIVED = "istio_tcp_received_bytes_total"
USED = frozenset((REQUESTS, DURATION, OPENED, CLOSED, SENT, RECEIVED))
"""The series this module reads; callers may leave out others."""
UNKNOWN = "unknown"

_FAILED_GRPC = frozenset(("2", "4", "13", "14", "15"))
"""UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS: the server's fault, as linkerd counts."""
_OTHER = frozenset(("", "-", UNKNOWN))


class Reporter(NamedTuple):
    """The sidecar that reports."""

    namespace: str
    pod: str


class Reading(Struct, frozen=True):
    """What every sidecar said at one moment."""

    at_s: float
    """Of a monotonic clock."""
    samples: Mapping[Reporter, Sequence[Sample]]


class Party(NamedTuple):
    """A workload as one end of a call."""

    namespace: str
    workload: str


class Target(NamedTuple):
    """The service that was called."""

    namespace: str
    name: str
    host: str


class Flow(Struct):
    """What one sidecar saw from one workload to another within the window."""

    reporter: Reporter
    is_destination: bool
    source: Party
    destination: Party
    service: Target
    source_principal: str
    destination_principal: str
    is_mtls: bool
    requests: float = 0
    failures: float = 0
    buckets: dict[float, float] = field(default_factory=dict)
    """Upper bound in ms -> requests up to it."""
    opened: float = 0
    is_open: float = 0
    """TCP connections open at the end of the window."""
    bytes: float = 0
    """Of TCP connections, both ways."""


class Rates(Struct, frozen=True):
    """Rates of some flows."""

    requests_per_s: float
    success: float | None
    """Share of requests without a server's error, 0 to 1; None without requests."""
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    tcp_connections: int
    tcp_bytes_per_s: float


class Edge(Struct, frozen=True):
    """Who calls whom."""

    source: Party
    destination: Party
    source_principal: str
    destination_principal: str
    is_mtls: bool
    rates: Rates


Grouping = Literal["workload", "service", "pod", "namespace"]


def flows(before: Reading, after: Reading) -> tuple[Flow, ...]:
    """The flows between two readings. Counters that fell were reset by a restart and count from 0. O(series)."""
    found: dict[tuple[object, ...], Flow] = {}
    for reporter, samples in after.samples.items():
        old = {_identity(sample): sample.value for sample in before.samples.get(reporter, ()) if sample.name in USED}
        for sample in samples:
            if sample.name not in USED:
                continue
            was = old.get(_identity(sample), 0.0)
            _count(_flow(found, reporter, sample.labels), sample, sample.value - (was if was <= sample.value else 0.0))
    return tuple(found.values())


def seconds_between(before: Reading, after: Reading) -> float:
    """The window's length."""
    return max(after.at_s - before.at_s, 1e-9)


def stat(found: Iterable[Flow], by: Grouping, seconds: float) -> Mapping[tuple[str, str], Rates]:
    """Inbound rates by (namespace, name) of the workload, service or pod that was called; ("", namespace) by namespace."""
    groups: defaultdict[tuple[str, str], list[Flow]] = defaultdict(list)
    for flow in found:
        name = _NAMES[by](flow)
        if name is not None and name[1] not in _OTHER:
            groups[name].append(flow)
    return {name: rates(_one_side(members), seconds) for name, members in sorted(groups.items())}


def edges(found: Sequence[Flow], seconds: float) -> tuple[Edge, ...]:
    """Every pair of workloads with traffic or open connections, by name. Callers without a sidecar are `unknown`."""
    told = {(flow.source_principal, flow.destination) for flow in found if not flow.is_destination}
    groups: defaultdict[tuple[Party, Party], list[Flow]] = defaultdict(list)
    for flow in found:
        if (
            flow.source.workload == UNKNOWN
            and flow.source_principal
            and (flow.source_principal, flow.destination) in told
        ):
            continue  # over TCP only the caller can say which workload it is, and it did
        if flow.requests or flow.opened or flow.is_open:
            groups[flow.source, flow.destination].append(flow)
    return tuple(_edge(*pair, members, seconds) for pair, members in sorted(groups.items()) if _is_named(*pair))


def rates(members: Sequence[Flow], seconds: float) -> Rates:
    """The rates of flows together."""
    requests = sum(flow.requests for flow in members)
    failures = sum(flow.failures for flow in members)
    buckets: defaultdict[float, float] = defaultdict(float)
    for flow in members:
        for bound, count in flow.buckets.items():
            buckets[bound] += count
    return Rates(
        requests_per_s=requests / seconds,
        success=1 - failures / requests if requests else None,
        p50_ms=quantile(0.5, buckets),
        p95_ms=quantile(0.95, buckets),
        p99_ms=quantile(0.99, buckets),
        tcp_connections=round(sum(flow.is_open for flow in members)),
        tcp_bytes_per_s=sum(flow.bytes for flow in members) / seconds,
    )


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value below which a share of a histogram lies, as Prometheus' `histogram_quantile` reckons; None when empty."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank = share * total
    below, start = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank:
            if bound == float("inf"):
                return start
            return start + (bound - start) * ((rank - below) / (count - below) if count > below else 1.0)
        below, start = count, bound
    return start


def _identity(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.name, frozenset(sample.labels.items())


def _flow(found: dict[tuple[object, ...], Flow], reporter: Reporter, labels: Mapping[str, str]) -> Flow:
    made = Flow(
        reporter=reporter,
        is_destination=labels.get("reporter") == "destination",
        source=Party(_known(labels, "source_workload_namespace"), _known(labels, "source_workload")),
        destination=Party(_known(labels, "destination_workload_namespace"), _known(labels, "destination_workload")),
        service=Target(
            _known(labels, "destination_service_namespace"),
            _known(labels, "destination_service_name"),
            _known(labels, "destination_service"),
        ),
        source_principal=_principal(labels, "source_principal"),
        destination_principal=_principal(labels, "destination_principal"),
        is_mtls=_is_mtls(labels),
    )
    key = (
        reporter,
        made.is_destination,
        made.source,
        made.destination,
        made.service,
        made.source_principal,
        made.destination_principal,
        made.is_mtls,
    )
    return found.setdefault(key, made)


def _known(labels: Mapping[str, str], name: str) -> str:
    value = labels.get(name, "")
    return UNKNOWN if value in _OTHER else value


def _principal(labels: Mapping[str, str], name: str) -> str:
    value = labels.get(name, "")
    return "" if value in _OTHER else value


def _is_mtls(labels: Mapping[str, str]) -> bool:
    """The receiving side says so; the calling side knows the certificates of both."""
    if labels.get("reporter") == "destination":
        return labels.get("connection_security_policy") == "mutual_tls"
    return bool(_principal(labels, "source_principal") and _principal(labels, "destination_principal"))


def _count(flow: Flow, sample: Sample, increase: float) -> None:
    if sample.name == REQUESTS:
        flow.requests += increase
        flow.failures += increase if _is_failure(sample.labels) else 0
    elif sample.name == DURATION:
        bound = float(sample.labels.get("le", "+Inf"))
        flow.buckets[bound] = flow.buckets.get(bound, 0.0) + increase
    elif sample.name == OPENED:
        flow.opened += increase
        flow.is_open += sample.value
    elif sample.name == CLOSED:
        flow.is_open -= sample.value
    else:
        flow.bytes += increase


def _is_failure(labels: Mapping[str, str]) -> bool:
    return labels.get("response_code", "").startswith("5") or labels.get("grpc_response_status", "") in _FAILED_GRPC


def _one_side(members: Sequence[Flow]) -> Sequence[Flow]:
    """The receiving sidecars' word, or the callers' where no receiver has one; never both, that would count twice.

    A receiver that relays knows connections only: what went through them is the callers' word.
    """
    received = [flow for flow in members if flow.is_destination]
    parsed = {(flow.source, flow.destination) for flow in received if flow.requests}
    relayed = [
        replace(flow, opened=0, is_open=0, bytes=0)
        for flow in members
        if not flow.is_destination and flow.requests and (flow.source, flow.destination) not in parsed
    ]
    if any(flow.requests for flow in received):
        # calls that no workload answered are no receiver's
        relayed = [flow for flow in relayed if flow.destination.workload != UNKNOWN]
    return [*received, *relayed] if received else members


def _edge(source: Party, destination: Party, members: Sequence[Flow], seconds: float) -> Edge:
    chosen = _one_side(members)
    return Edge(
        source=source,
        destination=destination,
        source_principal=next((flow.source_principal for flow in chosen if flow.source_principal), ""),
        destination_principal=next((flow.destination_principal for flow in chosen if flow.destination_principal), ""),
        is_mtls=all(flow.is_mtls for flow in chosen),
        rates=rates(chosen, seconds),
    )


def _is_named(source: Party, destination: Party) -> bool:
    return source.workload != UNKNOWN or destination.workload != UNKNOWN


_NAMES: Mapping[Grouping, Callable[[Flow], tuple[str, str] | None]] = {
    "workload": lambda flow: (flow.destination.namespace, flow.destination.workload),
    "service": lambda flow: (flow.service.namespace, flow.service.name),
    "pod": lambda flow: (flow.reporter.namespace, flow.reporter.pod) if flow.is_destination else None,
    "namespace": lambda flow: ("", flow.destination.namespace),
}
