"""A hostile workload in a real mesh: everything it tries comes to nothing, and for the reason that is claimed.

One mesh: a vault that only its friend may open, a board that everybody may read, an intruder with a sidecar, an outlaw
without one. The table is printed; `what stops it` is asserted by the outcome and, where the kernel is not the one who says
no, by the vault's own log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hostile_mesh import FORGED, NS, TREASURE, HostileMesh

pytestmark = [pytest.mark.mesh, pytest.mark.envoy]

ABSENT = r"No such file or directory( \(\d+\))?"
DENIED = "Operation not permitted"
CLOSED = "Connection reset by peer|Remote end closed connection without response|Connection refused|EOF occurred.*"
UNSEEN = "not in its mount namespace"
OTHER_NETWORK = "abstract and loopback sockets belong to another network namespace"
OTHER_PIDS = "own pid namespace"
NO_CAPABILITY = "no capability over the fabric's user namespace"
STRICT = "STRICT: the vault's sidecar has no plaintext chain"
POLICY = "the vault's AuthorizationPolicy: its identity is the intruder's"
CERTIFICATE = "the vault's sidecar verifies certificates against the mesh's roots"
ONE_PATH = "the port serves one exact path"
NO_WAY_OUT = "the filter lets TCP and DNS out, nothing else"
READ_ONLY = "read-only mount"

Claim = tuple[str, str]
CLAIMS: dict[str, Claim] = {
    "CA key": (ABSENT, UNSEEN),
    "state directory": (ABSENT, UNSEEN),
    "run directory": (ABSENT, UNSEEN),
    "files of other pods": (ABSENT, UNSEEN),
    "logs of other pods": (ABSENT, UNSEEN),
    "Secret of another pod": (ABSENT, UNSEEN),
    "Secret in the manifests": (ABSENT, "manifests are left out of the folder that workloads see"),
    "write a manifest": ("Read-only file system", READ_ONLY),
    "shadow": ("empty|Permission denied", "files that only root may read are covered"),
    "control plane's admin socket": (ABSENT, UNSEEN),
    "supervisor's socket": (ABSENT, UNSEEN),
    "another sidecar's xDS socket": (ABSENT, UNSEEN),
    "its own sidecar's xDS socket": (ABSENT, UNSEEN),
    "Envoy's admin sockets": (ABSENT, UNSEEN),
    "sockets of the edge": (ABSENT, UNSEEN),
    "named host socket": (ABSENT, UNSEEN),
    "path-name host socket": (ABSENT, UNSEEN),
    "abstract host socket": ("Connection refused", OTHER_NETWORK),
    "abstract sockets of its network": ("no abstract socket in sight.*", "sidecars open none"),
    "host's loopback": ("Connection refused", OTHER_NETWORK),
    "control plane's TCP ports": (r"Connection refused \(2\)", OTHER_NETWORK),
    "control plane's TCP ports, by the bridge": (rf"(({CLOSED})( \(2\))?(, )?)+", OTHER_NETWORK),
    "processes in sight": ("only itself and its reaper in sight", OTHER_PIDS),
    "memory of its sidecar": (r"No such file or directory \(\d+\), Permission denied", OTHER_PIDS),
    "ptrace of its sidecar": (rf"No such process \(\d+\), {DENIED}", OTHER_PIDS),
    "process_vm_readv of its sidecar": (rf"No such process \(\d+\), {DENIED}", OTHER_PIDS),
    "pidfd of its sidecar": ("No such process", OTHER_PIDS),
    "kill its sidecar": ("No such process", OTHER_PIDS),
    "ptrace by the host's pid": ("No such process", OTHER_PIDS),
    "kill by the host's pid": ("No such process", OTHER_PIDS),
    "ptrace the reaper": (DENIED, NO_CAPABILITY),
    "memory of the reaper": ("Permission denied", NO_CAPABILITY),
    "root of the reaper": ("Permission denied", NO_CAPABILITY),
    "network namespace of the reaper": ("Permission denied", NO_CAPABILITY),
    "admin of its sidecar by TCP": ("Connection refused", "Envoy's admin is on a Unix socket"),
    "more than metrics of its sidecar": ("404", ONE_PATH),
    "more than readiness of its sidecar": ("404", ONE_PATH),
    "raw socket": (DENIED, NO_CAPABILITY),
    "packet socket": (DENIED, NO_CAPABILITY),
    "ping socket": ("Permission denied", "no group may ping"),
    "flush the rules": (DENIED, NO_CAPABILITY),
    "take the link down": (DENIED, NO_CAPABILITY),
    "mark of the sidecar": (DENIED, NO_CAPABILITY),
    "repair mode of TCP": (DENIED, NO_CAPABILITY),
    "source routing": (DENIED, NO_CAPABILITY),
    "user namespace": ("No space left on device", "no user namespaces in a sandbox"),
    "mount namespace": (DENIED, NO_CAPABILITY),
    "mount": (DENIED, NO_CAPABILITY),
    "become root": ("Invalid argument", "one user is mapped"),
    "sysctl": ("Read-only file system", READ_ONLY),
    "device node": (DENIED, NO_CAPABILITY),
    "udp to a peer": (DENIED, NO_WAY_OUT),
    "udp to the world": (DENIED, NO_WAY_OUT),
    "udp to the gateway": (DENIED, NO_WAY_OUT),
    "UDP-Lite": (DENIED, NO_WAY_OUT),
    "SCTP": (f"Protocol not supported|{DENIED}", NO_WAY_OUT),
    "broadcast": (DENIED, NO_WAY_OUT),
    "multicast": (DENIED, NO_WAY_OUT),
    "ipv6 to the world": ("Network is unreachable", "IPv6 is off"),
    "ipv6 on the link": ("Network is unreachable", "IPv6 is off"),
    "TCP over IPv6": ("Network is unreachable", "IPv6 is off"),
    "IPv6 switched on": ("Read-only file system", READ_ONLY),
    "address of the sidecar": ("Invalid argument", "the loopback's addresses stay on the loopback"),
    "address of another pod": ("Network is unreachable", "no route from an address that is not its own"),
    "bound to the link": ("timed out", "captured all the same, and the sidecar is not on that link"),
    "from the sidecar's port": ("503 .*", STRICT),
    "pod address of the vault": ("503 .*", STRICT),
    "pod address of the vault, by its name": ("403 RBAC: access denied.*", POLICY),
    "address of the board, name of the vault": ("403 RBAC: access denied.*", POLICY),
    "service address of the vault": ("403 RBAC: access denied.*", POLICY),
    "name of the vault": ("403 RBAC: access denied.*", POLICY),
    "IPv4 in IPv6": ("0 HTTP/1.1 403 Forbidden", POLICY),
    "undeclared port of the vault": (CLOSED, STRICT),
    "vault's outbound port": (CLOSED, "led to the inbound port, which has no chain for it"),
    "vault's inbound port": (CLOSED, "a black hole: nobody is asked for by that port"),
    "vault's HBONE port": (CLOSED, "nobody listens"),
    "vault's merged port": (CLOSED, "nobody listens"),
    "vault's metrics port, other paths": ("404", ONE_PATH),
    "vault's readiness port, other paths": ("404", ONE_PATH),
    "sidecar's outbound port itself": (CLOSED, "a black hole: a connection to it was never redirected"),
    "sidecar's inbound port itself": (CLOSED, "a black hole: a connection to it was never redirected"),
    "self-made certificate, HTTP port": (
        ".*WRONG_VERSION_NUMBER.*",
        "its own sidecar reads HTTP there, and that is none",
    ),
    "self-made certificate, other port": (".*UNKNOWN_CA.*|EOF .*", CERTIFICATE),
    "TLS without a certificate": (".*CERTIFICATE_REQUIRED.*|EOF .*", CERTIFICATE),
    "forged peer header": ("the server saw no such header", "overwritten by its own sidecar, taken off by the board's"),
    "forged client certificate header": (
        r"the server saw (no such header|By=spiffe://cluster\.local/ns/hostile/sa/board;.*)",
        "taken off by its own sidecar; the board's writes its own",
    ),
    "rerouting headers": ("200 .*", "no cluster obeys them: the board answered"),
    "no sidecar: plain HTTP": (CLOSED, STRICT),
    "no sidecar: plain HTTP, service address": (CLOSED, STRICT),
    "no sidecar: plain HTTP, forged peer": (CLOSED, STRICT),
    "no sidecar: undeclared port": (CLOSED, STRICT),
    "no sidecar: inbound port": (CLOSED, "a black hole: nobody is asked for by that port"),
    "no sidecar: inbound port, TLS": (CLOSED, "a black hole: nobody is asked for by that port"),
    "no sidecar: outbound port": (CLOSED, "led to the inbound port, which has no chain for it"),
    "no sidecar: HBONE port": (CLOSED, "nobody listens"),
    "no sidecar: metrics port, other paths": ("404", ONE_PATH),
    "no sidecar: mark of a sidecar": (DENIED, NO_CAPABILITY),
    "no sidecar: UDP": (DENIED, NO_WAY_OUT),
    "no sidecar: TLS without a certificate": (f".*CERTIFICATE_REQUIRED.*|{CLOSED}", CERTIFICATE),
    **{
        f"no sidecar: self-made certificate, {offer}": (f".*UNKNOWN_CA.*|{CLOSED}", CERTIFICATE)
        for offer in ("HTTP/1", "HTTP/2", "TCP", "other TLS")
    },
}
"""Attempt -> how it must fail (a regular expression), what stops it."""

POSSIBLE: dict[str, Claim] = {
    "its own sidecar's metrics port": ("SUCCEEDED: listens on 15090", "tulle scrapes by the admin socket"),
    "its own sidecar's outbound port": (
        "SUCCEEDED: listens on 15001",
        "it cuts itself off: nothing leaves but by Envoy",
    ),
}
"""What it can do to nobody but itself: sockets of one user share ports of their own pod's network."""


@pytest.fixture(scope="module")
def mesh() -> Iterator[HostileMesh]:
    """The mesh; the intruder waits."""
    with HostileMesh() as found:
        yield found


@pytest.fixture(scope="module")
def outcomes(mesh: HostileMesh) -> dict[str, str]:
    """What became of every attempt; each is made once."""
    return mesh.outcomes()


def test_a_hostile_workload_gets_nowhere(outcomes: dict[str, str]) -> None:
    tried = {name: outcome for name, outcome in outcomes.items() if not name.startswith("control:")}
    claims = {**CLAIMS, **POSSIBLE}
    width = max(map(len, tried))
    print(f"\n{'attempt':<{width}}  {'outcome':<58}  what stops it")
    for name, outcome in tried.items():
        print(f"{name:<{width}}  {outcome[:58]:<58}  {claims.get(name, ('', 'NOBODY CLAIMS IT'))[1]}")
    assert tried.keys() == claims.keys()
    assert not {
        name: outcome for name, outcome in tried.items() if not re.fullmatch(claims[name][0], outcome, re.DOTALL)
    }
    assert not [name for name in CLAIMS if tried[name].startswith("SUCCEEDED") or TREASURE in tried[name]]


def test_it_may_do_what_it_should(outcomes: dict[str, str]) -> None:
    """A broken sandbox would pass the table: these must work, before the attempts and after them."""
    expected = {
        "an allowed request": "200",
        "by pod address": "200",
        "names": "True",
        "its own Secret": "its own word",
        "its own volume": "1",
        "scratch": "1",
        "a peer's metrics": "200",
        "a peer's readiness": "200",
    }
    wanted = {f"control: {name}": f"SUCCEEDED: {value}" for name, value in expected.items()}
    wanted |= {f"{name}, afterwards": value for name, value in wanted.items()}
    wanted["control: no sidecar, a peer's readiness"] = "SUCCEEDED: 200"
    assert {name: outcome for name, outcome in outcomes.items() if name.startswith("control:")} == wanted


@pytest.mark.usefixtures("outcomes")
def test_the_vault_opens_to_its_friend(mesh: HostileMesh) -> None:
    """By the same way that the intruder tried, after all its attempts."""
    answer = mesh.client("friend").http("vault", 8080, keep=1)
    assert answer.only("200"), dict(answer.counts)
    assert TREASURE in str(answer.first)


@pytest.mark.usefixtures("outcomes")
def test_the_vault_s_log_says_why(mesh: HostileMesh) -> None:
    intruder = f"spiffe://cluster.local/ns/{NS}/sa/intruder"
    mesh.logged("vault", NS, downstream_peer=intruder, response_code=403, verdict="denied")
    mesh.logged("vault", NS, response_code_details="filter_chain_not_found")
    friend = f"spiffe://cluster.local/ns/{NS}/sa/friend"
    deadline = time.monotonic() + 10
    while True:  # Envoy writes its log once a second
        lines = mesh.log("vault", NS)
        claimed = [line for line in lines if line.get("downstream_peer") == friend]
        refused = [one for one in claimed if "VERIFY_FAILED" in (one["downstream_transport_failure_reason"] or "")]
        if len(refused) >= 5:  # four offers of the outlaw, one of the intruder
            break
        assert time.monotonic() < deadline, lines
        time.sleep(0.2)
    assert not [line for line in lines if line.get("downstream_peer") == intruder and line.get("response_code") == 200]


@pytest.mark.usefixtures("outcomes")
def test_nobody_believes_a_forged_header(mesh: HostileMesh) -> None:
    """It claimed to be somebody else, with its own true principal, at the board: metrics and logs know better."""
    sources = {
        labels["source_workload"] for labels, _ in mesh.metrics("board", NS) if labels["reporter"] == "destination"
    }
    assert sources == {"intruder"}
    assert FORGED not in mesh.admin("board", "/stats/prometheus?usedonly", NS)
    assert FORGED not in str(mesh.log("board", NS))
    assert FORGED not in str(mesh.log("vault", NS))
