"""Two readings to rates."""

import pytest

from tulle.telemetry.exposition import Sample
from tulle.telemetry.rates import Reading, Reporter, edges, flows, quantile, stat

PAGE = Reporter("shop", "page-0")
REVIEWS = Reporter("shop", "reviews-v1-0")


def labels(reporter: str, **more: str) -> dict[str, str]:
    return {
        "reporter": reporter,
        "source_workload": "page",
        "source_workload_namespace": "shop",
        "destination_workload": "reviews-v1",
        "destination_workload_namespace": "shop",
        "destination_service": "reviews.shop.svc.cluster.local",
        "destination_service_name": "reviews",
        "destination_service_namespace": "shop",
        "source_principal": "spiffe://td/ns/shop/sa/page",
        "destination_principal": "spiffe://td/ns/shop/sa/reviews",
        "connection_security_policy": "mutual_tls" if reporter == "destination" else "unknown",
        "response_code": "200",
        "grpc_response_status": "",
        **more,
    }


def requests(reporter: str, count: float, **more: str) -> Sample:
    return Sample("istio_requests_total", labels(reporter, **more), count)


def reading(at_s: float, **by_reporter: list[Sample]) -> Reading:
    return Reading(at_s, {{"page": PAGE, "reviews": REVIEWS}[name]: its for name, its in by_reporter.items()})


def test_both_reporters_of_a_call_count_once() -> None:
    before = reading(0, page=[requests("source", 10)], reviews=[requests("destination", 10)])
    after = reading(10, page=[requests("source", 110)], reviews=[requests("destination", 110)])
    (edge,) = edges(flows(before, after), 10)
    assert edge.rates.requests_per_s == 10
    assert edge.is_mtls
    assert stat(flows(before, after), "workload", 10)["shop", "reviews-v1"].requests_per_s == 10
    assert stat(flows(before, after), "service", 10)["shop", "reviews"].requests_per_s == 10


def test_the_callers_word_counts_where_the_receiver_has_no_sidecar() -> None:
    plain = {"destination_principal": "", "source_principal": ""}
    found = flows(reading(0), reading(2, page=[requests("source", 8, **plain)]))
    (edge,) = edges(found, 2)
    assert (edge.rates.requests_per_s, edge.is_mtls) == (4, False)


@pytest.mark.parametrize(
    ("more", "success"),
    [
        ({"response_code": "503"}, 0.5),
        ({"response_code": "404"}, 1.0),
        ({"response_code": "200", "grpc_response_status": "14"}, 0.5),
        ({"response_code": "200", "grpc_response_status": "5"}, 1.0),
    ],
)
def test_success_is_the_servers(more: dict[str, str], success: float) -> None:
    after = reading(1, reviews=[requests("destination", 5), requests("destination", 5, version="2", **more)])
    assert stat(flows(reading(0), after), "workload", 1)["shop", "reviews-v1"].success == success


def test_a_restarted_sidecar_counts_from_zero() -> None:
    before = reading(0, reviews=[requests("destination", 1000)])
    after = reading(1, reviews=[requests("destination", 3)])
    assert stat(flows(before, after), "workload", 1)["shop", "reviews-v1"].requests_per_s == 3


def test_the_order_of_labels_does_not_matter() -> None:
    turned = dict(reversed(labels("destination").items()))
    before = reading(0, reviews=[Sample("istio_requests_total", turned, 7)])
    after = reading(1, reviews=[requests("destination", 9)])
    assert stat(flows(before, after), "workload", 1)["shop", "reviews-v1"].requests_per_s == 2


def test_open_connections_are_the_difference_and_tcp_edges_are_not_doubled() -> None:
    unknown = {"source_workload": "unknown", "source_workload_namespace": "unknown"}

    def tcp(name: str, reporter: str, count: float, **more: str) -> Sample:
        return Sample(f"istio_tcp_{name}_total", labels(reporter, **more), count)

    after = reading(
        1,
        page=[tcp("connections_opened", "source", 3), tcp("connections_closed", "source", 1)],
        reviews=[
            tcp("connections_opened", "destination", 3, **unknown),
            tcp("connections_closed", "destination", 1, **unknown),
            tcp("sent_bytes", "destination", 512, **unknown),
        ],
    )
    found = flows(reading(0), after)
    (edge,) = edges(found, 1)
    assert (edge.source.workload, edge.rates.tcp_connections) == ("page", 2)
    row = stat(found, "workload", 1)["shop", "reviews-v1"]
    assert (row.tcp_connections, row.tcp_bytes_per_s, row.success) == (2, 512, None)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, 50.0), (0.25, 25.0), (0.95, 190.0), (0.99, 198.0)],
)
def test_quantiles_are_prometheus_own(share: float, expected: float) -> None:
    buckets = {100.0: 100.0, 200.0: 200.0, float("inf"): 200.0}
    if share <= 0.5:
        buckets = {100.0: 100.0, float("inf"): 100.0}
    assert quantile(share, buckets) == pytest.approx(expected)


def test_quantiles_beyond_the_last_bound_and_of_nothing() -> None:
    assert quantile(0.99, {10.0: 1.0, float("inf"): 100.0}) == 10.0
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {10.0: 0.0, float("inf"): 0.0}) is None


def test_requests_through_a_receiver_that_relays_are_the_callers_word() -> None:
    unknown = {"source_workload": "unknown", "source_workload_namespace": "unknown"}
    gateway = {"source_workload": "gateway", "source_workload_namespace": "edge"}
    opened = Sample("istio_tcp_connections_opened_total", labels("destination", **unknown), 4)
    after = reading(
        1,
        page=[requests("source", 100), requests("source", 30, **gateway)],
        reviews=[opened, requests("destination", 30, **gateway)],
    )
    found = flows(reading(0), after)
    row = stat(found, "workload", 1)["shop", "reviews-v1"]
    assert (row.requests_per_s, row.tcp_connections, row.success) == (130, 4, 1)
    told = {edge.source.workload: (edge.rates.requests_per_s, edge.is_mtls) for edge in edges(found, 1)}
    assert told == {"page": (100, True), "gateway": (30, True)}
    without_gateway = reading(1, page=[requests("source", 100)], reviews=[opened])
    assert stat(flows(reading(0), without_gateway), "service", 1)["shop", "reviews"].requests_per_s == 100
