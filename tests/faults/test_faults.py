"""`make faults`: nobody loses a request while the mesh is hurt. The table at the end says when, what proves it, and the count.

Mesh retries are off (`defaultRetryAttempts` 0) but for the last row, which is about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import fault_kinds as faults
import pytest
from fault_mesh import RATE, SECONDS, FaultMesh, Row, told
from fault_rows import table

pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.envoy]
QUIET = {"defaultRetryAttempts": 0}
SHORT_LEAFS = {**QUIET, "leafTtlSeconds": 7, "bundleSettleSeconds": 2, "maxConnectionAgeSeconds": 5}
"""Renewed between half and four fifths of their life: every five seconds in the middle."""
Rows = list[Row]


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    """Collected; printed when all is over."""
    found: Rows = []
    yield found
    told(found, table(found))


def judged(rows: Rows, row: Row) -> None:
    """A row of the table, whatever it says; then it must be a good one."""
    rows.append(row)
    print("\n" + table([row]))
    assert not row.faults_of_it, f"{row.fault}: {row.faults_of_it}"
    assert row.counted.failed == 0
    assert row.counted.requests >= 0.95 * RATE * row.seconds


@pytest.fixture(scope="class")
def mesh() -> Iterator[FaultMesh]:
    """Retries off, certificates of a day."""
    with FaultMesh(QUIET) as found:
        found.warm()
        yield found


@pytest.fixture(scope="class")
def hurried() -> Iterator[FaultMesh]:
    """Leafs of some seconds."""
    with FaultMesh(SHORT_LEAFS) as found:
        found.warm()
        yield found


class TestWithoutRetries:
    """One mesh, gone before the next begins: two loads would be twice the load."""

    def test_nothing_happens(self, mesh: FaultMesh, rows: Rows) -> None:
        """What the load itself costs: the row to compare the others with."""
        judged(rows, mesh.row("nothing", lambda *_: "", max(5, SECONDS // 4)))

    @pytest.mark.parametrize(
        ("name", "fault", "targets"),
        [
            ("control plane: kill -9", faults.control_plane_killed, ()),
            ("control plane: another, with empty memory", faults.replica_switched, ()),
            ("50 edits/s", faults.edited, ("shop", "steady")),
            ("scaling 1 → 3 → 1", faults.scaled, ("crowd", "steady")),
            ("sidecar replaced", faults.sidecar_replaced, ("crowd", "steady")),
        ],
        ids=("control-plane", "replica", "edits", "scaling", "sidecar"),
    )
    def test_without_retries(
        self, mesh: FaultMesh, rows: Rows, name: str, fault: Callable[..., str], targets: tuple[str, ...]
    ) -> None:
        mesh.aim(*targets)
        judged(rows, mesh.row(name, fault))

    def test_gateway_certificate(self, mesh: FaultMesh, rows: Rows) -> None:
        row = mesh.row_outside("gateway's certificate replaced", faults.certificate_replaced, RATE)
        judged(rows, row)
        assert len(row.counted.serials) == 2, row.counted.serials


class TestCertificates:
    """Leafs and roots that change all the time."""

    def test_leafs(self, hurried: FaultMesh, rows: Rows) -> None:
        judged(rows, hurried.row("leafs rotated", faults.leafs_rotated))

    def test_root(self, hurried: FaultMesh, rows: Rows) -> None:
        judged(rows, hurried.row("root A → A+B → B", faults.root_rotated))


def test_with_the_mesh_s_retries(rows: Rows) -> None:
    with FaultMesh({}, replicas=3) as found:
        found.warm()
        found.aim("crowd", "steady")
        judged(rows, found.row("sidecar: kill -9 (1 of 3, retries on)", faults.sidecars_killed))
