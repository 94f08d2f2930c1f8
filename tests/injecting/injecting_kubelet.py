"""Bootstraps as the kubelet hands them over, and a real Envoy that runs one."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tulle.compile.envoy.cluster_bootstrap import (
    ADMIN_SOCKET,
    ROOT_DIRECTORY,
    ROOT_RESOURCE,
    TOKEN_DIRECTORY,
    root_resource,
)
from tulle.local.envoys import binary

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """What the kubelet makes of an argument: `$(NAME)` by value, `$$` is a dollar, the rest stays."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)", value, text)


def environment(container: Json, fields: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container, its downward API answered from `fields`; later entries may use earlier ones."""
    made: dict[str, str] = {}
    for entry in container["env"]:
        if "valueFrom" in entry:
            made[entry["name"]] = fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            made[entry["name"]] = expanded(entry["value"], made)
    return made


FIELDS = {
    "metadata.name": "reviews-1",
    "metadata.uid": "0b5b7f0c-94a6-4d35-a9b5-4e1ad2a3c111",
    "metadata.namespace": "shop",
    "status.podIP": "127.0.0.1",
    "spec.serviceAccountName": "reviews",
}


def proxy_of(pod: Json) -> Json:
    containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    return next(one for one in containers if one["name"] == "istio-proxy")


def started(pod: Json, directory: Path, roots: str) -> tuple[list[str], dict[str, str]]:
    """Envoy's command line and environment as the kubelet would start it, its mounts being folders of `directory`."""
    container = proxy_of(pod)
    variables = environment(container, FIELDS)
    root, token = directory / "root", directory / "token"
    root.mkdir(exist_ok=True)
    token.mkdir(exist_ok=True)
    (root / ROOT_RESOURCE).write_text(root_resource(roots))
    (token / "token").write_text("header.claims.signature")
    places = {ROOT_DIRECTORY: str(root), TOKEN_DIRECTORY: str(token), ADMIN_SOCKET: str(directory / "admin.sock")}
    arguments = []
    for argument in container["args"]:
        text = expanded(argument, variables)
        for place, folder in places.items():
            text = text.replace(place, folder)
        arguments.append(text)
    return [str(binary()), *arguments], variables


def validated(pod: Json, directory: Path, roots: str) -> None:
    """Raises where the real Envoy refuses the proxy's arguments, or finds something deprecated in them."""
    command, variables = started(pod, directory, roots)
    done = subprocess.run(
        [*command, "--mode", "validate"], capture_output=True, text=True, timeout=60, check=False, env=variables
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def alone(
    pod: Json, directory: Path, roots: str, listener: str = "probes", clusters: Sequence[Json] = ()
) -> Iterator[tuple[int, str]]:
    """The pod's Envoy without a control plane, one listener of its bootstrap on a free port: the port, and the admin socket."""
    command, variables = started(pod, directory, roots)
    at = command.index("--config-yaml") + 1
    bootstrap = json.loads(command[at])
    del bootstrap["dynamic_resources"]
    port = free_port()
    kept = [one for one in bootstrap["static_resources"]["listeners"] if one["name"] == listener]
    kept[0]["address"]["socket_address"] |= {"address": "127.0.0.1", "port_value": port}
    bootstrap["static_resources"]["listeners"] = kept
    own = [one for one in bootstrap["static_resources"]["clusters"] if one["name"] != "xds-grpc"]
    bootstrap["static_resources"]["clusters"] = [*own, *clusters]
    command[at] = json.dumps(bootstrap)
    with running(command, variables, lambda: _listens(port)):
        yield port, str(directory / "admin.sock")


@contextlib.contextmanager
def running(
    command: Sequence[str], variables: Mapping[str, str], is_up: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """An Envoy, from when it is up."""
    process = subprocess.Popen(command, env=variables)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until and not is_up():
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def served(handle: Any, port: int = 0) -> Iterator[int]:
    """An HTTP server of the workload."""
    from http.server import ThreadingHTTPServer

    server = ThreadingHTTPServer(("127.0.0.1", port), handle)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
