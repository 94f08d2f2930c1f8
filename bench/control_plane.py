"""What the control plane costs: N services from files, M sidecars, then edits; each from the rename to the last response.

A trial is over when every sidecar that holds the edited service has changed and nothing came for 1.5 s; the weights the sidecars
hold then are printed by count, which is the proof. CPU is the control plane's whole process in that window, parsing included.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import istiod, worlds
from bench.building import adsload
from bench.control_process import ControlPlane, Line, Sidecars, control_plane, sidecars
from bench.figures import fraction, median, rounded
from bench.machine import memory
from bench.results import Recorder, Row, table

NAME = "control-plane"
PHASES = ("weight", "endpoint", "service", "unchanged")
_NAMES_OF_TRIALS = {"weight": "edit", "endpoint": "endpoint", "service": "new", "unchanged": "noop"}
_MAX_CALM_S = 2.0


class Case(NamedTuple):
    """One point of the grid."""

    services: int
    sidecars: int
    discovery: str = "full"
    calls: int = 0
    """On demand: services each sidecar calls."""

    @property
    def key(self) -> Row:
        """What makes it another result."""
        return {"services": self.services, "sidecars": self.sidecars, "discovery": self.discovery, "calls": self.calls}


GRIDS = {
    "quick": [Case(100, 20)],
    "default": [Case(1000, 100), Case(1000, 500), Case(3000, 500)],
    "on-demand": [Case(1000, 100, "on-demand", 20), Case(1000, 500, "on-demand", 20), Case(3000, 500, "on-demand", 20)],
    "large": [Case(5000, 1), Case(5000, 1000, "on-demand", 20), Case(5000, 1000)],
}


def measure(cases: Sequence[Case], repeat: int) -> list[Row]:
    """One row per case, printed as it comes."""
    program, recorder, rows = adsload(), Recorder(), []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
            row = recorder.row(case.key, _measured(program, case, repeat, Path(folder)))
        rows.append(row)
    return rows


def _measured(program: Path, case: Case, repeat: int, place: Path) -> Row:
    world = worlds.write(worlds.Shape(case.services), place)
    settings = {"discovery": case.discovery, "serviceCidrs": [worlds.SERVICE_CIDR]}
    with control_plane(world.config, place, settings) as plane:
        loaded = {"seconds": plane.load_seconds, "cpuSeconds": plane.load_cpu_seconds, "memoryMiB": memory(plane.pid)}
        with sidecars(program, plane, case.sidecars, place, _calling(case)) as fleet:
            cold = fleet.answer()
            began = {
                "engineNodes": plane.metric("tulle_engine_nodes"),
                "queries": plane.metric("tulle_engine_queries_total"),
            }
            rounds = [{phase: _trial(fleet, plane, world, phase, at + 1) for phase in PHASES} for at in range(repeat)]
            trials = {phase: [one[phase] for one in rounds] for phase in PHASES}
            held = plane.metric("tulle_engine_nodes")
        return {
            "loaded": loaded,
            "cold": _cold(cold, case) | began,
            "trials": {phase: _summary(lines, case) for phase, lines in trials.items()},
            "proof": [line["weights"] for line in trials["weight"]],
            "isProven": all(_is_proven(line, at + 1) for at, line in enumerate(trials["weight"])),
            "engineNodes": held,
            "memoryMiB": memory(plane.pid),
        }


def _calling(case: Case) -> list[str]:
    """Every sidecar on demand has an identity of its own: nothing is known of it before it asks."""
    if case.discovery == "full":
        return []
    metadata = {
        "NAMESPACE": "{ns}",
        "CLUSTER_ID": "Kubernetes",
        "NAME": "app-{i}",
        "WORKLOAD_NAME": "app-{i}",
        "LABELS": {"app": "app-{i}", "version": "v1"},
        "SERVICE_ACCOUNT": "app-{i}",
        "INSTANCE_IPS": "{ip}",
    }
    words = ["-on-demand", str(case.calls), "-services", str(case.services), "-metadata", json.dumps(metadata)]
    return [*words, "-vip", f"vip/{{ip}}:{worlds.PORT}"]


def _trial(fleet: Sidecars, plane: ControlPlane, world: worlds.World, phase: str, number: int) -> Line:
    _calm(plane)
    before = plane.metric("tulle_engine_queries_total")
    source, target = getattr(world, phase)(number)
    line = fleet.rename(f"{_NAMES_OF_TRIALS[phase]}{number}", source, target)
    return {**line, "queries": plane.metric("tulle_engine_queries_total") - before}


def _calm(plane: ControlPlane) -> None:
    """The last trial's end is not the next one's beginning."""
    deadline = time.monotonic() + _MAX_CALM_S
    seen = -1.0
    while time.monotonic() < deadline and (now := plane.metric("tulle_push_queue")) != seen:
        seen = now
        time.sleep(0.25)


def _is_proven(line: Line, edit: int) -> bool:
    """Whether every sidecar that holds the edited service holds exactly the new weights."""
    return bool(line["weights"].get(worlds.weights(edit), 0) == line["holders"] == line["changed_clients"])


def _cold(line: Line, case: Case) -> Row:
    return {
        "seconds": rounded(line["last_ms"] / 1000),
        "middleSeconds": rounded(line["p50_ms"] / 1000),
        "cpuSeconds": line["server_cpu_to_ready_s"],
        "ready": line["ready"],
        "bytes": line["bytes"],
        "bytesPerStream": line["bytes"] // case.sidecars,
        "bytesByType": {
            name: line[f"bytes_{name}"] for name in ("CDS", "EDS", "LDS", "RDS", "VHDS") if f"bytes_{name}" in line
        },
        "peakMiB": line["server_hwm_mib"],
        "residentMiB": line["server_rss_mib"],
        "clientCpuSeconds": line["client_cpu_s"],
        "reconnects": line["reconnects"],
        "clusters": line["clusters"],
        "virtualHosts": line["hosts"],
    }


def _summary(lines: list[Line], case: Case) -> Row:
    """Medians, and all values they come from."""
    middle = {name: rounded(median([float(line[name]) for line in lines])) for name in ("last_ms", "p50_ms", "bytes")}
    holders = [line["changed_clients"] for line in lines]
    return {
        "milliseconds": middle["last_ms"],
        "middleMilliseconds": middle["p50_ms"],
        "cpuSeconds": rounded(median([line["server_cpu_s"] for line in lines])),
        "bytes": middle["bytes"],
        "bytesPerHolder": rounded(middle["bytes"] / (holders[0] or case.sidecars)),
        "changed": holders,
        "holders": lines[0]["holders"],
        "queries": [line["queries"] for line in lines],
        "all": {
            "milliseconds": [line["last_ms"] for line in lines],
            "cpuSeconds": [line["server_cpu_s"] for line in lines],
        },
        "peakMiB": max(line["server_hwm_mib"] for line in lines),
        "reconnects": sum(line["reconnects"] for line in lines),
    }


HEAD = ("phase", "time ms", "CPU s", "kB", "changed", "queries", "time : istiod", "CPU : istiod", "bytes : istiod")


class Phase(NamedTuple):
    """One line of the table."""

    name: str
    seconds: float
    cpu_seconds: float
    size: float
    changed: str
    queries: float

    def cells(self, key: Row) -> tuple[str, ...]:
        """Against istiod where it was measured; a dash where it was not."""
        known = istiod.reference(self.name, key["sidecars"]) if key["services"] == istiod.SHAPE[0] else None
        took = "-" if self.seconds < 0 else f"{self.seconds * 1000:,.0f}"
        mine = (took, f"{self.cpu_seconds:.2f}", f"{self.size / 1000:,.0f}", self.changed, f"{self.queries:,.0f}")
        if known is None:
            return (self.name, *mine, "-", "-", "-")
        compared = (
            (self.seconds, known.seconds),
            (self.cpu_seconds, known.cpu_seconds),
            (self.size / 1e6, known.megabytes),
        )
        return (self.name, *mine, *(_ratio(*pair) for pair in compared))


def lines(row: Row) -> list[tuple[str, ...]]:
    """The table of one case."""
    cold = row["cold"]
    found = [Phase("cold", cold["seconds"], cold["cpuSeconds"], cold["bytes"], str(cold["ready"]), cold["queries"])]
    for name in PHASES:
        one = row["trials"][name]
        changed = "/".join(map(str, sorted(set(one["changed"]))))
        found.append(
            Phase(name, one["milliseconds"] / 1000, one["cpuSeconds"], one["bytes"], changed, max(one["queries"]))
        )
    return [phase.cells(row["key"]) for phase in found]


def _ratio(value: float, against: float) -> str:
    """As the share it is: `1/34`, or a factor where it is more."""
    if not against or value < 0:
        return "-"
    return fraction(value / against)


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    return "\n\n".join(f"{title(row)}\n{table(HEAD, lines(row))}\n{notes(row)}" for row in rows)


def title(row: Row) -> str:
    """What was measured."""
    key = row["key"]
    how = "full push" if key["discovery"] == "full" else f"on demand, each sidecar calls {key['calls']}"
    return f"{key['services']:,} services of 10 endpoints, {key['sidecars']:,} sidecars, {how}"


def notes(row: Row) -> str:
    """What stands below the table."""
    cold, loaded, beside = row["cold"], row["loaded"], row["machine"]
    peak = max(row["memoryMiB"]["most"], cold["peakMiB"])
    share = f" ({_ratio(peak * 1.048576, istiod.PEAK_MB)} of istiod's)" if _is_reference(row["key"]) else ""
    holders = row["trials"]["weight"]["holders"]
    proof = row["proof"][-1] if row["proof"] else {}
    proven = "the last sidecar holds the new weights" if row["isProven"] else "NOT PROVEN: weights held"
    return "; ".join(
        [
            f"loaded from files in {loaded['seconds']:.2f} s ({loaded['cpuSeconds']:.2f} CPU-s)",
            f"peak {peak:.0f} MiB{share}, {row['memoryMiB']['resident']:.0f} MiB at the end",
            f"{cold['bytesPerStream']:,} bytes per stream at the start",
            f"{holders} hold the edited service, {row['trials']['weight']['bytesPerHolder']:,.0f} bytes per holder and weight edit",
            f"{proven} ({json.dumps(proof)})",
            f"{row['engineNodes']:,.0f} engine nodes",
            f"{cold['reconnects'] + sum(one['reconnects'] for one in row['trials'].values())} reconnects",
            f"calibration loop {beside['calibrationMs'][0]} and {beside['calibrationMs'][1]} ms",
        ]
    )


def _is_reference(key: Row) -> bool:
    return (key["services"], key["sidecars"]) == istiod.SHAPE


def arguments(parser: Any) -> None:
    """Of the command line."""
    parser.add_argument("--grid", choices=sorted(GRIDS), default="default")
    parser.add_argument("--services", type=int, help="instead of a grid: one point, with --sidecars")
    parser.add_argument("--sidecars", type=int, default=100)
    parser.add_argument("--discovery", choices=("full", "on-demand"), default="full")
    parser.add_argument("--calls", type=int, default=20, help="on demand: services each sidecar calls")
    parser.add_argument("--repeat", type=int, default=3)


def run(given: Any) -> list[Row]:
    """What the command line asks for."""
    if given.services is None:
        return measure(GRIDS[given.grid], given.repeat)
    calls = given.calls if given.discovery == "on-demand" else 0
    return measure([Case(given.services, given.sidecars, given.discovery, calls)], given.repeat)
