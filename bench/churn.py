"""Thousands of reconnects and of edits: what the control plane's memory is afterwards, against what it was after a warm-up.

Sidecars connect through the sockets of their pods, so identities, certificates and learned names take part. Reconnects alternate
between a restarted proxy, which knows nothing, and Envoy's own way, which says what it holds. Edits are weights and endpoints
and services under names that never come again; each is seen by every sidecar that holds it before the next is made.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import worlds
from bench.building import CannotMeasureError, adsload
from bench.control_process import NAMESPACES, ControlPlane, Line, Sidecars, control_plane, sidecars
from bench.figures import median, percentile, rounded
from bench.machine import memory
from bench.results import Row

AT_ONCE = 8
"""Sidecars that are away at the same time."""
CALLS = 10
"""On demand: services each sidecar calls."""
REST_S = 13.0
"""Longer than the control plane waits until it drops what nobody looks at any more."""
WITHIN = 0.05
"""Memory may grow by this share."""
_OPEN_SECONDS = 60.0
_SERVICE_EVERY = 10
_ENDPOINT_EVERY = 5


class Case(NamedTuple):
    """One row."""

    what: str
    """`reconnects` or `edits`."""
    discovery: str
    turns: int
    warming: int
    """As many before memory is looked at first."""
    services: int
    sidecars: int

    @property
    def key(self) -> Row:
        """What makes it another result."""
        return {"what": self.what, "discovery": self.discovery, "services": self.services, "sidecars": self.sidecars}


class _Running(NamedTuple):
    plane: ControlPlane
    fleet: Sidecars
    world: worlds.World
    shape: worlds.Shape
    case: Case


def measure(case: Case) -> Row:
    """Warm up, look, do it, look again. Raises CannotMeasureError."""
    work = {"reconnects": _reconnects, "edits": _edits}[case.what]
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder, _running(case, Path(folder)) as running:
        cold = running.fleet.answer()
        if cold["ready"] != case.sidecars:
            raise CannotMeasureError(f"{cold['ready']} of {case.sidecars} sidecars became ready")
        work(running, 0, case.warming)
        before = _rested(running.plane)
        found = work(running, case.warming, case.turns)
        after = _rested(running.plane)
        nodes, streams = (running.plane.metric(name) for name in ("tulle_engine_nodes", "pilot_xds"))
    return {
        **found,
        "count": case.turns,
        "warming": case.warming,
        "beforeMiB": before,
        "afterMiB": after,
        "growth": rounded(after / before - 1, 2),
        "isWithin": abs(after / before - 1) <= WITHIN,
        "engineNodes": nodes,
        "streams": streams,
    }


@contextmanager
def _running(case: Case, place: Path) -> Iterator[_Running]:
    shape = worlds.Shape(case.services)
    world = worlds.write(shape, place)
    settings = {"discovery": case.discovery, "serviceCidrs": [worlds.SERVICE_CIDR]}
    with control_plane(world.config, place, settings) as plane:
        run = place / "run"
        pods(case.sidecars, run)
        words = ["-addr", f"unix:{run}/xds/{_uid('{i}')}/xds.sock", "-remember", "-quiet", "5ms"]
        if case.discovery != "full":
            words += ["-on-demand", str(CALLS), "-services", str(case.services), "-vip", f"vip/{{ip}}:{worlds.PORT}"]
        with sidecars(adsload(), plane, case.sidecars, place, words) as fleet:
            yield _Running(plane, fleet, world, shape, case)


def pods(count: int, run: Path) -> None:
    """Tell a control plane of so many pods, and wait for their sockets. Raises CannotMeasureError."""
    items = [_pod(number) for number in range(count)]
    fresh = run / ".runtime.new"
    fresh.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    fresh.replace(run / "runtime.json")
    deadline = time.monotonic() + _OPEN_SECONDS
    while not all((run / "xds" / _uid(number) / "xds.sock").exists() for number in range(count)):
        if time.monotonic() > deadline:
            raise CannotMeasureError(f"not all of {count} sockets opened within {_OPEN_SECONDS:.0f} s")
        time.sleep(0.05)


def _uid(number: object) -> str:
    return f"pod-{number}"


def _pod(number: int) -> worlds.Object:
    name, ns = f"app-{number}", f"ns-{number % NAMESPACES}"
    metadata = {
        "name": name,
        "namespace": ns,
        "uid": _uid(number),
        "labels": {"app": name, "version": "v1"},
        "annotations": {"tulle.dev/sidecar": "true"},
    }
    status = {
        "podIP": worlds.address(12, number),
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    spec = {"serviceAccountName": name, "containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 80}]}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def _reconnects(running: _Running, _done: int, count: int) -> Row:
    lines, resident = [], []
    for part in _parts(count):
        lines.append(running.fleet.tell(f"reconnect: @reconnect {part} {AT_ONCE}"))
        resident.append(memory(running.plane.pid)["resident"])
    return {
        "failed": sum(line["failed"] + line["reconnects"] for line in lines),
        "p50Milliseconds": rounded(median([line["p50_ms"] for line in lines])),
        "p99Milliseconds": rounded(max(line["p99_ms"] for line in lines)),
        "cpuSeconds": rounded(sum(line["server_cpu_s"] for line in lines)),
        "bytes": sum(line["bytes"] for line in lines),
        "everyTenthMiB": resident,
    }


def _parts(count: int) -> list[int]:
    """Ten parts, or one each where there are fewer."""
    parts = min(10, count)
    return [count // parts + (at < count % parts) for at in range(parts)]


def _edits(running: _Running, done: int, count: int) -> Row:
    revision = running.plane.metric("tulle_revision")
    lines: list[Line] = []
    resident: list[float] = []
    for part in _parts(count):
        for _ in range(part):
            lines.append(_edit(running, done + len(lines) + 1))
        resident.append(memory(running.plane.pid)["resident"])
    took = [line["last_ms"] for line in lines]
    return {
        "failed": sum(line["changed_clients"] != line["holders"] for line in lines),
        "p50Milliseconds": rounded(median(took)),
        "p99Milliseconds": rounded(percentile(took, 0.99)),
        "cpuSeconds": rounded(sum(line["server_cpu_s"] for line in lines)),
        "bytes": sum(line["bytes"] for line in lines),
        "revisions": running.plane.metric("tulle_revision") - revision,
        "everyTenthMiB": resident,
    }


def _edit(running: _Running, number: int) -> Line:
    world, shape = running.world, running.shape
    if number % _SERVICE_EVERY == 0:
        # another one instead of the last, under a name and an address of its own
        passing = shape.entry(shape.services + number)
        if running.case.discovery == "full":
            return _renamed(running, [passing], world.config / "service.yaml")
        _put([passing], world.config / "service.yaml")  # nobody calls it
    if number % _ENDPOINT_EVERY == 0:
        return _renamed(running, [shape.entry(0, 1 + number // _ENDPOINT_EVERY % 200)], world.config / "endpoint.yaml")
    return _renamed(running, [shape.split(0, 1 + number % 98)], world.config / "weight.yaml")


def _renamed(running: _Running, objects: Sequence[worlds.Object], target: Path) -> Line:
    fresh = running.world.edits / "next.yaml"
    fresh.write_text(worlds.documents_as_json(list(objects)))
    return running.fleet.rename("edit", fresh, target)


def _put(objects: Sequence[worlds.Object], target: Path) -> None:
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_text(worlds.documents_as_json(list(objects)))
    fresh.replace(target)


def _rested(plane: ControlPlane) -> float:
    """Resident MiB when nothing has happened for a while: the middle of some looks."""
    time.sleep(REST_S)
    looks = []
    for _ in range(5):
        looks.append(memory(plane.pid)["resident"])
        time.sleep(0.5)
    return median(looks)


def text(row: Row) -> str:
    """For a terminal."""
    judged = "within" if row["isWithin"] else "NOT within"
    revisions = f", {row['revisions']:,.0f} revisions" if "revisions" in row else ""
    return (
        f"{row['count']:,} after {row['warming']:,} for warming: {row['failed']} failed{revisions}; "
        f"p50 {row['p50Milliseconds']} ms, p99 {row['p99Milliseconds']} ms, {row['cpuSeconds']} CPU-s, {row['bytes'] / 1e6:,.0f} MB; "
        f"resident {row['beforeMiB']} -> {row['afterMiB']} MiB ({row['growth']:+.1%}, {judged} {WITHIN:.0%}); "
        f"{row['streams']:.0f} streams, {row['engineNodes']:,.0f} engine nodes"
    )
