"""Who gets in: STRICT, trust domains, default-deny, named denials, and what a forged peer header is worth."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import new_ca, signed_leaf
from local_mesh import LocalMesh
from shapes import INGRESS, account, client, ingress, manifest, namespace, web

pytestmark = pytest.mark.mesh

POLICIES = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: vault}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: vault}
spec: {}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: friends, namespace: vault}
spec:
  selector: {matchLabels: {app: safe}}
  action: ALLOW
  rules:
  - from:
    - source: {principals: ["cluster.local/ns/people/sa/friend", "cluster.local/ns/istio-system/sa/istio-ingressgateway"]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: vault}
spec:
  selector: {matchLabels: {app: safe}}
  action: DENY
  rules:
  - to:
    - operation: {paths: ["/nothing"]}
  - to:
    - operation: {paths: ["/secret*"]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open-no-secrets, namespace: lobby}
spec:
  action: DENY
  rules:
  - to:
    - operation: {paths: ["/secret*"]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: vault}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["safe.example.test"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: vault}
spec:
  gateways: [front]
  hosts: ["safe.example.test"]
  http:
  - route:
    - destination: {host: safe}
"""
FRIEND = "spiffe://cluster.local/ns/people/sa/friend"
STRANGER = "spiffe://cluster.local/ns/people/sa/stranger"
SAFE = "spiffe://cluster.local/ns/vault/sa/safe"
DENIED_BY = "x-tulle-denied-by"


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    objects = [
        *ingress(),
        namespace("vault"),
        namespace("lobby"),
        namespace("people"),
        namespace("street", inject=False),
        account("safe", "vault"),
        account("friend", "people"),
        account("stranger", "people"),
        *web("safe", "vault", runs_as="safe"),
        *web("other", "vault"),
        *web("desk", "lobby"),
        client("friend", "people", runs_as="friend"),
        client("stranger", "people", runs_as="stranger"),
        client("passer-by", "street", inject=False),
    ]
    with LocalMesh(manifest(*objects), POLICIES) as mesh:
        yield mesh


def roots(mesh: LocalMesh) -> tuple[bytes, bytes]:
    """Certificate and key of the mesh's CA: the tests own the state directory, workloads never see it."""
    (index,) = (mesh.installed.place / "state" / "tulle" / mesh.name).rglob("roots.json")
    active = next(root for root in json.loads(index.read_text())["roots"] if root["state"] == "active")
    found = index.parent / active["fingerprint"]
    return Path(f"{found}.crt").read_bytes(), Path(f"{found}.key").read_bytes()


def insider(mesh: LocalMesh, identity: str) -> str:
    """A leaf of the mesh's own authority and its key, in one file where clients see it."""
    pem = signed_leaf(*roots(mesh), identity)
    return f"/control/{mesh.installed.file_for_user(mesh.control / 'insider.pem', pem).name}"


def come_with(mesh: LocalMesh, name: str, pem: bytes) -> dict[str, Any]:
    """A request straight to the inbound port of `safe` from outside the mesh, over TLS with that client certificate."""
    path = mesh.installed.file_for_user(mesh.control / f"{name}.pem", pem)
    inside = f"/control/{path.name}"
    return mesh.client("passer-by").ask(
        "http",
        host=mesh.address("safe", "vault"),
        port=8000,
        tls=True,
        sni="outbound_.80_._.safe.vault.svc.cluster.local",
        alpn=["istio-http/1.1", "http/1.1"],
        certificate=inside,
        key=inside,
        fresh=True,
        timeout=5,
    )


def test_strict_refuses_plaintext_and_foreign_certificates(mesh: LocalMesh) -> None:
    """The positive case first: the very same call succeeds with a certificate of the mesh."""
    root = roots(mesh)
    known = come_with(mesh, "friend", signed_leaf(*root, FRIEND))
    assert known["counts"] == {"200 v1": 1}, known
    domain = come_with(mesh, "domain", signed_leaf(*root, "spiffe://other.example/ns/people/sa/friend"))
    assert not any(outcome.startswith("200") for outcome in domain["counts"]), domain
    assert mesh.logged_with("safe", "SAN_matcher", "vault")["downstream_peer"] in (
        None,
        "-",
        "spiffe://other.example/ns/people/sa/friend",
    )
    stranger = come_with(mesh, "ca", signed_leaf(*new_ca("nobody", "cluster.local"), FRIEND))
    assert not any(outcome.startswith("200") for outcome in stranger["counts"]), stranger
    assert mesh.logged_with("safe", "CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_X509", "vault")
    plain = mesh.client("passer-by").http("safe.vault", n=5, fresh=True)
    assert plain.only("reset"), plain.counts
    assert mesh.logged("safe", "vault", response_code_details="filter_chain_not_found")["response_flags"] == "NR"


def test_default_deny_and_the_name_of_what_denied(mesh: LocalMesh) -> None:
    friend, stranger = mesh.client("friend"), mesh.client("stranger")
    allowed = friend.http("safe.vault", n=5)
    assert allowed.only("200 v1"), allowed.counts
    other = friend.http("other.vault")
    assert other.only("403"), other.counts
    assert mesh.logged("other", "vault", response_code=403)["downstream_peer"] == FRIEND
    denied = stranger.http("safe.vault")
    assert denied.only("403"), denied.counts
    log = mesh.logged("safe", "vault", response_code=403, downstream_peer=STRANGER)
    assert log["verdict"] == "denied"
    assert log["response_code_details"] == "rbac_access_denied_matched_policy[none]"
    by_rule = friend.http("safe.vault", path="/secret/1")
    assert by_rule.only("403"), by_rule.counts
    log = mesh.logged("safe", "vault", response_code=403, path="/secret/1", downstream_peer=FRIEND)
    assert "vault" in log["response_code_details"]
    assert "no-secrets" in log["response_code_details"]
    assert log["response_code_details"].endswith("[1]]") or "1" in log["policy"]
    named = by_rule.first["headers"][DENIED_BY]
    assert "no-secrets" in named


def test_plaintext_callers_and_the_ingress_are_not_told(mesh: LocalMesh) -> None:
    plain = mesh.client("passer-by").http("desk.lobby", path="/secret")
    assert plain.only("403"), plain.counts
    ingress = mesh.outside.http("127.0.0.1", mesh.gateway(80), "/secret", authority="safe.example.test")
    assert ingress.only("403"), ingress.counts
    for answer in (plain.first, ingress.first):
        assert DENIED_BY not in answer["headers"]
        assert "no-secrets" not in json.dumps(answer), answer
    assert "no-secrets" in mesh.logged("desk", "lobby", response_code=403)["response_code_details"]
    fine = mesh.outside.http("127.0.0.1", mesh.gateway(80), "/", authority="safe.example.test")
    assert fine.only("200 v1"), fine.counts
    assert mesh.logged("safe", "vault", response_code=403, authority="safe.example.test")["downstream_peer"].endswith(
        f"/ns/{INGRESS[0]}/sa/{INGRESS[1]}"
    )


SOURCE_SIDE = {
    "source_workload": "friend",
    "source_workload_namespace": "people",
    "source_app": "friend",
    "source_version": "v1",
    "source_canonical_service": "friend",
    "source_canonical_revision": "v1",
    "source_cluster": "Kubernetes",
    "source_principal": FRIEND,
}
TARGET_SIDE = {
    "destination_workload": "safe-v1",
    "destination_workload_namespace": "vault",
    "destination_app": "safe",
    "destination_version": "v1",
    "destination_canonical_service": "safe",
    "destination_canonical_revision": "v1",
    "destination_cluster": "Kubernetes",
    "destination_principal": SAFE,
    "destination_service": "safe.vault.svc.cluster.local",
    "destination_service_name": "safe",
    "destination_service_namespace": "vault",
}
EXCHANGE = {"request_protocol": "http", "response_code": "200", "grpc_response_status": "", "response_flags": "-"}


def test_labels_are_exact_at_both_reporters(mesh: LocalMesh) -> None:
    """Every label of Istio's `istio_requests_total`, none more; a header the application forges changes nothing."""
    friend = mesh.client("friend")
    expected = {
        ("friend", "people"): {
            "reporter": "source",
            **SOURCE_SIDE,
            **TARGET_SIDE,
            **EXCHANGE,
            "connection_security_policy": "mutual_tls",
        },
        ("safe", "vault"): {
            "reporter": "destination",
            **SOURCE_SIDE,
            **TARGET_SIDE,
            **EXCHANGE,
            "connection_security_policy": "mutual_tls",
        },
    }

    def count(where: tuple[str, str], labels: dict[str, str]) -> float:
        return sum(value for found, value in mesh.metrics(*where) if found == labels)

    before = {where: count(where, labels) for where, labels in expected.items()}
    forged = {"x-tulle-peer": f"{FRIEND};workload=forged;namespace=forged;app=forged;version=forged;"}
    answer = friend.http("safe.vault", n=7, headers=forged)
    assert answer.only("200 v1"), answer.counts
    assert "x-tulle-peer" not in answer.first["body"]["headers"]
    for where, labels in expected.items():
        found = [found for found, _ in mesh.metrics(*where)]
        assert count(where, labels) - before[where] == 7, (labels, found)
    for where in (("friend", "people"), ("safe", "vault")):
        assert not [found for found, _ in mesh.metrics(*where) if "forged" in found.values()]


def test_a_peer_header_over_plaintext_counts_for_nothing(mesh: LocalMesh) -> None:
    forged = {"x-tulle-peer": f"{FRIEND};workload=friend;namespace=people;app=friend;version=v1;"}
    answer = mesh.client("passer-by").http("desk.lobby", headers=forged)
    assert answer.only("200 v1"), answer.counts
    assert "x-tulle-peer" not in answer.first["body"]["headers"]
    found = [labels for labels, _ in mesh.metrics("desk", "lobby") if labels["response_code"] == "200"]
    assert found
    for labels in found:
        assert labels["connection_security_policy"] == "none"
        assert {labels[name] for name in SOURCE_SIDE} == {"unknown"}, labels
