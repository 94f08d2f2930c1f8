"""What the control plane costs with a real cluster as its source: objects made through the API, M sidecars, edits by PATCH.

Needs a kubeconfig (`make cluster`, or any cluster that may take ten thousand pods in namespaces `tulle-scale-N`; no kubelet is
needed for them). An edit is timed from before the PATCH is sent to the last response of the last sidecar. The kinds of Istio are
made where the cluster has none of them, and then taken away again with everything else.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench import kubernetes_world
from bench.building import CannotMeasureError, adsload
from bench.control_process import Line, Sidecars, _end, _free_port
from bench.control_process import sidecars as connected
from bench.figures import median, rounded
from bench.kubernetes_process import WRITTEN
from bench.kubernetes_world import PREFIX, Shape
from bench.machine import ROOT, cpu_seconds, memory
from bench.results import Recorder, Row, table
from tulle.kube.access import Access
from tulle.kube.errors import KubeError

NAME = "kubernetes"
START_SECONDS = 120.0
PROMISED_SECONDS, PROMISED_MIB = 15.0, 400.0
HEAD = ("edit", "last ms", "of it the write", "CPU s", "kB", "sidecars that got something")
NAMED = ("-ns", f"{PREFIX}-%d")
_SETTLE_S = 2.0
CHURN = 100.0
"""Changes of slices per second."""
_PARTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 0.9999}


class Process:
    """`python -m bench.kubernetes_process`."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.address = address
        self.read = self.line()
        self.ready = self.line()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def line(self) -> Line:
        """What it says next. Raises CannotMeasureError if it ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CannotMeasureError(f"the control plane ended with {self._process.wait(10)}")
        return dict(json.loads(line))


@contextmanager
def control_plane(kubeconfig: Path, place: Path) -> Iterator[Process]:
    """Start one, give it when proxies can connect, end it."""
    (place / "settings.json").write_text(json.dumps({"discovery": "full"}))
    (place / "state").mkdir(mode=0o700)
    address = f"127.0.0.1:{_free_port()}"
    with (place / "control.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.kubernetes_process"),
                *(kubeconfig, address, place / "state", place / "settings.json"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        yield Process(process, address)
    finally:
        _end(process)


class Editor:
    """PATCHes as shell commands: `adsload` starts its clock right before it runs one."""

    def __init__(self, kubeconfig: Path, place: Path) -> None:
        self._place = place
        whole = yaml.safe_load(kubeconfig.read_text())
        cluster, user = whole["clusters"][0]["cluster"], whole["users"][0]["user"]
        self._server = cluster["server"]
        self._flags = " ".join(
            f"{flag} {self._file(part, field)}"
            for flag, part, field in (
                ("--cacert", cluster, "certificate-authority"),
                ("--cert", user, "client-certificate"),
                ("--key", user, "client-key"),
            )
        )

    def _file(self, part: dict[str, str], field: str) -> str:
        if field in part:
            return part[field]
        if f"{field}-data" not in part:
            raise CannotMeasureError("the kubeconfig needs client certificates: the edits are curl's")
        path = self._place / field
        path.touch(mode=0o600)
        path.write_bytes(b64decode(part[f"{field}-data"]))
        return str(path)

    def patch(self, path: str, document: dict[str, Any], number: int) -> str:
        """The command."""
        body = self._place / f"patch{number}.json"
        body.write_text(json.dumps(document))
        kind = "-H content-type:application/merge-patch+json"
        return f"curl -sSf -o /dev/null {self._flags} -X PATCH {kind} --data @{body} {self._server}{path}"


def _weight(number: int) -> tuple[str, dict[str, Any]]:
    document = kubernetes_world.route(0, 90 - number)
    return f"/apis/networking.istio.io/v1/namespaces/{PREFIX}-0/virtualservices/s0", {"spec": document["spec"]}


def _endpoint(number: int) -> tuple[str, dict[str, Any]]:
    document = kubernetes_world.endpoints(0, 5)
    more = {"addresses": [f"10.200.0.{number}"], "conditions": {"ready": True}}
    path = f"/apis/discovery.k8s.io/v1/namespaces/{PREFIX}-0/endpointslices/s0-slice"
    return path, {"endpoints": [*document["endpoints"], more]}


def _unread(number: int) -> tuple[str, dict[str, Any]]:
    """A field that nobody reads: an object comes, and nothing is to be done."""
    return f"/api/v1/namespaces/{PREFIX}-0/pods/s0-0/status", {"status": {"message": f"heartbeat {number}"}}


_EDITS = {"weight": ("edit", _weight), "endpoint": ("endpoint", _endpoint), "unread": ("noop", _unread)}


def measure_churn(kubeconfig: Path, shape: Shape, sidecars: int, seconds: float) -> Row:
    """One row: how old changes of slices are when they have been pushed, at CHURN of them a second."""
    recorder = Recorder()
    key = {"services": shape.services, "sidecars": sidecars, "changesPerSecond": CHURN, "seconds": seconds}
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        place = Path(folder)
        with control_plane(kubeconfig, place) as plane, connected(adsload(), plane, sidecars, place, NAMED) as fleet:
            fleet.answer()
            before = cpu_seconds(plane.pid)
            sent, took = asyncio.run(
                _with(kubeconfig, lambda access: kubernetes_world.churn(access, shape, CHURN, seconds, WRITTEN))
            )
            lags = plane.line()["lags"]
            return recorder.row(
                key,
                {
                    "sent": sent,
                    "took": rounded(took),
                    "seen": len(lags),
                    "lagSeconds": {name: lags[int(len(lags) * part)] for name, part in _PARTS.items()} if lags else {},
                    "cpuSeconds": rounded(cpu_seconds(plane.pid) - before),
                    "memory": memory(plane.pid),
                },
            )


def measure(kubeconfig: Path, shape: Shape, sidecars: int, repeat: int) -> Row:
    """One row."""
    recorder = Recorder()
    key = {"services": shape.services, "pods": shape.services * shape.pods_each, "sidecars": sidecars}
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        place = Path(folder)
        editor = Editor(kubeconfig, place)
        with control_plane(kubeconfig, place) as plane:
            alone = memory(plane.pid)
            row: Row = {"read": plane.read, "ready": plane.ready, "alone": alone}
            if sidecars:
                with connected(adsload(), plane, sidecars, place, NAMED) as fleet:
                    cold = fleet.answer()
                    trials = {name: _trials(fleet, editor, name, repeat) for name in _EDITS}
                row |= {
                    "cold": {
                        "seconds": rounded(cold["last_ms"] / 1000),
                        "cpuSeconds": cold["server_cpu_to_ready_s"],
                        "ready": cold["ready"],
                    },
                    "trials": trials,
                    "withSidecars": memory(plane.pid),
                }
    return recorder.row(key, row)


def _trials(fleet: Sidecars, editor: Editor, name: str, repeat: int) -> Row:
    called, edit = _EDITS[name]
    found = []
    for number in range(1, repeat + 1):
        time.sleep(_SETTLE_S)
        path, document = edit(number)
        found.append(fleet.tell(f"{called}{number}: {editor.patch(path, document, number)}"))
    return {
        "milliseconds": rounded(median([float(line["last_ms"]) for line in found])),
        "patchMilliseconds": rounded(median([float(line.get("cmd_ms", 0)) for line in found])),
        "cpuSeconds": rounded(median([float(line["server_cpu_s"]) for line in found])),
        "changed": [line["changed_clients"] for line in found],
        "bytes": rounded(median([float(line["bytes"]) for line in found])),
        "all": {"milliseconds": [line["last_ms"] for line in found], "weights": [line["weights"] for line in found]},
    }


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    return "\n\n".join(_text(row) for row in rows)


def _text(row: Row) -> str:
    beside = row["machine"]
    loops = f"calibration loop {beside['calibrationMs'][0]} and {beside['calibrationMs'][1]} ms, load {beside['loadAverage']}"
    lines = edits(row)
    return "\n".join([title(row), *said(row), *([table(HEAD, lines)] if lines else []), loops])


def title(row: Row) -> str:
    """What was measured."""
    key = row["key"]
    if "changesPerSecond" in key:
        return f"{key['changesPerSecond']:.0f} changes of slices a second, {key['services']:,} services, {key['sidecars']} sidecars"
    return f"{key['services']:,} services, {key['pods']:,} endpoints, {key['pods']:,} pods, {key['sidecars']} sidecars"


def said(row: Row) -> list[str]:
    """A sentence each."""
    if "lagSeconds" in row:
        lags = ", ".join(f"{name} {lag * 1000:,.0f} ms" for name, lag in row["lagSeconds"].items())
        return [
            f"{row['sent']:,} changes in {row['took']} s, {row['seen']:,} of them seen one by one",
            f"from the write to the push: {lags}",
            f"{row['cpuSeconds']} CPU-s, most {row['memory']['most']:.0f} MiB",
        ]
    read, ready = row["read"], row["ready"]
    found = [
        f"read after {read['seconds']:.2f} s of the process ({read['cpuSeconds']:.2f} CPU-s, {read['peakMiB']:.0f} MiB)",
        f"serving after {ready['seconds']:.2f} s ({ready['cpuSeconds']:.2f} CPU-s), peak {ready['peakMiB']:.0f} MiB",
    ]
    if "cold" in row:
        cold, most = row["cold"], row["withSidecars"]["most"]
        found.append(
            f"all sidecars started after {cold['seconds']} s ({cold['cpuSeconds']} CPU-s), most {most:.0f} MiB"
        )
    return found


def edits(row: Row) -> list[tuple[object, ...]]:
    """Lines of the table of edits; none of a row without."""
    return [
        (
            name,
            one["milliseconds"] if any(one["changed"]) else "-",
            one["patchMilliseconds"],
            one["cpuSeconds"],
            f"{one['bytes'] / 1000:,.0f}",
            ", ".join(map(str, one["changed"])),
        )
        for name, one in row.get("trials", {}).items()
    ]


def arguments(parser: Any) -> None:
    """Of the command line."""
    parser.add_argument("--kubeconfig", type=Path, default=Path(os.environ.get("KUBECONFIG", "")))
    parser.add_argument("--services", type=int, default=2000)
    parser.add_argument("--sidecars", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--churn", type=float, default=0.0, help="instead: change slices for so many seconds")
    parser.add_argument("--keep", action="store_true", help="leave the objects there, for the next time")


def run(given: Any) -> list[Row]:
    """What the command line asks for."""
    if not given.kubeconfig.is_file():
        raise CannotMeasureError("no cluster: start one (make cluster DETACH=1) and name its kubeconfig")
    shape = Shape(given.services)
    try:
        made = asyncio.run(_with(given.kubeconfig, lambda access: kubernetes_world.create(access, shape)))
        try:
            if given.churn:
                return [measure_churn(given.kubeconfig, shape, given.sidecars, given.churn)]
            return [measure(given.kubeconfig, shape, given.sidecars, given.repeat)]
        finally:
            if not given.keep:
                asyncio.run(_with(given.kubeconfig, lambda access: kubernetes_world.remove(access, shape, made)))
    except KubeError as error:
        raise CannotMeasureError(str(error)) from error


async def _with(kubeconfig: Path, task: Any) -> Any:
    async with Access.from_kubeconfig(kubeconfig) as access:
        return await task(access)
