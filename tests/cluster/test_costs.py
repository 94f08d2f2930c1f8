"""What a sidecar costs a pod: one container with one process and no agent; memory and time in small (`python -m bench pod-cost` is whole)."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubelab.cluster import Cluster
from mesh_parts import LITTLE, caller, mesh_in, pods_of, space

from bench import pod_cost

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
PODS = 12
LIMIT_S = 900
MOST_MIB = 60.0
"""Of a sidecar in a small mesh; measured about half of it. More is a mistake in configuration, not noise."""


@pytest.fixture(scope="module")
def mesh(cluster: Cluster) -> Iterator[Cluster]:
    with mesh_in(cluster, *LITTLE, images=("test", "echo")):
        yield cluster


def test_a_sidecar_is_one_process_and_it_is_envoy(mesh: Cluster) -> None:
    space(mesh, "alone", {"istio-injection": "enabled"})
    try:
        caller(mesh, "alone")
        [pod] = pods_of(mesh, "alone")
        ended, stays = pod["status"]["initContainerStatuses"]
        assert (ended["name"], "terminated" in ended["state"]) == ("tulle-capture", True), "it made the rules and ended"
        assert (stays["name"], "running" in stays["state"]) == ("istio-proxy", True)
        [pid] = pod_cost.processes(b"/usr/local/bin/envoy", "TULLE_NAMESPACE", "alone")
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["NSpid"].split()[-1] == "1", "nothing started it"
        children = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        assert "".join(children).strip() == "", "and it starts nothing"
        assert Path(f"/proc/{pid}/exe").readlink().name == "envoy"
        assert status["CapEff"] == "0000000000000000"
    finally:
        mesh.kubectl("delete", "ns", "alone", limit_s=120)


def test_memory_and_time(mesh: Cluster) -> None:
    """The measurement itself works, and nothing is out of all proportion."""
    line = [
        sys.executable,
        "-m",
        "bench",
        "pod-cost",
        f"--pods={PODS}",
        f"--kubeconfig={mesh.kubeconfig}",
        "-o",
        "json",
    ]
    done = subprocess.run(line, cwd=ROOT, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    print(f"\n{pod_cost.text(rows)}")
    without, beside = rows
    assert without["containers"] == ["echo"]
    assert beside["containers"] == ["tulle-capture", "istio-proxy", "echo"]
    assert "sidecarPss" not in without["memoryMib"]
    assert 5 < beside["memoryMib"]["sidecarPss"] < MOST_MIB
    assert len(beside["oneByOneMs"]) == len(without["oneByOneMs"]) == 10
