"""Case 08 (STRICT everywhere but for one workload) and the annotation that asks for a sidecar."""

from collections.abc import Iterator

import pytest
from case_sets import Cases
from local_mesh import LocalMesh
from shapes import account, client, echo, manifest, namespace, port, service

pytestmark = pytest.mark.mesh


@pytest.fixture(scope="module")
def mesh(cases: Cases) -> Iterator[LocalMesh]:
    ns, app = cases.permissive_namespace, cases.permissive
    objects = [
        namespace(ns),
        namespace("callers"),
        namespace("unlabelled", inject=False),
        account("caller", "callers"),
        echo(app, ns, app, http=8000),
        service(app, ns, {"app": app}, port("http", 80, 8000)),
        echo("other", ns, "other", http=8000),
        service("other", ns, {"app": "other"}, port("http", 80, 8000)),
        client("caller", "callers", runs_as="caller"),
        client("outsider", "unlabelled", inject=False),
    ]
    annotated = echo("annotated", "unlabelled", "annotated", http=8000)
    annotated["spec"]["template"]["metadata"]["annotations"] = {"sidecar.istio.io/inject": "true"}
    bare = echo("bare", "unlabelled", "bare", http=8000)
    objects += [
        annotated,
        service("annotated", "unlabelled", {"app": "annotated"}, port("http", 80, 8000)),
        bare,
        service("bare", "unlabelled", {"app": "bare"}, port("http", 80, 8000)),
    ]
    with LocalMesh(manifest(*objects)) as mesh:
        mesh.apply(cases.path("printed/08"))
        yield mesh


def test_08_plaintext_is_refused_everywhere_else(mesh: LocalMesh, cases: Cases) -> None:
    ns, app = cases.permissive_namespace, cases.permissive
    outsider, caller = mesh.client("outsider"), mesh.client("caller")
    accepted = outsider.http(f"{app}.{ns}", n=20, fresh=True)
    assert accepted.only(f"200 {app}"), accepted.counts
    for host, at in ((f"other.{ns}", 80), (mesh.address("other", ns), 8000), ("annotated.unlabelled", 80)):
        refused = outsider.http(host, at, n=5, fresh=True)
        assert refused.only("reset"), (host, refused.counts)
    log = mesh.logged("other", ns, response_code_details="filter_chain_not_found")
    assert log["response_flags"] == "NR"
    for name, where in ((app, ns), ("other", ns), ("annotated", "unlabelled")):
        found = caller.http(f"{name}.{where}", n=5)
        assert found.only(f"200 {name}"), (name, found.counts)
        log = mesh.logged(
            name, where, reporter="destination", downstream_peer="spiffe://cluster.local/ns/callers/sa/caller"
        )
        assert log["response_flags"] in (None, "-"), log  # a sidecar that relays logs the connection, not the request


def test_the_annotation_injects_without_a_label(mesh: LocalMesh, cases: Cases) -> None:
    (annotated,), (bare,) = mesh.pods_of("annotated", "unlabelled"), mesh.pods_of("bare", "unlabelled")
    assert annotated["metadata"]["annotations"]["tulle.dev/sidecar"] == "true"
    assert bare["metadata"]["annotations"]["tulle.dev/sidecar"] == "false"
    assert "virtualInbound" in mesh.admin("annotated", "/listeners", "unlabelled")
    found = mesh.client("outsider").http("bare.unlabelled")
    assert found.only("200 bare"), found.counts
