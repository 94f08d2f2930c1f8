"""A cluster leaves nothing behind, whoever dies first; and it does not mind others beside it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubelab import cgroups, processes, record
from kubelab import cluster as clusters
from kubelab.cluster import Choice, Cluster
from kubelab.layout import Layout
from kubelab.record import Record

pytestmark = [pytest.mark.cluster, pytest.mark.long]

GONE_S = 120.0


@pytest.fixture
def name(cluster: Cluster) -> Iterator[str]:
    """Of a cluster beside the session's; down at the end whatever happens."""
    chosen = f"beside-{os.getpid()}"
    yield chosen
    clusters.down(chosen)


def recorded(name: str) -> Record:
    found = record.read(name)
    assert found is not None
    return found


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + GONE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def groups(layout: Layout) -> list[Path]:
    """Control groups of its nodes, in any hierarchy."""
    return [path for node in layout.nodes for path in cgroups.ROOT.glob(f"**/{node.cgroup}")]


def is_linked(layout: Layout) -> bool:
    return Path("/sys/class/net", layout.link).exists()


def test_the_starter_is_killed(name: str, cluster: Cluster) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(record.__file__).parents[1])}
    line = [sys.executable, "-m", "kubelab", "up", "--name", name]
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith("export KUBECONFIG=")
        found = recorded(name)
        assert found.layout.slot != cluster.layout.slot
        assert groups(found.layout)
        assert is_linked(found.layout)
        starter.send_signal(signal.SIGKILL)
    until(lambda: record.read(name) is None)
    assert not [part for part, one in found.parts.items() if processes.is_alive(one)]
    assert not groups(found.layout)
    assert not is_linked(found.layout)
    assert not found.layout.folder.exists()
    assert cluster.kubectl("get", "--raw", "/readyz").strip() == "ok"


def test_the_keeper_is_killed(name: str) -> None:
    clusters.up(Choice(name=name))
    found = recorded(name)
    os.kill(found.keeper.pid, signal.SIGKILL)
    until(lambda: not any(processes.is_alive(one) for one in found.parts.values()))
    until(lambda: not is_linked(found.layout))
    assert groups(found.layout), "what the kernel does not clear is what this test is about"
    assert clusters.down(name)
    assert not groups(found.layout)
    assert not found.layout.folder.exists()
    assert not clusters.down(name)


def test_a_node_goes_away_and_comes_back(name: str) -> None:
    beside = clusters.up(Choice(name=name, images=("test",)))
    beside.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: stays}, spec: {containers: "
        "[{name: a, image: 'tulle/test:dev', command: [sleep, '100000']}]}}"
    )
    beside.wait("--for=condition=Ready", "pod/stays")
    before = beside.get("pod", "stays")["status"]["containerStatuses"][0]["containerID"]
    beside.stop("node1")
    assert beside.kubectl("get", "--raw", "/readyz").strip() == "ok"
    beside.start("node1")
    until(lambda: container_of(beside) not in (before, ""))


def container_of(beside: Cluster) -> str:
    """The running container's identity, empty while none runs."""
    status = beside.get("pod", "stays")["status"]["containerStatuses"][0]
    return str(status["containerID"]) if "running" in status["state"] else ""
