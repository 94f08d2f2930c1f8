"""The telemetry commands about Bookinfo in a real `tulle up`: its bot calls, its stranger is denied."""

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_mesh import LocalMesh

pytestmark = pytest.mark.mesh
BOOKINFO = Path(__file__).parents[2] / "src" / "tulle" / "examples" / "bookinfo"
NS = "bookinfo"


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    with LocalMesh(*sorted(BOOKINFO.glob("*.yaml"))) as made:
        until_called(made)
        yield made


def until_called(mesh: LocalMesh) -> None:
    end = time.monotonic() + 30
    while not asked(mesh, "edges", "-w", "1"):
        assert time.monotonic() < end, "the bot called nobody in 30 s"


def asked(mesh: LocalMesh, *words: str) -> Any:
    return json.loads(mesh.tulle(*words, "-o", "json").stdout)


def test_stat_counts_what_the_bot_does(mesh: LocalMesh) -> None:
    rows = {row["name"]: row for row in asked(mesh, "stat", "deploy", "-n", NS)}
    page = rows["productpage-v1"]
    assert page["requestsPerSecond"] > 1
    assert page["successRate"] > 0.9
    assert 0 < page["latencyMs"]["p50"] <= page["latencyMs"]["p99"]
    assert (page["meshed"], page["pods"]) == (1, 1)
    services = {row["name"]: row for row in asked(mesh, "stat", "svc", "-n", NS)}
    assert services["reviews"]["pods"] == 3
    assert services["reviews"]["requestsPerSecond"] == pytest.approx(services["details"]["requestsPerSecond"], rel=0.5)


def test_edges_name_both_ends_and_their_certificates(mesh: LocalMesh) -> None:
    found = {(one["source"]["workload"], one["destination"]["workload"]): one for one in asked(mesh, "edges")}
    edge = found["productpage-v1", "details-v1"]
    assert edge["secured"]
    assert edge["clientId"] == f"spiffe://cluster.local/ns/{NS}/sa/bookinfo-productpage"
    assert edge["serverId"] == f"spiffe://cluster.local/ns/{NS}/sa/bookinfo-details"
    assert any(source.startswith("reviews-v") and target == "ratings-v1" for source, target in found)
    assert all(one["source"]["workload"] != "unknown" for one in found.values())


def test_the_strangers_denial_is_told_in_words(mesh: LocalMesh) -> None:
    pod = mesh.pod("details", NS)
    end = time.monotonic() + 30
    while True:
        lines = mesh.tulle("logs", "-n", NS, "--proxy", "--words", pod).stdout
        denied = [line for line in lines.splitlines() if "DENIED" in line]
        if denied:
            break
        assert time.monotonic() < end, lines[-2000:]
        time.sleep(0.5)
    assert re.search(r"← GET details:9080/details/\d+ 403 .*DENIED \(no ALLOW policy matched\)", denied[0])
    assert denied[0].endswith(f"from mTLS cluster.local/ns/{NS}/sa/bookinfo-stranger")
    assert "ALLOWED (policy bookinfo/details-viewer rule 0)" in lines


def test_one_endpoint_has_every_sidecars_metrics(mesh: LocalMesh) -> None:
    url = asked(mesh, "version")["controlPlane"]["metrics"]
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    pods = {pod["metadata"]["name"] for pod in mesh.pods()}
    assert set(re.findall(r'^up\{pod="([^"]+)",namespace="[^"]+"\} 1$', text, re.MULTILINE)) == pods
    reporters = set(re.findall(r'^istio_requests_total\{.*?reporter="(\w+)"', text, re.MULTILINE))
    assert reporters == {"source", "destination"}


def test_rows_of_a_gateway_name_their_lines(mesh: LocalMesh) -> None:
    routing = next(path for path in mesh.folder.iterdir() if path.name.endswith("routing.yaml"))
    found = asked(mesh, "explain", "istio-ingressgateway", "route", "http.8080")
    for one in found:
        origin = one["origins"][0]
        assert (origin["file"], origin["name"]) == (str(routing), "bookinfo")
        lines = routing.read_text().splitlines()
        assert lines[origin["line"] - 1].lstrip().startswith("- match")


def test_an_edit_is_live_on_every_proxy(mesh: LocalMesh) -> None:
    said = mesh.apply(BOOKINFO / "edits" / "reviews-v3.yaml").stdout
    assert re.search(r"^live on (\d+) of \1 prox(?:y|ies) in \d+ ms$", said, re.MULTILINE), said
    assert all(
        one["action"]["targets"][0]["cluster"].split("|")[2] == "v3"
        for one in (row["rule"] for row in asked(mesh, "routes", "deploy/productpage-v1", "--host", "reviews"))
    )
