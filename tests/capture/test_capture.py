"""Where connections end up: the real program, the real kernel, a pod's network and users of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from capture_pod import NOBODY, PROXY, SOURCE, TARGET, Pod

pytestmark = pytest.mark.envoy

SIDECAR_OUT = f"15001 {TARGET}:80"
OUTSIDE = f"80 {TARGET}:80"
SIDECAR_IN = f"15006 {SOURCE}:8080"
WORKLOAD_ITSELF = f"8080 {SOURCE}:8080"


def captured(pod: Pod, program: Path, **settings: Any) -> None:
    pod.run(pod.pod, str(program), "init", json.dumps(settings))


def test_without_rules_everybody_is_met_directly(pod: Pod) -> None:
    assert pod.leaving(TARGET, 80) == OUTSIDE
    assert pod.arriving(SOURCE, 8080) == WORKLOAD_ITSELF


def test_everything(pod: Pod, program: Path) -> None:
    captured(pod, program)
    assert pod.leaving(TARGET, 80) == SIDECAR_OUT
    assert pod.leaving(TARGET, 80, PROXY) == OUTSIDE
    assert pod.leaving(SOURCE, 8080) == WORKLOAD_ITSELF, "a workload meets itself"
    assert pod.leaving("127.0.0.1", 8080) == "8080 127.0.0.1:8080"
    assert pod.leaving("127.0.0.1", 8080, PROXY) == "8080 127.0.0.1:8080"
    assert pod.leaving(SOURCE, 8080, PROXY) == SIDECAR_IN, "the sidecar calls its own pod as a peer"
    assert pod.leaving(SOURCE, 8080, PROXY, source="127.0.0.6") == WORKLOAD_ITSELF, "its inbound side hands over"
    assert pod.arriving(SOURCE, 8080) == SIDECAR_IN
    assert pod.arriving(SOURCE, 15021) == f"15021 {SOURCE}:15021"
    assert pod.arriving(SOURCE, 9999) == f"15006 {SOURCE}:9999"


def test_ipv6_is_refused_rather_than_let_past(pod: Pod, program: Path) -> None:
    assert pod.leaving("fd77::1", 80) == "80 fd77::1:80"
    assert pod.arriving("fd77::2", 8080) == "8080 fd77::2:8080"
    captured(pod, program)
    assert pod.leaving("fd77::1", 80) == "ConnectionRefusedError"
    assert pod.arriving("fd77::2", 8080) == "ConnectionRefusedError"
    assert pod.leaving("::1", 8080) == "8080 ::1:8080"
    assert pod.leaving("fd77::1", 80, PROXY) == "80 fd77::1:80"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"excludeOutboundPorts": [80]}, OUTSIDE),
        ({"excludeOutboundPorts": [81]}, SIDECAR_OUT),
        ({"excludeOutboundRanges": ["10.77.0.0/24"]}, OUTSIDE),
        ({"excludeOutboundRanges": ["10.77.0.1/32", "fd00::/8"]}, OUTSIDE),
        ({"excludeOutboundRanges": ["10.78.0.0/15"]}, SIDECAR_OUT),
        ({"includeOutboundRanges": ["10.77.0.0/30"]}, SIDECAR_OUT),
        ({"includeOutboundRanges": ["10.78.0.0/24"]}, OUTSIDE),
        ({"includeOutboundRanges": []}, OUTSIDE),
        ({"includeOutboundRanges": [], "includeOutboundPorts": [80]}, SIDECAR_OUT),
        ({"excludeInterfaces": ["eth0"]}, OUTSIDE),
        ({"excludeInterfaces": ["eth1"]}, SIDECAR_OUT),
        ({"includeInboundPorts": []}, SIDECAR_OUT),
    ],
    ids=str,
)
def test_leaving(settings: dict[str, Any], expected: str, pod: Pod, program: Path) -> None:
    captured(pod, program, **settings)
    assert pod.leaving(TARGET, 80) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"excludeInboundPorts": [8080, 9090]}, WORKLOAD_ITSELF),
        ({"excludeInboundPorts": [9090]}, SIDECAR_IN),
        ({"includeInboundPorts": [8080]}, SIDECAR_IN),
        ({"includeInboundPorts": [9090]}, WORKLOAD_ITSELF),
        ({"includeInboundPorts": []}, WORKLOAD_ITSELF),
        ({"excludeInterfaces": ["eth0"]}, WORKLOAD_ITSELF),
        ({"includeOutboundRanges": []}, SIDECAR_IN),
    ],
    ids=str,
)
def test_arriving(settings: dict[str, Any], expected: str, pod: Pod, program: Path) -> None:
    captured(pod, program, **settings)
    assert pod.arriving(SOURCE, 8080) == expected


def test_a_port_that_is_not_captured_is_no_peer_of_its_own_sidecar(pod: Pod, program: Path) -> None:
    captured(pod, program, excludeInboundPorts=[8080])
    assert pod.leaving(SOURCE, 8080, PROXY) == WORKLOAD_ITSELF


def test_what_arrives_on_a_virtual_machines_link_leaves_the_pod(pod: Pod, program: Path) -> None:
    captured(pod, program, virtualInterfaces=["eth0"])
    pod.run(pod.neighbour, "ip", "route", "add", "10.99.0.0/16", "via", SOURCE)
    assert pod.arriving("10.99.0.1", 80) == "15001 10.99.0.1:80"
    assert pod.arriving(SOURCE, 8080) == WORKLOAD_ITSELF


def test_made_anew_they_are_the_same(pod: Pod, program: Path) -> None:
    captured(pod, program, excludeInboundPorts=[1])
    captured(pod, program)
    once = pod.rules()
    captured(pod, program)
    assert pod.rules() == once
    assert "dport 1 " not in once


@pytest.mark.parametrize(
    "words",
    [
        ["init", "{"],
        ["init", '{"excludeInboundPort": [1]}'],
        ["init", '{"excludeInboundPorts": [70000]}'],
        ["init", '{"excludeOutboundRanges": ["10.0.0.0/40"]}'],
        ["init", '{"excludeInterfaces": ["a-name-of-sixteen"]}'],
        ["init"],
        [],
    ],
    ids=str,
)
def test_what_is_not_understood_makes_no_rules(words: list[str], pod: Pod, program: Path) -> None:
    assert pod.tried(pod.pod, str(program), *words).returncode == 1
    assert pod.rules() == ""


def test_verify_needs_no_right(pod: Pod, program: Path) -> None:
    bare = pod.tried(pod.pod, "kill", "-0", "1")
    assert bare.returncode == 0
    settings = json.dumps({"excludeOutboundPorts": [80, 81]})
    # the sidecar of this pod already listens where verify wants to
    pod.close()
    before = pod.tried(pod.pod, str(program), "verify", settings, user=NOBODY)
    assert before.returncode == 1
    assert "not captured" in before.stderr
    pod.run(pod.pod, str(program), "init", settings)
    assert pod.tried(pod.pod, str(program), "verify", settings, user=NOBODY).returncode == 0


# --- as a CNI plugin -------------------------------------------------------------------------------------------------

RESULT = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.77.0.2/24"}]}


def called(
    program: Path, command: str, namespace: str, annotations: dict[str, str] | None
) -> tuple[int, dict[str, Any] | None]:
    network: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "tulle-capture", "prevResult": RESULT}
    if annotations is not None:
        network["runtimeConfig"] = {"io.kubernetes.cri.pod-annotations": annotations}
    environment = {
        **os.environ,
        "CNI_COMMAND": command,
        "CNI_NETNS": namespace,
        "CNI_CONTAINERID": "x",
        "CNI_IFNAME": "eth0",
    }
    done = subprocess.run(
        [str(program)],
        input=json.dumps(network),
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def test_plugin_captures_the_annotated_pod(pod: Pod, program: Path) -> None:
    own = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert called(program, "ADD", pod.path, {"tulle.dev/capture": '{"excludeInboundPorts": [9090]}'}) == (0, RESULT)
    assert pod.leaving(TARGET, 80) == SIDECAR_OUT
    assert pod.arriving(SOURCE, 8080) == SIDECAR_IN
    assert subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout == own
    assert called(program, "CHECK", pod.path, {"tulle.dev/capture": "{}"}) == (0, None)
    assert called(program, "DEL", "", {"tulle.dev/capture": "{}"}) == (0, None)


@pytest.mark.parametrize("annotations", [None, {}, {"other": "1"}], ids=str)
def test_plugin_leaves_others_alone(annotations: dict[str, str] | None, pod: Pod, program: Path) -> None:
    assert called(program, "ADD", pod.path, annotations) == (0, RESULT)
    assert pod.rules() == ""


def test_plugin_starts_no_pod_that_it_does_not_understand(pod: Pod, program: Path) -> None:
    code, answer = called(program, "ADD", pod.path, {"tulle.dev/capture": '{"allPorts": true}'})
    assert code == 1
    assert answer is not None
    assert (answer["code"], "allPorts" in answer["msg"]) == (100, True)
    assert pod.rules() == ""
    assert called(program, "ADD", "/proc/0/ns/net", {"tulle.dev/capture": "{}"})[0] == 1


def test_plugin_says_its_versions(program: Path) -> None:
    code, answer = called(program, "VERSION", "", None)
    assert code == 0
    assert answer is not None
    assert "1.0.0" in answer["supportedVersions"]


# --- on a node -------------------------------------------------------------------------------------------------------

BRIDGE = {"type": "bridge", "bridge": "cni0"}


def test_install_keeps_the_plugin_last_and_takes_it_away(program: Path, tmp_path: Path) -> None:
    programs, networks = tmp_path / "bin", tmp_path / "net.d"
    programs.mkdir()
    networks.mkdir()
    (networks / "99-other.conflist").write_text(json.dumps({"name": "other", "plugins": []}))
    first = networks / "10-net.conf"
    first.write_text(json.dumps({"cniVersion": "0.4.0", "name": "net", **BRIDGE}))
    agent = subprocess.Popen([str(program), "install-cni", "-bin", str(programs), "-net", str(networks)])
    try:
        listed = networks / "10-net.conflist"
        whole = eventually(listed)
        assert not first.exists(), "a runtime takes the first by name: the old form would win"
        assert (whole["cniVersion"], whole["name"]) == ("0.4.0", "net")
        assert whole["plugins"][0]["bridge"] == "cni0"
        assert whole["plugins"][-1]["type"] == "tulle-capture"
        assert os.access(programs / "tulle-capture", os.X_OK)
        listed.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [BRIDGE]}))
        assert eventually(listed)["cniVersion"] == "1.0.0", "written anew by the network, it is chained again"
    finally:
        agent.terminate()
        assert agent.wait(timeout=20) == 0
    assert json.loads(listed.read_text())["plugins"] == [BRIDGE]
    assert not (programs / "tulle-capture").exists()
    assert json.loads((networks / "99-other.conflist").read_text()) == {"name": "other", "plugins": []}


def eventually(path: Path) -> dict[str, Any]:
    import time

    until = time.monotonic() + 20
    while time.monotonic() < until:
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            if any(one["type"] == "tulle-capture" for one in found["plugins"]):
                return found
        time.sleep(0.1)
    raise AssertionError(path)


def test_the_program_needs_nothing_of_its_image(program: Path) -> None:
    ldd = shutil.which("ldd")
    assert ldd is not None
    assert (
        "not a dynamic executable" in subprocess.run([ldd, program], capture_output=True, text=True, check=False).stderr
    )


def test_the_programs_own_tests(program: Path) -> None:
    go = shutil.which("go") or "/usr/local/go/bin/go"
    module = Path(__file__).resolve().parents[2] / "capture"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    for words in (["vet", "."], ["test", "./..."]):
        done = subprocess.run(
            [go, *words], cwd=module, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert program.stat().st_size < 8 << 20
