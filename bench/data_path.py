"""What a request costs on its way through two sidecars: CPU time of both, and latency, paired with the plain pair's.

All ways run side by side. A cycle measures each of them once per rate, in random order, in a window of a second or two; a ratio
is taken within its cycle, so what the machine does meanwhile strikes both. The middle and the quartiles of the ratios are told.

Load enters tulle's ways through the capture rules of the pod (the client connects to the Service's address). The plain pair and
the relays have no capture: their clients connect to A at 127.0.0.1. All pods are joined by the same bridge.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.building import loadgen
from bench.figures import Spread, median, paired_ratios, rounded, spread
from bench.local_mesh import inside
from bench.machine import memory
from bench.results import Recorder, Row, table
from bench.ways import (
    BYTES,
    HALF,
    PLAIN,
    RELAY,
    TRAFFIC,
    TULLE,
    TUNNEL,
    WAYS,
    WITH,
    Machinery,
    Traffic,
    Way,
    machinery,
    parsed,
    ways,
)

NAME = "data-path"
CONNECTIONS = 64
WARM_SECONDS = 0.4
RATES = (2000, 0)
_NEW_RATES = (300, 0)
"""A handshake per request costs more."""
ORDER = ("direct", RELAY, BYTES, TUNNEL, HALF, PLAIN, *WITH, *TULLE)
Window = dict[str, Any]


class Plan(NamedTuple):
    """How much is measured."""

    traffic: tuple[str, ...]
    ways: tuple[str, ...]
    cycles: int
    seconds: float


def measure(plan: Plan) -> list[Row]:
    """One row per traffic, rate and way. Raises CannotMeasureError."""
    program = loadgen()
    recorder = Recorder()
    ours = [name for name in plan.ways if name in TULLE]
    with (
        tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder,
        machinery(Path(folder), program, ours) as made,
    ):
        rows: list[Row] = []
        for name in plan.traffic:
            rows += _measured(made, TRAFFIC[name], plan, recorder)
        return rows


def _measured(made: Machinery, traffic: Traffic, plan: Plan, recorder: Recorder) -> list[Row]:
    chosen = ways(made, plan.ways, traffic)
    proofs, failed = {}, {}
    for way in chosen:
        before = parsed(way)
        probe = _window(made, way, traffic, 300, 0.5)
        if "failed" in probe:
            failed[way.name] = probe["failed"]
        proofs[way.name] = _who_parsed(before, parsed(way))
    working = [way for way in chosen if way.name not in failed]
    rates = _NEW_RATES if traffic.closes else RATES
    windows: dict[tuple[int, str], list[Window]] = defaultdict(list)
    for _ in range(plan.cycles):
        for rate in rates:
            for way in random.sample(working, len(working)):
                windows[rate, way.name].append(_window(made, way, traffic, rate, plan.seconds))
    rows = []
    for rate in rates:
        for way in working:
            key = {"traffic": traffic.name, "rate": rate, "way": way.name}
            found = _summary(windows[rate, way.name], windows.get((rate, PLAIN), []))
            memories = [memory(pid)["private"] for pid in way.proxies]
            proof = {"parsedBy": proofs[way.name], "privateMiB": memories, "connections": CONNECTIONS}
            rows.append((key, {**found, **proof}))
    rows += [
        ({"traffic": traffic.name, "rate": rates[0], "way": name}, {"failed": why}) for name, why in failed.items()
    ]
    return [recorder.row(key, found) for key, found in rows]


def _who_parsed(before: tuple[float, float], after: tuple[float, float]) -> str:
    sides = [side for side, then, now in zip("AB", before, after, strict=True) if now > then]
    return "+".join(sides)


def _window(made: Machinery, way: Way, traffic: Traffic, rate: int, seconds: float) -> Window:
    words: list[str | Path] = [made.loadgen, "load", "-a", way.address, "-H", way.host, "-k", traffic.kind]
    words += ["-c", str(CONNECTIONS), "-r", str(rate), "-d", str(seconds), "-w", str(WARM_SECONDS)]
    words += ["-p", ",".join(map(str, way.proxies)), "--close", str(int(traffic.closes))]
    line = inside(way.client, words, made.guide)
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=seconds + 30)
    if done.returncode:
        return {"failed": done.stderr.strip()[-200:]}
    return dict(json.loads(done.stdout))


def _summary(windows: Sequence[Window], plain: Sequence[Window]) -> Row:
    """Medians over the cycles; ratios within them. Cycles in which either failed are left out, and counted."""
    paired = list(zip(windows, plain, strict=True)) if plain else [(one, one) for one in windows]
    good = [(mine, base) for mine, base in paired if not {"failed"} & (mine.keys() | base.keys())]
    if not good:
        return {"failed": windows[0].get("failed", "no cycle was complete")}
    mine = [one for one, _ in good]
    cpu = [sum(one["cpu"]) for one in mine]
    found: Row = {
        "windows": len(good),
        "failedWindows": len(paired) - len(good),
        "requests": sum(one["requests"] for one in mine),
        "errors": sum(one["errors"] for one in mine),
        "rps": rounded(median([one["rps"] for one in mine])),
        "p50": rounded(median([one["p50"] for one in mine])),
        "p99": rounded(median([one["p99"] for one in mine])),
        "cpu": _three(cpu),
    }
    if mine[0]["cpu"]:
        found["cpuOfEach"] = [rounded(median([one["cpu"][at] for one in mine])) for at in range(2)]
        if plain:
            found["ratio"] = _three(paired_ratios(cpu, [sum(base["cpu"]) for _, base in good]))
    return found


def _three(values: Sequence[float]) -> list[float]:
    return [rounded(value) for value in Spread(*spread(values))]


HEAD = (
    "way",
    "parses",
    "CPU us/request",
    "A",
    "B",
    ": plain pair",
    "quartiles",
    "requests/s",
    "p50 us",
    "p99 us",
    "errors",
    "MiB",
)


_NAMES = {
    RELAY: "TCP relays",
    BYTES: "plain Envoys, bytes",
    TUNNEL: "plain Envoys, tunnel",
    HALF: "plain Envoys, A parses",
    PLAIN: "plain Envoys",
    "direct": "no proxy",
}


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    way = row["key"]["way"]
    name = _NAMES.get(way, f"tulle {way}")
    if way in WITH:
        name = f"... and {WITH[way]}"
    if "failed" in row:
        return (name, "failed: " + row["failed"], *[""] * (len(HEAD) - 2))
    a, b = (f"{one:.0f}" for one in row["cpuOfEach"]) if "cpuOfEach" in row else ("-", "-")
    ratio = row.get("ratio")
    middle, around = (f"{ratio[1]:.2f}", f"{ratio[0]:.2f} to {ratio[2]:.2f}") if ratio else ("-", "")
    memories = " ".join(f"{one:.0f}" for one in row["privateMiB"]) or "-"
    parses = {RELAY: "-", BYTES: "-", TUNNEL: "-", HALF: "A", "direct": "-", PLAIN: "A+B"}.get(
        way, "A+B" if way in WITH else row["parsedBy"] or "nobody"
    )
    figures = (f"{row['rps']:,.0f}", f"{row['p50']:,.0f}", f"{row['p99']:,.0f}", str(row["errors"]), memories)
    cost = f"{row['cpu'][1]:.0f}" if "cpuOfEach" in row else "-"
    return (name, parses, cost, a, b, middle, around, *figures)


def groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows that belong in one table, in the order of the ways."""
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["key"]["traffic"], row["key"]["rate"]].append(row)
    order = {name: place for place, name in enumerate(TRAFFIC)}
    keys = sorted(found, key=lambda key: (order[key[0]], key[1] == 0, key[1]))
    return [(title(*key), sorted(found[key], key=lambda row: ORDER.index(row["key"]["way"]))) for key in keys]


TITLES = {
    "http1": "HTTP/1.1, kept connections",
    "http2": "HTTP/2",
    "grpc": "gRPC, unary",
    "tcp": "TCP port (the same bytes, nobody parses)",
    "new": "HTTP/1.1, a new connection per request",
}


def title(traffic: str, rate: int) -> str:
    """What was sent."""
    return f"{TITLES[traffic]}, {f'{rate:,} requests/s' if rate else 'as many as possible'}"


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    parts = [f"{name}\n{table(HEAD, map(cells, found))}" for name, found in groups(rows)]
    loops = [value for row in rows for value in row["machine"]["calibrationMs"]]
    return "\n\n".join([*parts, f"calibration loop {min(loops)} to {max(loops)} ms"])


def arguments(parser: Any) -> None:
    """Of the command line."""
    parser.add_argument("--traffic", default="http1", help=f"comma-separated, of {', '.join(TRAFFIC)}")
    parser.add_argument("--ways", default=",".join(WAYS), help="comma-separated; ratios want `plain` among them")
    parser.add_argument("--cycles", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one window")


def run(given: Any) -> list[Row]:
    """What the command line asks for."""
    return measure(Plan(tuple(given.traffic.split(",")), tuple(given.ways.split(",")), given.cycles, given.seconds))
