"""What one sidecar holds: a real Envoy, started by `tulle up`, in a mesh of N services of which its workload calls ten.

The N services are configuration only (10 endpoints each, bench/worlds.py); the called ones are Services before a real pod. Memory
is private memory of the sidecar's process, taken after the ten were called by a sidecar that was restarted: on demand it begins
with what its identity is known to call. Then a hundred services that nobody has called yet are called once, one after the other.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import worlds
from bench.building import CannotMeasureError, loadgen
from bench.figures import percentile, rounded
from bench.local_mesh import LocalMesh, Pod, asked, deployment, inside, local_mesh, namespace, service, total, tulle
from bench.machine import memory
from bench.results import Recorder, Row, table

NAME = "sidecar-memory"
CALLED, NEW = 10, 100
NS, PORT = "memory", 80
LOCAL_CIDR = "10.192.0.0/10"
"""`tulle up` gives Services addresses in there."""
_SETTLE_SECONDS = 60.0
_LOAD_SECONDS = 240.0
_FLUSH_SECONDS = 12.0
_SENT = "tulle_xds_sent_bytes_total"
_TYPES = ("cds", "eds", "lds", "rds", "vhds", "sds")


class Case(NamedTuple):
    """One result."""

    services: int
    discovery: str


def measure(cases: Sequence[Case]) -> list[Row]:
    """One row per case. Raises CannotMeasureError."""
    program, recorder = loadgen(), Recorder()
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
            found = _measured(case, program, Path(folder))
        rows.append(recorder.row({"services": case.services, "discovery": case.discovery}, found))
    return rows


def _measured(case: Case, program: Path, place: Path) -> Row:
    folder = worlds.write(worlds.Shape(case.services), place).config
    shutil.copy2(program, folder / "loadgen")
    echo = [str(folder / "loadgen"), "echo", "-l", "0.0.0.0:8080", "-s", "1024"]
    objects = [
        namespace(NS),
        deployment("caller", NS, ["sleep", "100000"]),
        deployment("backend", NS, echo, [8080], **{"sidecar.istio.io/inject": "false"}),
        *(service(f"called-{number}", NS, "backend", [("http", PORT, 8080)]) for number in range(CALLED + NEW)),
    ]
    (folder / "workloads.yaml").write_text(worlds.documents_as_json(objects))
    settings = {"discovery": case.discovery, "serviceCidrs": [worlds.SERVICE_CIDR, LOCAL_CIDR]}
    with local_mesh(folder, settings, _LOAD_SECONDS) as mesh:
        return _in_mesh(mesh)


def _in_mesh(mesh: LocalMesh) -> Row:
    known = [_target(mesh, number) for number in range(CALLED)]
    new = [_target(mesh, number) for number in range(CALLED, CALLED + NEW)]
    _settled(mesh)
    fresh = _call(mesh, known)
    _settled(mesh)
    before = mesh.exposed()
    tulle("restart", "sidecar", "caller", "-n", NS, "--mesh", mesh.name)
    _settled(mesh)
    after = mesh.exposed()
    by_type = {name: total(after, _SENT, type=name) - total(before, _SENT, type=name) for name in _TYPES}
    again = _call(mesh, known)
    pod = mesh.pod(NS, "caller")
    found = {
        "privateMiB": memory(pod.sidecar)["private"],
        "configurationBytes": sum(by_type.values()),
        "configurationByType": {name: size for name, size in by_type.items() if size},
        "readyMs": _ready_ms(pod),
    }
    clusters = sum(1 for line in asked(pod.admin, "/clusters").splitlines() if line.endswith("::added_via_api::true"))
    sent = mesh.metric(_SENT)
    first = _call(mesh, new)
    _settled(mesh)
    return {
        **found,
        "clusters": clusters,
        "firstCalls": _told([*fresh, *first]),
        "callsAfterRestart": _told(again),
        "knownCalls": _told(_call(mesh, new)),
        "bytesPerFirstCall": (mesh.metric(_SENT) - sent) / NEW,
        "privateMiBAfterAll": memory(pod.sidecar)["private"],
        "called": CALLED,
    }


def _target(mesh: LocalMesh, number: int) -> str:
    return f"{mesh.service_address(NS, f'called-{number}')}:{PORT}=called-{number}.{NS}"


def _call(mesh: LocalMesh, targets: Sequence[str]) -> list[tuple[float, str]]:
    """Milliseconds and status of one call each."""
    script = Path(__file__).resolve().parent / "caller.py"
    line = inside(mesh.pod(NS, "caller"), [sys.executable, script, *targets])
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode:
        raise CannotMeasureError(f"calls failed: {done.stderr.strip()[-300:]}")
    return [(float(took), str(status)) for took, status in json.loads(done.stdout)]


def _told(calls: Sequence[tuple[float, str]]) -> Row:
    took = [milliseconds for milliseconds, _ in calls]
    failed = [status for _, status in calls if status != "200"]
    shares = {"p50": 0.5, "p99": 0.99, "most": 1.0}
    return {
        "calls": len(calls),
        "failed": failed,
        **{name: rounded(percentile(took, at)) for name, at in shares.items()},
    }


def _settled(mesh: LocalMesh) -> None:
    """Wait until nothing was sent for a second and everybody acknowledged. Raises CannotMeasureError."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    seen = -1.0
    while time.monotonic() < deadline:
        sent = mesh.metric(_SENT)
        if sent == seen and mesh.metric("tulle_push_queue") == 0:
            return
        seen = sent
        time.sleep(1.0)
    raise CannotMeasureError(f"the mesh did not settle within {_SETTLE_SECONDS:.0f} s")


def _ready_ms(pod: Pod) -> float:
    """From Envoy's start until it had everything, by its own clock, which it tells with its next flush of metrics; -1: never."""
    deadline = time.monotonic() + _FLUSH_SECONDS
    while time.monotonic() < deadline:
        said = asked(pod.admin, "/stats?filter=initialization_time")
        if found := re.search(r"P100\([^,]*,([\d.]+)\)", said):
            return float(found[1])
        time.sleep(0.5)
    return -1.0


HEAD = (
    "services",
    "discovery",
    "private MiB",
    "configuration kB",
    "clusters",
    "ready ms",
    "first call p50",
    "p99 ms",
    "known p50",
    "p99 ms",
    "failed",
)


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    first, known = row["firstCalls"], row["knownCalls"]
    failed = [*first["failed"], *known["failed"], *row["callsAfterRestart"]["failed"]]
    return (
        f"{row['key']['services']:,}",
        row["key"]["discovery"],
        f"{row['privateMiB']:.1f}",
        f"{row['configurationBytes'] / 1000:,.1f}",
        f"{row['clusters']:,}",
        f"{row['readyMs']:,.0f}",
        *(f"{one[share]:.1f}" for one in (first, known) for share in ("p50", "p99")),
        str(len(failed)),
    )


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    loops = [value for row in rows for value in row["machine"]["calibrationMs"]]
    return f"{table(HEAD, map(cells, rows))}\n\ncalibration loop {min(loops)} to {max(loops)} ms"


def arguments(parser: Any) -> None:
    """Of the command line."""
    parser.add_argument("--services", default="1000,5000", help="comma-separated")
    parser.add_argument("--discovery", default="full,on-demand", help="comma-separated")


def run(given: Any) -> list[Row]:
    """What the command line asks for."""
    sizes = [int(word) for word in given.services.split(",")]
    return measure([Case(size, how) for size in sizes for how in given.discovery.split(",")])
