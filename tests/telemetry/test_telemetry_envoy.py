"""Metrics and logs of a real Envoy, read as `stat`, `edges` and `logs --proxy` read them."""

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest
from telemetry_proxy import proxy

from tulle.telemetry import access_log, exposition, merged, rates

pytestmark = pytest.mark.envoy


def run_dir_of(folder: Path, admin: Path) -> Path:
    run = folder / "run"
    (run / "envoy" / "abc").mkdir(parents=True)
    (run / "envoy" / "abc" / "admin.sock").symlink_to(admin)
    pod = {"kind": "Pod", "metadata": {"name": "reviews-v1-0", "namespace": "default", "uid": "abc"}}
    (run / "runtime.json").write_text(json.dumps({"kind": "List", "items": [pod]}))
    return run


async def test_rates_of_a_window_are_those_of_its_requests(tmp_path: Path) -> None:
    with proxy(tmp_path) as (admin, port, *_):
        run = run_dir_of(tmp_path, admin)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await client.get("/warm-up")
            await asyncio.sleep(0.5)
            before, failed = await merged.reading(merged.sidecars(run))
            assert not failed
            for path in ["/fine"] * 6 + ["/bad"] * 2:
                await client.get(path)
        await asyncio.sleep(0.6)
        after, _ = await merged.reading(merged.sidecars(run))
    found = rates.stat(rates.flows(before, after), "workload", 2.0)
    (row,) = found.values()
    assert list(found) == [("default", "reviews-v1")]
    assert (row.requests_per_s, row.success) == (4.0, 0.75)
    assert row.p99_ms is not None
    assert 0 < row.p99_ms < 1000
    assert list(rates.stat(rates.flows(before, after), "service", 2.0)) == [("default", "reviews")]
    assert list(rates.stat(rates.flows(before, after), "pod", 2.0)) == [("default", "reviews-v1-0")]
    (edge,) = rates.edges(rates.flows(before, after), 2.0)
    assert (edge.source.workload, edge.destination.workload, edge.is_mtls) == ("unknown", "reviews-v1", False)


async def test_the_merged_endpoint_has_istios_names_and_the_pods_labels(tmp_path: Path) -> None:
    with proxy(tmp_path) as (admin, port, *_):
        run = run_dir_of(tmp_path, admin)
        async with httpx.AsyncClient() as client:
            await client.get(f"http://127.0.0.1:{port}/")
        await asyncio.sleep(0.5)
        app = merged.endpoint(run, own=lambda: "# TYPE tulle_own gauge\ntulle_own 7\n")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://tulle") as client:
            answer = await client.get("/stats/prometheus")
    found = list(exposition.samples(answer.text))
    (requests,) = [one for one in found if one.name == "istio_requests_total"]
    assert requests.labels["pod"] == "reviews-v1-0"
    assert requests.labels["namespace"] == "default"
    assert requests.labels["destination_service"] == "reviews.default.svc.cluster.local"
    assert requests.labels["connection_security_policy"] == "none"
    assert {one.name for one in found} >= {"tulle_own", "up", "istio_request_bytes_count", "envoy_server_live"}
    assert len({(one.name, frozenset(one.labels.items())) for one in found}) == len(found)


async def test_prometheus_reads_at_the_proxy_what_tulle_reads_at_the_admin_interface(tmp_path: Path) -> None:
    forms = {"accept": "application/vnd.google.protobuf;q=0.9,text/plain;q=0.1", "accept-encoding": "gzip"}
    with proxy(tmp_path) as (admin, port, _, metrics):
        run = run_dir_of(tmp_path, admin)
        async with httpx.AsyncClient() as client:
            for number in range(60):  # many series: the answer comes in pieces
                await client.get(f"http://127.0.0.1:{port}/{number}", headers={"content-type": "application/grpc"})
                await client.get(f"http://127.0.0.1:{port}/status/{210 + number}")
            await asyncio.sleep(0.5)
            answer = await client.get(f"http://127.0.0.1:{metrics}/stats/prometheus?usedonly", headers=forms)
            await client.post(f"http://127.0.0.1:{metrics}/stats/prometheus")
        (ours,) = await merged.scrape(merged.sidecars(run))
    assert "text/plain" in answer.headers["content-type"]
    found = {(one.name, frozenset(one.labels.items())) for one in exposition.samples(answer.text)}
    expected = {(one.name, frozenset(one.labels.items())) for one in exposition.samples(ours.text)}
    assert {one for one in found if one[0].startswith("istio")} == {
        one for one in expected if one[0].startswith("istio")
    }
    assert len([name for name, _ in found if name == "istio_requests_total"]) > 10
    assert "tulle_istio" not in answer.text
    kinds = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE istio")}
    assert kinds == {line.split()[2] for line in ours.text.splitlines() if line.startswith("# TYPE istio")}


async def test_log_lines_name_the_policy_and_the_rule(tmp_path: Path) -> None:
    with proxy(tmp_path, logs_all=True) as (_, port, log, _metrics):
        async with httpx.AsyncClient() as client:
            await client.get(f"http://127.0.0.1:{port}/fine")
            refused = await client.get(f"http://127.0.0.1:{port}/secret/plans")
        assert refused.status_code == 403
        deadline = time.monotonic() + 5
        while len(log.read_text().splitlines()) < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        fine, denied = [access_log.entry(line) for line in log.read_text().splitlines()]
    assert fine is not None
    assert denied is not None
    assert access_log.verdict(fine) is access_log.Verdict.ALLOWED
    assert access_log.rule(denied) == access_log.Rule("default", "no-secrets", 2)
    assert "DENIED (policy default/no-secrets rule 2)" in access_log.rendered(denied)
    assert "GET" in access_log.rendered(fine)
    assert denied.response_code == 403


async def test_by_default_failures_and_refusals_are_logged_and_nothing_else(tmp_path: Path) -> None:
    grpc = {"content-type": "application/grpc"}
    with proxy(tmp_path) as (_, port, log, _metrics):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for path in ("/fine", "/bad", "/fine", "/secret/plans", "/fine"):
                await client.get(path)
            refused = await client.post("/secret/call", headers=grpc)
        assert (refused.status_code, refused.headers["grpc-status"]) == (200, "7")
        deadline = time.monotonic() + 5
        while len(log.read_text().splitlines()) < 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        found = [access_log.entry(line) for line in log.read_text().splitlines()]
    assert [(one.path, access_log.verdict(one)) for one in found if one] == [
        ("/bad", access_log.Verdict.ALLOWED),
        ("/secret/plans", access_log.Verdict.DENIED),
        ("/secret/call", access_log.Verdict.DENIED),
    ]


async def test_a_sidecar_that_does_not_answer_is_down(tmp_path: Path) -> None:
    (tmp_path / "gone.sock").touch()
    run = run_dir_of(tmp_path, tmp_path / "gone.sock")
    (one,) = await merged.scrape(merged.sidecars(run))
    assert one.failure
    assert 'up{pod="reviews-v1-0",namespace="default"} 0' in merged.merged([one])
