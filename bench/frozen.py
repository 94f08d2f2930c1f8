"""One client that stands still among many: what the others notice of it, in their start, in small edits and in large ones.

Rounds of pairs: the others hang up and start again all at once, and edits are made, once beside a proxy that is awake and once
beside one that is stopped (SIGSTOP) when it was live, or in the middle of the first response to it. A ratio is taken within its
round, so what the machine does meanwhile strikes both. In the end the stopped one goes on, and must hold the newest.
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
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from bench import worlds
from bench.building import CannotMeasureError, adsload
from bench.churn import pods
from bench.control_process import ControlPlane, Line, Sidecars, control_plane, sidecars
from bench.figures import median, paired_ratios, rounded, spread
from bench.local_mesh import asked
from bench.machine import memory
from bench.results import Row
from bench.ways import envoy

LIVE, STARTING = "stopped when live", "stopped in its start"
PHASES = ("cold", "weight", "endpoint", "bulk")
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


class _Others(NamedTuple):
    """Everybody else, and what is done to them."""

    fleet: Sidecars
    world: worlds.World
    size: int
    edits: Iterator[int]

    def measured(self) -> dict[str, Line]:
        """A start of all of them, then one edit of each kind."""
        cold = self.fleet.tell(f"cold: @reconnect {self.size} {self.size}")
        return {"cold": cold, **{phase: self._trial(phase, next(self.edits)) for phase in PHASES[1:]}}

    def weigh(self, first: int) -> Line:
        """Another weight."""
        return self.fleet.rename("more", *_weight(self.world, first))

    def _trial(self, phase: str, number: int) -> Line:
        shape = worlds.Shape(1)
        found, name = {
            "weight": (shape.split(0, 1 + number % 80), "weight.yaml"),
            "endpoint": (shape.entry(0, 1 + number % 100), "endpoint.yaml"),
            "bulk": (_rule(number), "bulk.yaml"),
        }[phase]
        return self.fleet.rename(phase, _put(self.world, found), self.world.config / name)


def measure(case: Case, repeat: int) -> Row:
    """One way. Raises CannotMeasureError."""
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        place = Path(folder)
        world = worlds.write(worlds.Shape(case.services), place)
        with control_plane(world.config, place, {}) as plane:
            pods(1, place / "run")
            with sidecars(adsload(), plane, case.others, place, ["-quiet", "100ms"]) as fleet:
                fleet.answer()
                others = _Others(fleet, world, case.others, count(1))
                others.measured()  # the first of anything is another thing
                return _measured(case, plane, others, place, repeat)


def _measured(case: Case, plane: ControlPlane, others: _Others, place: Path, repeat: int) -> Row:
    without, beside = [], []
    for at in range(repeat):
        for is_still in (at % 2 == 0, at % 2 == 1):  # who is first takes turns
            if is_still:
                with _still(case.how, plane, others.world, place):
                    beside.append(others.measured())
            else:
                without.append(others.measured())
    return {
        "rounds": repeat,
        "phases": {phase: _pair([one[phase] for one in without], [one[phase] for one in beside]) for phase in PHASES},
        "failed": sum(one["cold"]["failed"] for one in (*without, *beside)),
        "missed": sum(
            one[phase]["changed_clients"] != case.others for one in (*without, *beside) for phase in PHASES[1:]
        ),
        **_going_on(case.how, plane, others, place),
    }


def _going_on(how: str, plane: ControlPlane, others: _Others, place: Path) -> Row:
    """What it costs to let one stand still for many edits, and whether it has the last of them when it goes on."""
    with _still(how, plane, others.world, place) as one:
        before = memory(plane.pid)["resident"]
        for number in range(MORE_EDITS):
            others.weigh(1 + number % 80)
        after, state = memory(plane.pid), _state(one.pid)
        os.kill(one.pid, signal.SIGCONT)
        last = others.weigh(85)
        return {
            "stateOfOne": state,
            "moreEdits": MORE_EDITS,
            "beforeMoreMiB": before,
            "afterMoreMiB": after["resident"],
            "mostMiB": after["most"],
            "lastChanged": last["changed_clients"],
            "oneHoldsTheLast": one.holds_the_last(),
        }


def _pair(without: Sequence[Line], beside: Sequence[Line]) -> Row:
    """Middles of the last one's time, and quartiles of the ratios within a round."""
    took = [[line["last_ms"] for line in lines] for lines in (without, beside)]
    return {
        "withoutMs": rounded(median(took[0])),
        "besideMs": rounded(median(took[1])),
        "mostWithoutMs": rounded(max(took[0])),
        "mostBesideMs": rounded(max(took[1])),
        "ratio": [rounded(one) for one in spread(paired_ratios(took[1], took[0]))],
        "bytesPerClient": round(
            median([line["bytes"] / line.get("changed_clients", line.get("count")) for line in beside])
        ),
    }


def _weight(world: worlds.World, first: int) -> tuple[Path, Path]:
    return _put(world, worlds.Shape(1).split(0, first)), world.config / "weight.yaml"


def _put(world: worlds.World, found: worlds.Object) -> Path:
    fresh = world.edits / "next.yaml"
    fresh.write_text(worlds.documents_as_json([found]))
    return fresh


def _rule(number: int) -> worlds.Object:
    """Of the whole mesh: two thirds of all clusters change with it."""
    policy = {"connectionPool": {"tcp": {"maxConnections": 1000 + number}}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "all", "namespace": "istio-system"},
        "spec": {"host": "*.svc.cluster.local", "trafficPolicy": policy},
    }


def _state(pid: int) -> str:
    """T: stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]


# --- the one -------------------------------------------------------------------------------------------------------------


@contextmanager
def _still(how: str, plane: ControlPlane, world: worlds.World, place: Path) -> Iterator[_One]:
    """One that stands still."""
    if how == LIVE:
        with _envoy(place) as one:
            os.kill(one.pid, signal.SIGSTOP)
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
    lines = [
        f"{phase}: last of the others after {one['withoutMs']:,} ms without, {one['besideMs']:,} ms beside it "
        f"(ratio {one['ratio'][1]}, quartiles {one['ratio'][0]} to {one['ratio'][2]}; "
        f"most {one['mostWithoutMs']:,} and {one['mostBesideMs']:,}), {one['bytesPerClient']:,} bytes each"
        for phase, one in row["phases"].items()
    ]
    held = "holds the last edit" if row["oneHoldsTheLast"] else "DOES NOT HOLD the last edit"
    lines.append(
        f"{row['rounds']} rounds, {row['failed'] + row['missed']} failed; the one is {row['stateOfOne']}; control plane "
        f"{row['beforeMoreMiB']} -> {row['afterMoreMiB']} MiB in {row['moreEdits']} further edits (most {row['mostMiB']}); "
        f"going on, it {held}"
    )
    return "\n".join(lines)
