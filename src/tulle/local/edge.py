"""The two edge proxies: one in the machine's network, one in the mesh's, joined by Unix sockets.

Published ports come in, everything that leaves the mesh goes out; both at the level of bytes. Their settings are
`compile.envoy.bootstrap`'s; which ports there are is decided by the supervisor.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tulle.compile.envoy import bootstrap
from tulle.compile.envoy.bootstrap import PublishedPort
from tulle.local import envoys, tethered
from tulle.local.fabric.client import Bind, Command, Fabric, Process
from tulle.local.logs import open_log
from tulle.local.places import Places

_PAUSE: Final = 0.2
_TRIES: Final = 2000
_WAIT: Final = 10.0


class Edge:
    """Both proxies and their files."""

    def __init__(self, places: Places, envoy: Path, fabric: Fabric) -> None:
        self._places = places
        self._envoy = envoy
        self._fabric = fabric
        self._host: asyncio.subprocess.Process | None = None
        self._inner: Process | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._written: dict[str, bytes] = {}

    @property
    def host_pid(self) -> int | None:
        """The proxy in the machine's network."""
        return self._host.pid if self._host is not None and self._host.returncode is None else None

    def publish(self, ports: tuple[PublishedPort, ...]) -> None:
        """Write what the proxies shall do; they notice by themselves."""
        directory = str(self._places.edge)
        files = {**bootstrap.host_edge_files(directory, ports), **bootstrap.fabric_edge_files(ports)}
        # Endpoints first: a cluster that is new must find them.
        for name in sorted(files, key=lambda name: (not name.startswith("eds-"), "lds" in name)):
            self._write(name, json.dumps(files[name]).encode())

    def _write(self, name: str, content: bytes) -> None:
        if self._written.get(name) == content:
            return
        self._written[name] = content
        target = self._places.edge / name
        temporary = target.with_name(f".{name}.new")
        temporary.write_bytes(content)
        temporary.rename(target)

    async def start(self, gate: asyncio.Semaphore) -> None:
        """Start both when the gate lets them, and keep them; `publish` must have been called."""
        loop = asyncio.get_running_loop()
        async with gate:
            await asyncio.gather(self._start_inner(), self._start_host())
            for admin in ("fabric-admin.sock", "host-admin.sock"):
                await envoys.awake(self._places.edge / admin)
        self._keepers = [loop.create_task(self._keep_host()), loop.create_task(self._keep_inner())]

    async def _start_host(self) -> None:
        directory = self._places.edge
        for stale in directory.glob("*.sock"):
            if stale.name in ("out.sock", "host-admin.sock"):
                stale.unlink()
        settings = bootstrap.host_edge(str(directory), str(directory / "host-admin.sock"))
        argv = envoys.command_line(self._envoy, settings)
        self._host = await tethered.spawn(argv, {}, self._places.run / "logs" / "edge-host.log")

    async def _start_inner(self) -> None:
        directory = self._places.edge
        for stale in (*directory.glob("in-*.sock"), directory / "fabric-admin.sock"):
            stale.unlink(missing_ok=True)
        binds = (
            Bind(str(self._envoy.parent)),
            Bind(str(directory), bootstrap.EDGE_DIRECTORY, writable=True),
        )
        argv = envoys.command_line(self._envoy, bootstrap.fabric_edge())
        command = Command(argv, None, kind="sidecar", hostname="edge", binds=binds)
        log = open_log(self._places.run / "logs" / "edge-fabric.log")
        try:
            self._inner = await self._fabric.spawn(command, log, log)
        finally:
            os.close(log)

    async def _keep_host(self) -> None:
        while True:
            assert self._host is not None
            await self._host.wait()
            await asyncio.sleep(_PAUSE)
            await self._start_host()

    async def _keep_inner(self) -> None:
        while True:
            assert self._inner is not None
            await self._inner.wait()
            await asyncio.sleep(_PAUSE)
            await self._start_inner()

    async def ready(self) -> bool:
        """Wait until both proxies serve; False when they do not in time."""
        sockets = [self._places.edge / name for name in ("host-admin.sock", "fabric-admin.sock")]
        try:
            async with asyncio.timeout(_WAIT):
                for admin in sockets:
                    await envoys.live(admin)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End the proxy outside of the fabric; the other one ends with the fabric."""
        for keeper in self._keepers:
            keeper.cancel()
        if self._host is not None:
            await tethered.end(self._host, patience=1.0)


def choose_host_ports(wanted: Mapping[int, int], address: str, taken: frozenset[int] = frozenset()) -> dict[int, int]:
    """Port of the Service -> port of the machine: the wanted one, else the next that is free."""
    chosen: dict[int, int] = {}
    for port, first in sorted(wanted.items()):
        for candidate in range(first, min(first + _TRIES, 65536)):
            if candidate not in taken and candidate not in chosen.values() and is_free(candidate, address):
                chosen[port] = candidate
                break
    return chosen


def is_free(port: int, address: str) -> bool:
    """Whether a port of the machine can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError:
            return False
        return True
