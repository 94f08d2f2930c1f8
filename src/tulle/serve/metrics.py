"""The control plane's own metrics: Istio's names where they mean the same, `tulle_*` for what is ours.

Counts what the fleet says (`Ears`) and reads the rest when scraped. Knows no HTTP.
Source of the names: Istio, pilot and citadel metrics.
"""

from collections.abc import Callable, Iterator
from time import monotonic, time

from msgspec import Struct
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tulle.engine import Database
from tulle.serve.client import Client
from tulle.serve.credentials import Credentials
from tulle.serve.fleet import SILENT_AFTER_S, Ears, Fleet, short
from tulle.serve.shelves import Shelves
from tulle.xds.events import Acked, Rejected, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30)


disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics(Ears):
    """One process's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._rejects = Counter(
            "pilot_total_xds_rejects", "Resources refused by proxies.", ("type",), registry=self.registry
        )
        self._responses = _Responses()
        self.registry.register(self._responses)
        self._convergence = Histogram(
            "pilot_proxy_convergence_time",
            "Seconds from a change being known to a proxy having acknowledged it.",
            buckets=_FAST,
            registry=self.registry,
        )
        self._compiles = Histogram(
            "tulle_push_compute_seconds",
            "Seconds spent computing and queueing one change for all proxies.",
            buckets=_FAST,
            registry=self.registry,
        )
        self._bugs = Counter("tulle_bugs", "Failures of tulle itself.", registry=self.registry)
        self._edits = Counter("tulle_edits", "Changes of files or running pods taken in.", registry=self.registry)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def edited(self, seconds: float) -> None:
        """One change was computed and queued."""
        self._edits.inc()
        self._compiles.observe(seconds)

    def bug(self) -> None:
        """Something of ours failed."""
        self._bugs.inc()

    # --- the fleet's words -------------------------------------------------------------------------------------------

    def sent(self, client: Client, sent: Send) -> None:
        """A response goes out."""
        del client
        counted = self._responses.of(sent.type_url)
        counted.pushes += 1
        counted.bytes += sent.size
        counted.resources += len(sent.changed) + len(sent.removed)

    def acked(self, client: Client, acked: Acked) -> None:
        """A response was applied."""
        del client
        self._responses.of(acked.type_url).acks += 1

    def rejected(self, client: Client, rejected: Rejected) -> None:
        """Resources were refused."""
        del client
        self._rejects.labels(short(rejected.type_url).lower()).inc(len(rejected.versions))

    def converged(self, seconds: float) -> None:
        """One client has what was pushed so long ago."""
        self._convergence.observe(seconds)


class _Counted(Struct):
    """Of one type."""

    pushes: int = 0
    acks: int = 0
    bytes: int = 0
    resources: int = 0


class _Responses(Collector):
    """Counters that go up several times per message: plain numbers, because the library's cost more than the message."""

    def __init__(self) -> None:
        self._of_type: dict[str, _Counted] = {}

    def of(self, type_url: str) -> _Counted:
        """Those of one type."""
        found = self._of_type.get(type_url)
        if found is None:
            found = self._of_type[type_url] = _Counted()
        return found

    def collect(self) -> Iterator[Metric]:
        """One reading."""
        for name, words, field in (
            ("pilot_xds_pushes", "Responses sent, by type.", "pushes"),
            ("tulle_xds_acks", "Responses acknowledged, by type.", "acks"),
            ("tulle_xds_sent_bytes", "Bytes of responses, by type.", "bytes"),
            ("tulle_xds_sent_resources", "Resources sent, removals included, by type.", "resources"),
        ):
            family = CounterMetricFamily(name, words, labels=("type",))
            for type_url, counted in self._of_type.items():
                if getattr(counted, field):
                    family.add_metric((short(type_url).lower(),), getattr(counted, field))
            yield family


class Readings(Collector):
    """What is read when scraped. Never touches keys."""

    def __init__(
        self, db: Database, fleet: Fleet, shelves: Shelves, credentials: Credentials, revision: Callable[[], int]
    ) -> None:
        self._db = db
        self._fleet = fleet
        self._shelves = shelves
        self._credentials = credentials
        self._revision = revision

    def collect(self) -> Iterator[Metric]:
        """One reading of everything."""
        clients, now = list(self._fleet.clients.values()), monotonic()
        yield GaugeMetricFamily("pilot_xds", "Connected streams.", value=len(clients))
        yield GaugeMetricFamily("tulle_pods", "Pods with a proxy, connected or not.", value=len(self._fleet.seats))
        waiting = [client for client in clients if not client.is_synced]
        yield GaugeMetricFamily(
            "tulle_push_queue", "Streams that have not acknowledged everything.", value=len(waiting)
        )
        silent = [client for client in clients if client.silent_for(now) > SILENT_AFTER_S]
        yield GaugeMetricFamily("tulle_silent_streams", "Streams that owe an answer for long.", value=len(silent))
        refused = sum(len(self._fleet.refusals_of(client)) for client in clients)
        yield GaugeMetricFamily("tulle_refused_resources", "Newest versions that proxies refuse.", value=refused)
        yield GaugeMetricFamily("tulle_views", "Distinct configurations computed.", value=len(self._shelves))
        yield GaugeMetricFamily("tulle_revision", "Version of what proxies should hold.", value=self._revision())
        yield GaugeMetricFamily("tulle_engine_nodes", "Remembered answers.", value=self._db.node_count)
        yield CounterMetricFamily("tulle_engine_queries", "Queries run.", value=self._db.runs)
        yield from self._certificates()

    def _certificates(self) -> Iterator[Metric]:
        now = time()
        issued = self._credentials.issued
        yield CounterMetricFamily("citadel_server_success_cert_issuance_count", "Leafs issued.", value=issued)
        roots = self._credentials.roots
        active = min((root.expires_at for root in roots if root.state.value == "active"), default=0.0)
        yield GaugeMetricFamily("citadel_server_root_cert_expiry_timestamp", "Of the active root, Unix.", value=active)
        yield GaugeMetricFamily("tulle_roots", "Roots in the bundle.", value=len(roots))
        age = GaugeMetricFamily("tulle_leaf_age_seconds", "Since the newest leaf was issued.", labels=("proxy",))
        left = GaugeMetricFamily("tulle_leaf_remaining_seconds", "Validity left.", labels=("proxy",))
        for leaf in self._credentials.leafs:
            seat = self._fleet.seats.get(leaf.holder)
            name = seat.id if seat else leaf.holder
            age.add_metric((name,), leaf.age_s(now))
            left.add_metric((name,), leaf.remaining_s(now))
        yield age
        yield left
