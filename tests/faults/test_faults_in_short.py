"""The fault table in little, for every test run: six seconds a row at a lower rate, in one mesh.

The long table is `make faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import fault_kinds as faults
import pytest
from fault_mesh import FaultMesh, Row, told
from fault_rows import Counted, counted, is_complete, table

SECONDS = 8
RATE = 150.0
QUIET = {"defaultRetryAttempts": 0}
SHORT_LEAFS = {**QUIET, "leafTtlSeconds": 8, "bundleSettleSeconds": 1, "maxConnectionAgeSeconds": 3}


def _line(at: int, **said: object) -> dict[str, object]:
    stream = {"kind": "tcp", "echoes": at * 10, "failures": [{"at": 102.5, "reason": "reset"}]}
    empty = {"sent": 2, "new": 1, "ok": 2, "failed": 0, "failures": [], "ms": [1.0, 3.0], "lag_ms": 0.0}
    return {"at": at, **empty, "pods": {"a": 2}, "serials": {}, "streams": [stream], **said}


def test_a_window_counts_its_own_seconds_only() -> None:
    failure = {"at": 100.5, "target": "x", "on": "new", "reason": "status 503"}
    lines = [_line(99, failed=1, failures=[failure]), _line(100, failed=1, failures=[failure]), _line(101), _line(102)]
    found = counted(lines, 100, 102)
    assert (found.requests, found.failed, found.new, found.echoes) == (4, 1, 2, {"tcp": 10})
    assert found.reasons == {"new: status 503": 1}
    assert not found.breaks
    assert counted(lines, 101, 103).breaks == ["tcp stream at +1.5 s: reset"]
    assert not is_complete(lines, 104)
    assert is_complete(lines, 103)


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"failed": 1}, "1 failed"),
        ({"breaks": ["tcp stream: reset"]}, "tcp stream: reset"),
        ({"echoes": {"tcp": 0}}, "the tcp stream stood still: 0 echoes"),
        ({"new": 10}, "10 of 100 on new connections"),
    ],
)
def test_a_bad_row_says_why(spoilt: dict[str, object], reason: str) -> None:
    good = {"requests": 100, "new": 50, "echoes": {"tcp": 60}}
    assert not Row("x", [], "", 6, Counted(**good)).faults_of_it  # type: ignore[arg-type]
    assert Row("x", [], "", 6, Counted(**{**good, **spoilt})).faults_of_it == [reason]  # type: ignore[arg-type]


def test_streams_may_end_with_their_pods_but_not_fail_to_begin() -> None:
    ended = {"at": 101.5, "reason": "end of stream", "echoes": 7}
    unopened = {"at": 101.9, "reason": "reset", "echoes": 0}
    streams = [{"kind": "tcp", "echoes": 90 + 40 * at, "failures": [ended, unopened][:at]} for at in range(3)]
    one, both = (
        counted([_line(100, streams=[streams[0]]), _line(101, streams=[streams[at]])], 100, 102) for at in (1, 2)
    )
    assert not Row("x", [], "", 2, one, streams_may_end=True).faults_of_it
    assert Row("x", [], "", 2, one).faults_of_it == ["tcp stream at +1.5 s: end of stream"]
    assert Row("x", [], "", 2, both, streams_may_end=True).faults_of_it == ["tcp stream at +1.9 s: reset"]


@pytest.fixture(scope="class")
def quiet() -> Iterator[FaultMesh]:
    """Certificates outlive every row: a control plane that comes back late on a busy machine costs nothing."""
    with FaultMesh(QUIET, RATE) as found:
        found.warm()
        yield found


@pytest.fixture(scope="class")
def hurried() -> Iterator[FaultMesh]:
    """Short leafs and quick roots."""
    with FaultMesh(SHORT_LEAFS, RATE) as found:
        found.warm()
        yield found


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    """Printed at the end."""
    found: list[Row] = []
    yield found
    told(found, table(found))


def judged(rows: list[Row], row: Row) -> None:
    rows.append(row)
    assert not row.faults_of_it, f"{row.fault}: {row.faults_of_it}"
    assert row.counted.failed == 0
    assert row.counted.requests >= 0.95 * RATE * row.seconds


class TestWithoutRetries:
    """One mesh, gone before the next begins: two loads would be twice the load."""

    @pytest.mark.mesh
    @pytest.mark.envoy
    @pytest.mark.parametrize(
        ("name", "fault", "targets"),
        [
            ("control plane: kill -9", faults.control_plane_killed, ()),
            ("control plane: another, with empty memory", faults.replica_switched, ()),
            ("50 edits/s", faults.edited, ("shop", "steady")),
            ("sidecar replaced", faults.sidecar_replaced, ("crowd", "steady")),
        ],
        ids=("control-plane", "replica", "edits", "sidecar"),
    )
    def test_nobody_notices(
        self, quiet: FaultMesh, rows: list[Row], name: str, fault: Callable[..., str], targets: tuple[str, ...]
    ) -> None:
        quiet.aim(*targets)
        judged(rows, quiet.row(name, fault, SECONDS))


class TestCertificates:
    """Leafs and roots that change all the time."""

    @pytest.mark.mesh
    @pytest.mark.envoy
    @pytest.mark.parametrize(
        ("name", "fault"),
        [("leafs rotated", faults.leafs_rotated), ("root A → A+B → B", faults.root_rotated)],
        ids=("leafs", "root"),
    )
    def test_certificates_change_unnoticed(
        self, hurried: FaultMesh, rows: list[Row], name: str, fault: Callable[..., str]
    ) -> None:
        judged(rows, hurried.row(name, fault, 2 * SECONDS))
