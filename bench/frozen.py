"""One client that stands still among many: what the others notice of it, in their start, in small edits and in large ones.

Each way has a control plane of its own, with one proxy that is awake, stopped (SIGSTOP) when it was live, or stopped in the middle
of the first response to it; then the others start, and edits are made. At the end the stopped one goes on, and must hold the newest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from bench import worlds
from bench.building import CannotMeasureError, adsload
from bench.churn import pods
from bench.control_process import ControlPlane, Line, Sidecars, control_plane, sidecars
from bench.figures import median, rounded
from bench.local_mesh import asked
from bench.machine import memory
from bench.results import Row
from bench.ways import envoy

AWAKE, LIVE, STARTING = "awake", "stopped when live", "stopped in its start"
PHASES = ("weight", "endpoint", "bulk")
WINDOW_BYTES, STOP_AFTER_BYTES = 64 * 1024, 100_000
"""Of the one that stops in its start: much less than what it is sent."""
MORE_EDITS = 100
"""While it stands still, to see whether what waits for it grows."""
LAST = "85/15"
_LIVE_SECONDS = 60.0


class Case(NamedTuple):
    """One row."""

    how: str
    services: int
    others: int

    @property
    def key(self) -> Row:
        """What makes it another result."""
        return {"what": "frozen", "one": self.how, "services": self.services, "others": self.others}


class _One(NamedTuple):
    """The proxy that may stand still."""

    pid: int
    holds_the_last: Callable[[], bool]
    """Whether it has caught up, some time after it went on."""


def measure(case: Case, repeat: int) -> Row:
    """One way. Raises CannotMeasureError."""
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        place = Path(folder)
        world = worlds.write(worlds.Shape(case.services), place)
        _write_bulk(world, repeat)
        with control_plane(world.config, place, {}) as plane:
            pods(1, place / "run")
            with _one(case.how, plane, world, place) as one:
                if case.how == LIVE:
                    os.kill(one.pid, signal.SIGSTOP)
                with sidecars(adsload(), plane, case.others, place, ["-quiet", "100ms"]) as fleet:
                    return _measured(plane, world, one, fleet, repeat)


def _measured(plane: ControlPlane, world: worlds.World, one: _One, fleet: Sidecars, repeat: int) -> Row:
    cold = fleet.answer()
    trials = {phase: [_trial(fleet, world, phase, at + 1) for at in range(repeat)] for phase in PHASES}
    before = memory(plane.pid)["resident"]
    state = _state(one.pid)
    for number in range(MORE_EDITS):
        fleet.rename("more", *_weight(world, 1 + number % 80))
    after = memory(plane.pid)
    os.kill(one.pid, signal.SIGCONT)
    last = fleet.rename("last", *_weight(world, 85))
    return {
        "cold": {name: cold[f"{name}_ms"] for name in ("p50", "p99", "last")} | {"ready": cold["ready"]},
        "trials": {phase: _summary(lines) for phase, lines in trials.items()},
        "changed": [line["changed_clients"] for lines in trials.values() for line in lines],
        "stateOfOne": state,
        "moreEdits": MORE_EDITS,
        "beforeMoreMiB": before,
        "afterMoreMiB": after["resident"],
        "mostMiB": after["most"],
        "lastChanged": last["changed_clients"],
        "oneHoldsTheLast": one.holds_the_last(),
    }


def _trial(fleet: Sidecars, world: worlds.World, phase: str, number: int) -> Line:
    if phase == "bulk":
        source, target = world.edits / f"bulk{number}.yaml", world.config / "bulk.yaml"
    else:
        source, target = getattr(world, phase)(number)
    return fleet.rename(f"{phase}{number}", source, target)


def _weight(world: worlds.World, first: int) -> tuple[Path, Path]:
    fresh = world.edits / "next.yaml"
    fresh.write_text(worlds.documents_as_json([worlds.Shape(1).split(0, first)]))
    return fresh, world.config / "weight.yaml"


def _write_bulk(world: worlds.World, count: int) -> None:
    """A rule of the whole mesh: two thirds of all clusters change with it."""
    for number in range(count):
        spec = {
            "host": "*.svc.cluster.local",
            "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 1000 + number}}},
        }
        metadata = {"name": "all", "namespace": "istio-system"}
        rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec}
        (world.edits / f"bulk{number + 1}.yaml").write_text(worlds.documents([rule]))


def _summary(lines: Sequence[Line]) -> Row:
    return {
        "p50": rounded(median([line["p50_ms"] for line in lines])),
        "last": rounded(median([line["last_ms"] for line in lines])),
        "most": rounded(max(line["last_ms"] for line in lines)),
        "bytesPerClient": round(median([line["bytes"] / max(1, line["changed_clients"]) for line in lines])),
    }


def _state(pid: int) -> str:
    """T: stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]


# --- the one -------------------------------------------------------------------------------------------------------------


@contextmanager
def _one(how: str, plane: ControlPlane, world: worlds.World, place: Path) -> Iterator[_One]:
    """Connected, and live unless it stops before that."""
    if how != STARTING:
        with _envoy(place) as one:
            yield one
        return
    words = ["-window", str(WINDOW_BYTES), "-stop-after", str(STOP_AFTER_BYTES)]
    with sidecars(adsload(), plane, 1, place, words) as lone:
        _until(lambda: _state(lone.pid) == "T", "the client did not stop")
        try:
            yield _One(lone.pid, lambda: _catches_up(lone, world))
        finally:
            os.kill(lone.pid, signal.SIGCONT)


def _catches_up(lone: Sidecars, world: worlds.World) -> bool:
    if lone.answer()["ready"] != 1:
        return False
    return bool(lone.rename("own", *_weight(world, 84))["weights"] == {"84/16": 1})


@contextmanager
def _envoy(place: Path) -> Iterator[_One]:
    """A real one on a pod's socket, in a network of its own: its listeners are nobody's business here."""
    admin = place / "envoy.sock"
    with (place / "envoy.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("unshare", "-rn", str(envoy()), "--config-yaml", json.dumps(_bootstrap(place, admin))),
                *("--concurrency", "1", "--disable-hot-restart", "-l", "error"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        _until(lambda: _is_live(admin), f"Envoy did not become live: {(place / 'envoy.log').read_text()[-300:]}")
        yield _One(process.pid, lambda: _arrives(admin))
    finally:
        process.kill()
        process.wait()


def _arrives(admin: Path) -> bool:
    with suppress(CannotMeasureError):
        _until(lambda: _weights_of(json.loads(asked(admin, "/config_dump"))) == LAST, "it never came")
        return True
    return False


def _is_live(admin: Path) -> bool:
    try:
        return asked(admin, "/ready").startswith("LIVE")
    except OSError:
        return False


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LIVE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise CannotMeasureError(what)
        time.sleep(0.05)


def _weights_of(found: Any) -> str:
    """Of the one route with weighted clusters to service 0, somewhere in a dump; empty where there is none."""
    if isinstance(found, dict):
        clusters = found.get("clusters")
        if isinstance(clusters, list) and clusters and "|svc-0." in str(clusters[0].get("name", "")):
            return "/".join(str(one.get("weight", 0)) for one in clusters)
        found = list(found.values())
    if isinstance(found, list):
        return next((said for one in found if (said := _weights_of(one))), "")
    return ""


def _bootstrap(place: Path, admin: Path) -> dict[str, Any]:
    pipe = {"pipe": {"path": str(place / "run" / "xds" / "pod-0" / "xds.sock")}}
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    cluster = {
        "name": "xds",
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": pipe}}]}],
        },
    }
    source = {"ads": {}, "resource_api_version": "V3"}
    ads = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        "set_node_on_first_message_only": True,
    }
    return {
        "node": {"id": "sidecar~12.0.0.1~app-0.ns-0~cluster.local", "cluster": "app-0"},
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {"clusters": [cluster]},
        "dynamic_resources": {"ads_config": ads, "cds_config": source, "lds_config": source},
    }


def text(row: Row) -> str:
    """For a terminal."""
    cold = row["cold"]
    lines = [f"cold start of the others: p50 {cold['p50']:,.0f}, p99 {cold['p99']:,.0f}, last {cold['last']:,.0f} ms"]
    lines += [
        f"{phase}: p50 {one['p50']:,} ms, last {one['last']:,} ms (most {one['most']:,}), {one['bytesPerClient']:,} bytes each"
        for phase, one in row["trials"].items()
    ]
    held = "holds the last edit" if row["oneHoldsTheLast"] else "DOES NOT HOLD the last edit"
    lines.append(
        f"the one is {row['stateOfOne']}; control plane {row['beforeMoreMiB']} -> {row['afterMoreMiB']} MiB in "
        f"{row['moreEdits']} further edits (most {row['mostMiB']}); going on, it {held}"
    )
    return "\n".join(lines)
