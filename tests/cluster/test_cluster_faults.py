"""`make cluster-faults`: nobody loses a request while the mesh in a cluster is hurt. The table at the end: when, what proves it, the count.

Retries of the mesh are off. TULLE_FAULT_RATE sets the rate, TULLE_FAULT_PAGE where the table is kept, TULLE_CLUSTER a cluster of two
nodes that runs already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import kube_fault_kinds as faults
import pytest
from fault_cluster import INSTALL, Fault, FaultCluster, head, told
from fault_rows import Row, table
from kubelab import cluster as clusters
from kubelab.cluster import Choice
from kubelab.fixtures import Start

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.long]
Rows = list[Row]


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    """Collected; printed, and kept if wanted, when all is over."""
    found: Rows = []
    commit = head()
    yield found
    page = os.environ.get("TULLE_FAULT_PAGE")
    print(f"\n{told(found, commit, Path(page) if page else None)}\n")


@pytest.fixture(scope="module")
def mesh(start_cluster: Start) -> Iterator[FaultCluster]:
    """Installed, loaded, removed."""
    running = os.environ.get("TULLE_CLUSTER")
    found = FaultCluster(clusters.attach(running) if running else start_cluster(Choice(f"faults-{os.getpid()}", 2)))
    if os.environ.get("TULLE_FAULT_KEPT"):
        found.attach()
        yield found
        return
    try:
        found.install()
        yield found
    finally:
        found.remove()


def judged(rows: Rows, mesh: FaultCluster, row: Row) -> None:
    """A row of the table, whatever it says; then it must be a good one."""
    rows.append(row)
    print("\n" + table([row]))
    assert not row.faults_of_it, f"{row.fault}: {row.faults_of_it}"
    assert row.counted.failed == 0
    assert row.counted.requests >= 0.95 * mesh.rate * row.seconds


def test_nothing_happens(mesh: FaultCluster, rows: Rows) -> None:
    """What the load itself costs: the row to compare the others with."""
    judged(rows, mesh, mesh.row("nothing", lambda *_: "", 15))


@pytest.mark.parametrize(
    ("name", "fault", "seconds", "streams_may_end"),
    [
        ("control plane: kill -9 of the leader", faults.control_plane_killed, 40, False),
        ("control plane: the busier pod deleted, grace 0", faults.control_plane_deleted, 40, False),
        ("API server away, a replica killed meanwhile", faults.api_away, 100, False),
        ("rolling restart of the service", faults.rolled, 45, True),
        ("root rotated: A → A+B → B", faults.root_rotated, 60, False),
        ("tokens of 10 minutes renewed", faults.token_renewed, 30, False),
        ("node drained", faults.drained, 60, True),
    ],
    ids=("kill", "delete", "api", "roll", "root", "tokens", "drain"),
)
def test_inside(mesh: FaultCluster, rows: Rows, name: str, fault: Fault, seconds: int, streams_may_end: bool) -> None:
    judged(rows, mesh, mesh.row(name, fault, seconds, streams_may_end=streams_may_end))


@pytest.mark.parametrize(
    ("name", "fault", "seconds", "streams_may_end"),
    [
        ("outside: rolling restart of the gateway", faults.gateway_rolled, 45, False),
        ("outside: node drained", faults.drained, 60, True),
        ("outside: upgrade by revision and back", partial(faults.upgraded, install=INSTALL), 120, True),
    ],
    ids=("gateway", "node", "revision"),
)
def test_outside(mesh: FaultCluster, rows: Rows, name: str, fault: Fault, seconds: int, streams_may_end: bool) -> None:
    judged(rows, mesh, mesh.row_outside(name, fault, seconds, streams_may_end=streams_may_end))
