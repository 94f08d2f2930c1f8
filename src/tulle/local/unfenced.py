"""The fabric's stand-in where user namespaces are not allowed: plain processes on loopback addresses, nothing isolated.

Same interface as `fabric.client.Fabric`, as far as the supervisor uses it. Every pod has a loopback address of its own
(Linux answers on all of 127.0.0.0/8); a program that listens on every address meets the others'. Mounts, users and
names are the machine's. Processes die with the supervisor (`tether`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tulle.local.fabric.client import Capture, Command, Exited, Fabric, FabricError, Finished, Network, Process, Vip
from tulle.local.fabric.wire import SocketKind

_TETHER: Final = str(Path(__file__).with_name("tether.py"))
_PATIENCE: Final = 3.0

LOST: Final = (
    "nothing is isolated: workloads see this machine's network, files and processes",
    "no sidecars: no mTLS, no policies, no routing rules, no gateways; names and load balancing only",
    "programs must honour http_proxy, and listen on $BIND_ADDRESS (or $HOST) instead of every address",
    "volumes are not mounted",
)
"""What a mesh without isolation does not do; `up`, `ps` and `check` say it."""


def loopback_network(slot: int) -> Network:
    """The addresses of a mesh without isolation: 127.64.0.0/16 and on."""
    return Network(pods=f"127.{64 + slot}.0.0/16", services=f"127.{160 + slot}.0.0/16", gateway="127.0.0.1")


class Unfenced(Fabric):
    """Processes of one mesh."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.notes: tuple[str, ...] = LOST
        self._children: dict[int, tuple[str | None, asyncio.subprocess.Process]] = {}
        self._watching: set[asyncio.Task[None]] = set()

    @property
    def host_pid(self) -> int:
        """There is no process of the fabric's own: the supervisor."""
        return os.getpid()

    async def start(self) -> None:
        """Nothing to make."""

    async def stop(self) -> None:
        """End every process."""
        for _pod, process in tuple(self._children.values()):
            _kill(process, signal.SIGTERM)
        waits = [process.wait() for _pod, process in self._children.values()]
        try:
            await asyncio.wait_for(asyncio.gather(*waits), _PATIENCE)
        except TimeoutError:
            for _pod, process in tuple(self._children.values()):
                _kill(process, signal.SIGKILL)

    async def pod_add(self, name: str, address: str, capture: Capture | None = None) -> None:
        """Loopback addresses are there without being made."""

    async def pod_delete(self, name: str) -> None:
        """Kill what is left of a pod."""
        for pod, process in tuple(self._children.values()):
            if pod == name:
                _kill(process, signal.SIGKILL)

    async def vip_set(self, pod: str, vips: Sequence[Vip]) -> None:
        """Nobody translates addresses here."""

    async def spawn(self, command: Command, stdout: int, stderr: int, into: Process | None = None) -> Process:
        """Start a process as this user; `into` changes nothing, there is nothing to be inside of."""
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _TETHER, str(os.getpid()), *command.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**command.env, **({} if into is None else into.command.env)},
                cwd=command.cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise FabricError(error.errno or errno.EIO, str(error)) from error
        loop = asyncio.get_running_loop()
        process = Process(child.pid, child.pid, command, loop.create_future())
        self._children[child.pid] = (command.pod, child)
        task = loop.create_task(self._wait(child, process))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return process

    async def _wait(self, child: asyncio.subprocess.Process, process: Process) -> None:
        code = await child.wait()
        self._children.pop(child.pid, None)
        ended = Exited(
            child.pid,
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            cpu_seconds=0.0,
            peak_memory_bytes=0,
        )
        process.exited.set_result(ended)

    async def signal(self, process: Process, number: int = signal.SIGTERM) -> None:
        """Send a signal to a process; one that has ended is no error."""
        found = self._children.get(process.pid)
        if found is not None:
            _kill(found[1], number)

    async def open_socket(self, kind: SocketKind, host: str, port: int, pod: str | None = None) -> socket.socket:  # noqa: ARG002 - the fabric's signature
        """A connection, or a listener; every network is the machine's."""
        stream = kind != "udp-bind"
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        opened.setblocking(False)
        try:
            if kind == "tcp-connect":
                await asyncio.get_running_loop().sock_connect(opened, (host, port))
            else:
                opened.bind((host, port))
                if stream:
                    opened.listen()
        except BaseException:
            opened.close()
            raise
        return opened

    async def run_in_pod(self, command: Command, timeout: float = 30.0, into: Process | None = None) -> Finished:  # noqa: ASYNC109 - kills the process, which a cancelled wait would not
        """Run a command to its end and keep what it printed."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            process = await self.spawn(command, writing, writing, into)
        finally:
            os.close(writing)
        try:
            exited = await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            await self.signal(process, signal.SIGKILL)
            exited = await process.wait()
        os.set_blocking(reading, False)
        pieces: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(reading, 65536):
                pieces.append(piece)
        os.close(reading)
        return Finished(exited, b"".join(pieces), b"")


def _kill(process: asyncio.subprocess.Process, number: int) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
