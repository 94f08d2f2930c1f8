"""What a series says, whoever wrote it."""

import pytest

from tulle.compile.envoy import series

FRIEND, SAFE = "spiffe://cluster.local/ns/people/sa/friend", "spiffe://cluster.local/ns/vault/sa/safe"
OWN = f"{SAFE};safe-v1;vault;safe;v1;safe;v1;Kubernetes"
PEER = f"{FRIEND};friend;people;friend;v2;friend;v2;Kubernetes"
SERVICE = "mutual_tls;safe.vault.svc.cluster.local;safe;vault"


def test_both_reporters_say_the_same_of_both_sides() -> None:
    there = series.labels(f"d|http|200|-||{FRIEND}|{SERVICE}|{OWN}|{PEER}")
    here = series.labels(f"s|http|200|-||{SAFE}|{SERVICE}|{PEER}|{OWN.partition(';')[2]}")
    assert there | {"reporter": "source"} == here
    assert there["source_workload"] == "friend"
    assert there["destination_canonical_service"] == "safe"
    assert (there["source_principal"], there["destination_principal"]) == (FRIEND, SAFE)


@pytest.mark.parametrize("claimed", ["", PEER, f"{SAFE}x;forged;a;b;c;d;e;f", "|||||;forged|s|http"])
def test_a_peer_that_its_certificate_does_not_prove_is_unknown(claimed: str) -> None:
    principal = "spiffe://cluster.local/ns/people/sa/stranger"
    found = series.labels(f"d|http|200|-||{principal}|{SERVICE}|{OWN}|{claimed}")
    assert {value for label, value in found.items() if label.startswith("source_")} == {principal, "unknown"}
    assert found["destination_workload"] == "safe-v1"


def test_connections_have_no_codes_and_strangers_no_names() -> None:
    found = series.labels(f"d|tcp||UF|||none;|{OWN}|")
    assert "response_code" not in found
    assert "grpc_response_status" not in found
    assert (found["response_flags"], found["request_protocol"]) == ("UF", "tcp")
    assert found["destination_service"] == found["source_workload"] == found["destination_principal"] == "unknown"


def test_a_value_cannot_leave_its_label() -> None:
    forged = r"x\",workload=\"forged\"} 99\nistio_requests_total{reporter=\"source"
    raw = f'envoy_tulle_istio_requests_total{{m="d|http|200|-||p|{SERVICE}|{OWN}|{forged}"}} 1\n'
    (line,) = series.expanded(raw).splitlines()
    assert line.startswith("istio_requests_total{")
    assert line.endswith("} 1")
    assert "forged" not in line
