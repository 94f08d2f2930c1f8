"""From executing `tulle up` to the first page through the mesh, timed by this process, which is none of the mesh's.

Bookinfo as it travels in the package: nine pods, eleven proxies, STRICT mTLS. The page is asked for at the gateway until it is
there whole (status 200: details, reviews and, of two versions of three, ratings have answered). Proof that it came by mTLS is the
log of productpage's own sidecar: the peer of its first requests is the gateway's identity. The first round warms the machine (page
cache, byte code, the mesh's root) and is not counted.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any

from bench.building import CannotMeasureError
from bench.local_mesh import TULLE, LocalMesh, tulle
from bench.machine import ROOT, cpu_seconds
from bench.results import Recorder, Row, table

NAME = "first-answer"
LIMIT_SECONDS = 3.0
GATEWAY = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway"
_BOOKINFO = ROOT / "src" / "tulle" / "examples" / "bookinfo"
_PATIENCE = 60.0
_PAUSE = 0.02
_LOG_FLUSH = 1.2
"""Envoy writes its log once a second."""


def measured(recorder: Recorder, rounds: int) -> Row:
    """Seconds of every round, what the mesh's processes cost until then, and the peer in productpage's log."""
    with tempfile.TemporaryDirectory() as folder:
        found = [_round(Path(folder)) for _ in range(rounds + 1)][1:]
    return recorder.row(
        {"example": "bookinfo"},
        {
            "seconds": [one["seconds"] for one in found],
            "cpuSeconds": [one["cpu"] for one in found],
            "peer": found[0]["peer"],
        },
    )


def _round(state: Path) -> dict[str, Any]:
    name, port = f"first-{secrets.token_hex(3)}", 20_000 + secrets.randbelow(10_000)
    line = [str(TULLE), "up", str(_BOOKINFO), "--name", name, "--port", f"80={port}"]
    # Without what keeps Python from remembering byte code: a machine that remembers nothing is not warm.
    environment = {word: value for word, value in os.environ.items() if word != "PYTHONDONTWRITEBYTECODE"}
    environment["XDG_STATE_HOME"] = str(state)
    began = time.monotonic()
    up = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env=environment)
    try:
        seconds = _first_page(up, port, began)
        cpu = sum(cpu_seconds(pid) for pid in _family(up.pid))
        time.sleep(_LOG_FLUSH)
        return {"seconds": round(seconds, 3), "cpu": round(cpu, 2), "peer": _proof(LocalMesh(name))}
    finally:
        up.terminate()
        up.communicate(timeout=_PATIENCE)


def _first_page(up: subprocess.Popen[bytes], port: int, began: float) -> float:
    while time.monotonic() < began + _PATIENCE:
        if _is_there(port):
            return time.monotonic() - began
        if up.poll() is not None:
            said = up.stderr.read().decode() if up.stderr else ""
            raise CannotMeasureError(f"tulle up: {said.strip()[-600:]}")
        time.sleep(_PAUSE)
    raise CannotMeasureError(f"no page within {_PATIENCE:.0f} s")


def _is_there(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/productpage")
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return answer.status == 200


def _family(root: int) -> Iterator[int]:
    """A process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
            children.setdefault(parent, []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _proof(mesh: LocalMesh) -> str:
    """The gateway's identity, as productpage's sidecar saw it. Raises CannotMeasureError where it did not."""
    pods = json.loads(tulle("ps", "--mesh", mesh.name, "-o", "json"))["items"]
    page = next(pod["name"] for pod in pods if pod["labels"].get("app") == "productpage")
    log = mesh.run / "logs" / "bookinfo" / page / "proxy.log"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    peers = {line.get("downstream_peer") for line in lines if line.get("reporter") == "destination"}
    if GATEWAY not in peers:
        raise CannotMeasureError(f"the page did not come from {GATEWAY} but from {sorted(map(str, peers))}")
    return GATEWAY


HEAD = ("example", "seconds", "best", "worst", "CPU s", "rounds", "peer in productpage's log")


def cells(row: Row) -> tuple[str, ...]:
    """One row of a table."""
    seconds = row["seconds"]
    times = tuple(f"{value:.2f}" for value in (median(seconds), min(seconds), max(seconds), median(row["cpuSeconds"])))
    return (row["key"]["example"], *times, str(len(seconds)), row["peer"])


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    loops = {str(loop) for row in rows for loop in row["machine"]["calibrationMs"]}
    return f"{table(HEAD, map(cells, rows))}\ncalibration loop {' and '.join(sorted(loops))} ms"


def arguments(parser: Any) -> None:
    """Options of the command line."""
    parser.add_argument("--rounds", type=int, default=5, help="meshes that are started and counted")


def run(given: Any) -> list[Row]:
    """One row."""
    return [measured(Recorder(), given.rounds)]
