"""The fabric with the real kernel and a real Envoy, as root and as an ordinary user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[[str], dict[str, Any]]
pytestmark = pytest.mark.envoy

A_MEANT_B = "out 10.244.0.11:9080"


def test_this_machine_is_found_fit(run: Run) -> None:
    assert run("support") == {"has fabric": True, "failed": []}


def test_packets_go_where_istio_sends_them(run: Run) -> None:
    facts = run("capture")
    assert facts["a -> b is caught on its way out"] == A_MEANT_B
    assert facts["a -> outside is caught on its way out"] == "out 192.0.2.1:443"
    assert facts["a -> its own address"] == "ConnectionRefusedError"
    assert facts["c -> b passes b's sidecar"] == "b called by 127.0.0.6"


def test_the_outbound_port_is_closed_to_peers(run: Run) -> None:
    # Somebody does listen there; the redirection to the inbound port, where nobody does, refuses.
    assert run("capture")["c -> a's outbound port goes to the inbound one"] == "ConnectionRefusedError"


def test_tcp_out_of_the_mesh_reaches_the_edge(run: Run) -> None:
    assert run("capture")["c -> outside goes to the edge"] == "edge 192.0.2.1:443"


def test_service_addresses_without_a_sidecar(run: Run) -> None:
    facts = run("capture")
    assert facts["c -> vip without rules"] == "ConnectionRefusedError"
    assert facts["c -> vip"] == ["b called by 127.0.0.6", "c called by 10.244.0.12"]
    assert facts["c -> vip removed"] == "ConnectionRefusedError"


def test_a_request_passes_two_envoys(run: Run) -> None:
    assert run("envoys")["a -> b"] == "b called by 127.0.0.6"


def test_a_sidecar_has_two_capabilities(run: Run) -> None:
    capabilities = run("envoys")["capabilities"]
    assert capabilities.pop("NoNewPrivs") == "1"
    assert {int(value, 16) for value in capabilities.values()} == {1 << 10 | 1 << 12}


def test_a_sidecar_sees_its_own_directory_only(run: Run) -> None:
    assert run("sidecars") == {
        "processes": ["1", "2"],
        "own socket": "works",
        "mark": "works",
        "low port": "works",
        "raw socket": "Operation not permitted",
        "other sidecar's directory": "No such file or directory",
        "run directory": "No such file or directory",
        "write beside its socket": "Read-only file system",
        "chown": "Invalid argument",
        "mount": "Operation not permitted",
        "core": ["0", "0"],
        "workload runs": True,
    }


FAILURES = {
    "raw socket": "Operation not permitted",
    "packet socket": "Operation not permitted",
    "ping socket": "Permission denied",
    "flush the rules": "Operation not permitted",
    "take the link down": "Operation not permitted",
    "mark of the sidecar": "Operation not permitted",
    "address of the sidecar": "Invalid argument",
    "udp to a peer": "Operation not permitted",
    "udp to the world": "Operation not permitted",
    "udp to the gateway": "Operation not permitted",
    "ipv6 to the world": "Network is unreachable",
    "ipv6 on the link": "Network is unreachable",
    "user namespace": "No space left on device",
    "mount namespace": "Operation not permitted",
    "mount": "Operation not permitted",
    "become root": "Invalid argument",
    "ptrace the reaper": "Operation not permitted",
    "memory of the reaper": "Permission denied",
    "root of the reaper": "Permission denied",
    "network namespace of the reaper": "Permission denied",
    "ptrace by the host's pid": "No such process",
    "kill by the host's pid": "No such process",
    "state directory": "No such file or directory",
    "named host socket": "No such file or directory",
    "abstract host socket": "Connection refused",
    "host's loopback": "Connection refused",
    "hidden directory": "No such file or directory",
    "write a manifest": "Read-only file system",
    "sysctl": "Read-only file system",
    "device node": "Operation not permitted",
}


@pytest.mark.parametrize("attempt", FAILURES)
def test_a_hostile_workload_fails(run: Run, attempt: str) -> None:
    assert run("hostile")[attempt] == FAILURES[attempt]


def test_a_hostile_workload_does_not_read_root_s_files(run: Run) -> None:
    assert run("hostile")["shadow"] in {"empty", "Permission denied"}


def test_the_same_workload_may_do_what_it_should(run: Run) -> None:
    facts = run("hostile")
    assert facts["control: dns"] == "hello"
    assert facts["control: tcp goes to the sidecar"] == A_MEANT_B
    assert facts["control: manifests are visible"] == "kind: Deployment"
    assert facts["control: ipv6 loopback"] == "works"


def test_a_workload_sees_itself_and_its_reaper_only(run: Run) -> None:
    assert run("hostile")["processes in sight"] == "1 2"


def test_ends_are_reported(run: Run) -> None:
    facts = run("lifecycle")
    assert facts["exit code"] == 7
    assert facts["SIGTERM"] == 15
    assert facts["time-out"] == [9, "hello\n"]
    assert facts["host pid"] == "sleep"


def test_starts_that_fail_say_why(run: Run) -> None:
    assert run("lifecycle")["refused"] == {
        "no program": "exec nonesuch: No such file or directory",
        "no directory": "working directory /nonesuch: No such file or directory",
        "no source": "bind source /nonesuch: No such file or directory",
        "no pod": "no pod 'z'",
    }


def test_a_probe_joins_its_workload(run: Run) -> None:
    assert run("lifecycle")["probe sees the workload"]


def test_a_sandbox_ends_with_its_first_process(run: Run) -> None:
    facts = run("lifecycle")
    assert facts["daemon"] == "left"
    assert facts["left over"] == 0


def test_a_pod_takes_its_processes_along(run: Run) -> None:
    facts = run("lifecycle")
    assert facts["ended with their pods"] == 24
    assert facts["pods"] == ["a"]


def test_twelve_pods_take_less_than_a_second(run: Run) -> None:
    # Measured: 0.04 s for the pods, 0.35 s with two processes each, on two cores.
    facts = run("lifecycle")
    assert facts["12 pods seconds"] < 0.5
    assert facts["12 pods with 24 processes seconds"] < 1.5


def test_binds_show_what_was_asked(run: Run) -> None:
    facts = run("files")
    assert facts["id"] == [4242, 4242]
    assert facts["resolv.conf"] == "nameserver 10.244.0.1\n"
    assert facts["hosts"] == "127.0.0.1 localhost\n"
    assert facts["volume"] == "written"
    assert facts["written on the host"] == "mine"
    assert facts["owner on the host"]
    assert facts["read-only views"] == ["mine", "mine"]
    assert facts["still there"] == [True, True, True]
    assert facts["scratch"] == ["written"] * 5


def test_everything_else_is_read_only(run: Run) -> None:
    refused = run("files")["refused"]
    assert set(refused.values()) <= {"Read-only file system", "No such file or directory", "Permission denied"}
    assert refused["/proc/sys/kernel/core_pattern"] == "Read-only file system"


def test_nothing_survives_a_killed_supervisor(run: Run) -> None:
    facts = run("killed")
    assert facts["before"] >= 8
    assert facts["namespaces"] == 1
    assert facts["left"] == []
    assert facts["inside"] == 0


@pytest.mark.parametrize(
    ("way", "captured"),
    {
        "out: everything": True,
        "out: nothing": False,
        "out: port excluded": False,
        "out: other port excluded": True,
        "out: range excluded": False,
        "out: range not included": False,
        "out: range included": True,
        "out: port included": True,
        "in: everything": True,
        "in: nothing": False,
        "in: port excluded": False,
        "in: port included": True,
        "in: port not included": False,
    }.items(),
)
def test_annotations_choose_what_is_captured(run: Run, way: str, captured: bool) -> None:
    assert (run("options")[way] == "ConnectionRefusedError") == captured


def test_the_supervisor_answers_dns_on_a_passed_socket(run: Run) -> None:
    assert run("supervisor")["dns"] == ["10.244.0.10", "WHO"]


def test_a_start_given_up_leaves_no_process(run: Run) -> None:
    assert run("supervisor")["given up"] == 0


def test_two_meshes_with_the_same_addresses(run: Run) -> None:
    assert run("supervisor")["meshes"] == "are strangers"


def test_a_masked_proc_is_reported_and_done_without(run: Run) -> None:
    facts = run("masked")
    assert len(facts["notes"]) == 1
    assert facts["notes"][0].startswith("mount proc on /proc: Operation not permitted")
    assert facts["new"] == "[] 2 1000"
    assert facts["joined"] == "[] 3 1000"


def test_a_killed_fabric_is_noticed(run: Run) -> None:
    assert run("lost") == {"process": 9, "refused": "the fabric is not running"}
