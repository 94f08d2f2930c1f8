"""Half an hour of a small mesh that is used and edited all the time: whose memory grows, and how fast.

Two callers, one served everything and one on demand, send requests at a steady rate while a file changes every second: weights,
and now and then a service that nobody knew comes or goes. Memory of every process is sampled; the slope is told per hour.
Light on purpose (a few percent of a core): it can run beside other work, and says how many requests failed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from bench.building import CannotMeasureError, loadgen
from bench.figures import median, rounded, slope
from bench.local_mesh import LocalMesh, Object, asked, deployment, inside, local_mesh, namespace, service
from bench.machine import cpu_seconds, memory
from bench.results import Row
from bench.worlds import documents_as_json

NS = "soak"
CALLERS = {"everything": "full", "asking": "on-demand"}
"""Who calls -> how it is served."""
CONNECTIONS = 4
SAMPLE_EVERY_S = 10.0
WINDOW_S = 60
_SERVICE_EVERY = 15
_BODY_BYTES = 512
_WARM_SHARE = 1 / 6
"""Of the time: what a start still settles is no slope."""


class Plan(NamedTuple):
    """How long and how much."""

    seconds: float
    rate: float
    """Requests per second, of all callers together."""
    edits: float = 1.0
    """Per second."""


class Sample(NamedTuple):
    """Resident memory at one moment."""

    at: float
    """Seconds since the beginning."""
    mib: dict[str, float]
    """By process."""


def measure(plan: Plan) -> Row:
    """One soak. Raises CannotMeasureError."""
    program = loadgen()
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as place:
        folder = Path(place) / "mesh"
        folder.mkdir()
        inner = Path(shutil.copy2(program, folder / "loadgen"))
        (folder / "mesh.yaml").write_text(documents_as_json(_manifests(inner)))
        edits = _Edits(folder)
        edits.weigh(50)
        with local_mesh(folder) as mesh:
            return _soaked(mesh, plan, program, edits)


def _manifests(program: Path) -> list[Object]:
    echo = [str(program), "echo", "-l", "0.0.0.0:8080", "-s", str(_BODY_BYTES)]
    found: list[Object] = [namespace(NS), service("echo", NS, "echo", [("http", 80, 8080)])]
    for version in ("v1", "v2"):
        made = deployment("echo", NS, echo, [8080])
        labels = {"app": "echo", "version": version}
        made["metadata"]["name"] = f"echo-{version}"
        made["spec"]["selector"]["matchLabels"] = labels
        made["spec"]["template"]["metadata"]["labels"] = labels
        found.append(made)
    for name, how in CALLERS.items():
        found.append(deployment(name, NS, ["sleep", "100000"], (), **{"tulle.dev/discovery": how}))
    subsets = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")]
    found.append(_object("DestinationRule", "echo", {"host": "echo", "subsets": subsets}))
    return found


def _object(kind: str, name: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": NS}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


class _Edits:
    """Files that change: a weight every time, services under names that never come again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = 0

    def next(self) -> None:
        """One more."""
        self.count += 1
        if self.count % _SERVICE_EVERY:
            self.weigh(1 + self.count % 99)
        else:
            self._come_and_go()

    def weigh(self, first: int) -> None:
        """How much of the calls go to v1, in percent."""
        shares = (("v1", first), ("v2", 100 - first))
        route = [{"destination": {"host": "echo", "subset": name}, "weight": share} for name, share in shares]
        self._write("weights", [_object("VirtualService", "echo", {"hosts": ["echo"], "http": [{"route": route}]})])

    def _come_and_go(self) -> None:
        number = self.count // _SERVICE_EVERY
        spec = {
            "hosts": [f"passing-{number}.example"],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "endpoints": [{"address": f"10.9.{number >> 8 & 255}.{number & 255}"}],
        }
        self._write("passing", [_object("ServiceEntry", f"passing-{number}", spec)])

    def _write(self, name: str, objects: list[Object]) -> None:
        fresh = self._folder / f".{name}.new"
        fresh.write_text(documents_as_json(objects))
        fresh.replace(self._folder / f"{name}.yaml")


def _soaked(mesh: LocalMesh, plan: Plan, program: Path, edits: _Edits) -> Row:
    watched = _processes(mesh)
    began, cpu_before = time.monotonic(), {name: cpu_seconds(pid) for name, pid in watched.items()}
    samples: list[Sample] = []
    windows: list[Row] = []
    with ExitStack() as stack:
        callers = [stack.enter_context(_Caller(mesh, name, program, plan)) for name in CALLERS]
        for due in _ticks(began, plan):
            edits.next()
            if due >= (samples[-1].at if samples else -SAMPLE_EVERY_S) + SAMPLE_EVERY_S:
                samples.append(Sample(due, {name: memory(pid)["resident"] for name, pid in watched.items()}))
            for caller in callers:
                windows += caller.ended()
        for caller in callers:
            windows += caller.last()
    if watched != _processes(mesh):
        raise CannotMeasureError(f"not the same processes at the end: {watched} and {_processes(mesh)}")
    took = time.monotonic() - began
    cpu = {name: rounded((cpu_seconds(pid) - cpu_before[name]) / took) for name, pid in watched.items()}
    return {
        "seconds": rounded(took),
        "edits": edits.count,
        "requests": sum(one["requests"] for one in windows),
        "failed": sum(one["errors"] for one in windows),
        "p99Milliseconds": rounded(median([one["p99"] for one in windows]) / 1000),
        "coresUsed": cpu,
        "memory": {name: growth(samples, name) for name in watched},
    }


def growth(samples: Sequence[Sample], name: str) -> Row:
    """Of one process: MiB at the beginning and at the end (middles of the first and last tenth after warming), slope per hour."""
    warm = [one for one in samples if one.at >= samples[-1].at * _WARM_SHARE]
    tenth = max(1, len(warm) // 10)
    per_hour = slope([(one.at / 3600, one.mib[name]) for one in warm])
    return {
        "firstMiB": rounded(median([one.mib[name] for one in warm[:tenth]]), 4),
        "lastMiB": rounded(median([one.mib[name] for one in warm[-tenth:]]), 4),
        "mostMiB": max(one.mib[name] for one in samples),
        "slopeMiBPerHour": rounded(per_hour),
        "everyMinuteMiB": [one.mib[name] for one in samples[:: max(1, round(60 / SAMPLE_EVERY_S))]],
    }


def _ticks(began: float, plan: Plan) -> Iterator[float]:
    """The moments of the edits, seconds since the beginning."""
    for number in range(int(plan.seconds * plan.edits)):
        due = number / plan.edits
        time.sleep(max(0.0, began + due - time.monotonic()))
        yield due


def _processes(mesh: LocalMesh) -> dict[str, int]:
    about = json.loads(asked(mesh.run / "supervisor.sock", "/v1/mesh"))
    callers = {f"sidecar of {name} ({how})": mesh.pod(NS, name).sidecar for name, how in CALLERS.items()}
    server = {"sidecar of echo": mesh.pod(NS, "echo").sidecar}
    return {"control plane": int(about["controlPlane"]["pid"]), "supervisor": int(about["pid"]), **callers, **server}


class _Caller:
    """Load from one pod, in windows that follow each other; a window that breaks off counts as one failed request."""

    def __init__(self, mesh: LocalMesh, name: str, program: Path, plan: Plan) -> None:
        self._pod = mesh.pod(NS, name)
        address = mesh.service_address(NS, "echo")
        self._words: list[str | Path] = [program, "load", "-a", f"{address}:80", "-H", f"echo.{NS}", "-w", "0"]
        self._words += ["-c", str(CONNECTIONS), "-r", str(plan.rate / len(CALLERS))]
        self._end = time.monotonic() + plan.seconds
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> _Caller:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def ended(self) -> list[Row]:
        """The window that is over, if one is; the next one runs then."""
        if self._process is None or self._process.poll() is None:
            return []
        found = self._told(self._process)
        self._process = None
        if time.monotonic() < self._end - 5:
            self._start()
        return [found]

    def last(self) -> list[Row]:
        """The window under way."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(WINDOW_S + 30)
        return self.ended()

    def _start(self) -> None:
        seconds = min(WINDOW_S, max(1.0, self._end - time.monotonic()))
        line = inside(self._pod, [*self._words, "-d", str(seconds)])
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _told(self, process: subprocess.Popen[str]) -> Row:
        out, said = process.communicate()
        if process.returncode:
            print(f"a window broke off: {said.strip()[-200:]}", flush=True)
            return {"requests": 1, "errors": 1, "p99": 0.0}
        return dict(json.loads(out))


def text(row: Row) -> str:
    """For a terminal."""
    lines = [
        f"{row['requests']:,} requests, {row['failed']} failed, {row['edits']:,} edits in {row['seconds']:,.0f} s",
        *(
            f"{name}: {one['firstMiB']} -> {one['lastMiB']} MiB (most {one['mostMiB']}), "
            f"slope {one['slopeMiBPerHour']:+} MiB/h, {row['coresUsed'][name]:.1%} of a core"
            for name, one in row["memory"].items()
        ),
    ]
    return "\n".join(lines)
