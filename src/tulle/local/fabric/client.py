"""The fabric as the supervisor uses it: asyncio, typed, one object per mesh.

    fabric = Fabric(Network())
    await fabric.start()
    await fabric.pod_add("reviews-1", "10.244.0.5")
    process = await fabric.spawn(Command(("python3", "-m", "http.server"), pod="reviews-1"))
    exit = await process.wait()
    await fabric.stop()

Nothing survives the process that called `start`: the kernel kills the fabric with it. Must not know workloads, probes
or Envoy; `init` is the other end of the socket.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tulle.local.fabric import wire
from tulle.local.fabric.wire import NO_CAPTURE, Bind, Capture, Exited, Kind, Network, SocketKind, Vip

__all__ = [
    "NO_CAPTURE",
    "Bind",
    "Capture",
    "Command",
    "Exited",
    "Fabric",
    "FabricError",
    "Finished",
    "Network",
    "Process",
    "Vip",
]

_STOP_SECONDS: Final = 5.0


class FabricError(OSError):
    """The fabric refused a request; `errno` is the kernel's, `strerror` names the call and the path or address."""


@dataclass(frozen=True)
class Command:
    """A process to be: what a container of a pod would be on Kubernetes."""

    argv: tuple[str, ...]
    pod: str | None
    """Name of the pod; None is the bridge's own network namespace (the edge)."""
    kind: Kind = "workload"
    env: Mapping[str, str] = field(default_factory=dict)
    """The whole environment; nothing is inherited. `PATH` in it finds `argv[0]`."""
    cwd: str = "/"
    uid: int = 1000
    gid: int = 1000
    """What a workload sees as its own user and group; on disk it is the user who runs the mesh."""
    hostname: str | None = None
    """None is the pod's name."""
    binds: tuple[Bind, ...] = ()
    hidden: tuple[str, ...] = ()
    """Paths inside the sandbox to cover by emptiness, after all binds."""


@dataclass
class Process:
    """A process of the fabric that has executed its program."""

    pid: int
    """As the fabric's init counts."""
    host_pid: int
    """As the caller's machine counts (`psutil`)."""
    command: Command
    exited: asyncio.Future[Exited]

    async def wait(self) -> Exited:
        """How it ended, as soon as it has; may be asked by several tasks."""
        return await asyncio.shield(self.exited)


@dataclass(frozen=True)
class Finished:
    """A command that ran to its end."""

    exited: Exited
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class _Reply:
    answer: wire.Done | wire.Listing
    descriptors: list[int]
    process: Process | None = None


@dataclass(frozen=True)
class _Waiting:
    reply: asyncio.Future[_Reply]
    command: Command | None


class Fabric:
    """One mesh's namespaces. All methods belong to the event loop that called `start`.

    `start` must run on a thread that lives as long as the mesh (the main thread): the kernel ties the fabric's life to
    the thread that forked it.
    """

    def __init__(
        self,
        network: Network | None = None,
        on_exit: Callable[[Process, Exited], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """`on_exit` is called for each process that ended, `on_lost` when the fabric itself died unasked."""
        self.network = network or Network()
        self.notes: tuple[str, ...] = ()
        """After `start`: what this machine refused that does not prevent a mesh (a masked /proc)."""
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._sequence = 0
        self._waiting: dict[int, _Waiting] = {}
        self._processes: dict[int, Process] = {}
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._control: socket.socket | None = None
        self._child: asyncio.subprocess.Process | None = None

    @property
    def host_pid(self) -> int:
        """Pid of the fabric's outermost process on the machine."""
        if self._child is None:
            raise FabricError(errno.ENOTCONN, "the fabric is not started")
        return self._child.pid

    async def start(self) -> None:
        """Make the namespaces and the bridge: about 0.15 s. Raises `FabricError` where this machine does not allow it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * wire.PACKET_LIMIT)
            arguments = ("--fd", str(theirs.fileno()), "--parent", str(os.getpid()))
            self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tulle.local.fabric.init", *arguments),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env=import_environment(),
            )
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)
        try:
            reply = await self._ask(lambda seq: wire.Setup(seq, self.network))
        except OSError:
            await self.stop()
            raise
        assert isinstance(reply.answer, wire.Done)
        self.notes = reply.answer.notes

    async def stop(self) -> None:
        """Kill everything and wait until it is gone; calling it twice does nothing more."""
        self._on_lost = None
        self._lose("the fabric was stopped")
        child = self._child
        if child is None:
            return
        try:
            await asyncio.wait_for(child.wait(), _STOP_SECONDS)
        except TimeoutError:
            child.kill()
            await child.wait()

    async def pod_add(self, name: str, address: str, capture: Capture | None = None) -> None:
        """Make a pod's network namespace: about 3 ms. `capture` defaults to everything through a sidecar."""
        await self._ask(lambda seq: wire.PodAdd(seq, name, address, capture or Capture()))

    async def pod_delete(self, name: str) -> None:
        """Kill what is left in a pod and delete its network; the exits of its processes are still reported."""
        await self._ask(lambda seq: wire.PodDelete(seq, name))

    async def vip_set(self, pod: str, vips: Sequence[Vip]) -> None:
        """Replace the service addresses that a pod without a sidecar can use (kube-proxy's part)."""
        await self._ask(lambda seq: wire.VipSet(seq, pod, tuple(vips)))

    async def spawn(self, command: Command, stdout: int, stderr: int, into: Process | None = None) -> Process:
        """Start a process; returns when its program has been executed, raises `FabricError` when it could not.

        `stdout` and `stderr` are descriptors the caller keeps; pipes, since a workload may reopen what it is given. With `into`, the process joins the sandbox of a running
        workload (an exec probe): `binds`, `hidden`, `uid`, `gid` and `hostname` are those of that workload.
        """

        def request(seq: int) -> wire.Spawn:
            return wire.Spawn(
                seq=seq,
                kind=command.kind,
                pod=command.pod,
                argv=command.argv,
                env=dict(command.env),
                cwd=command.cwd,
                uid=command.uid,
                gid=command.gid,
                hostname=command.hostname or command.pod or "edge",
                binds=command.binds,
                hidden=command.hidden,
                into=None if into is None else into.pid,
            )

        reply = await self._ask(request, [stdout, stderr], command)
        assert reply.process is not None
        return reply.process

    async def signal(self, process: Process, number: int = signal.SIGTERM) -> None:
        """Send a signal to a process; one that has ended is no error."""
        try:
            await self._ask(lambda seq: wire.Signal(seq, process.pid, number))
        except FabricError as error:
            if error.errno != errno.ESRCH:
                raise

    async def open_socket(self, kind: SocketKind, host: str, port: int, pod: str | None = None) -> socket.socket:
        """A non-blocking socket that lives in a pod's network, or the bridge's: a listener, a UDP socket, a connection.

        A TCP connection from a pod to its own address meets the workload, not its sidecar, as a kubelet's probe does
        after Istio rewrote it. Raises `FabricError`, or the connection's own `OSError`.
        """
        reply = await self._ask(lambda seq: wire.Open(seq, pod, kind, host, port))
        opened = socket.socket(fileno=reply.descriptors[0])
        if kind == "tcp-connect":
            try:
                await _connected(opened)
            except BaseException:
                opened.close()
                raise
        return opened

    async def listing(self) -> wire.Listing:
        """Pods and processes as the fabric sees them."""
        reply = await self._ask(wire.ListAll)
        assert isinstance(reply.answer, wire.Listing)
        return reply.answer

    async def run_in_pod(self, command: Command, timeout: float = 30.0, into: Process | None = None) -> Finished:  # noqa: ASYNC109 - kills the process, which a cancelled wait would not
        """Run a command to its end and keep what it printed; killed after `timeout` seconds."""
        readers, writers = zip(os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC), strict=True)
        outputs = [_Output(reader) for reader in readers]
        try:
            try:
                process = await self.spawn(command, writers[0], writers[1], into)
            finally:
                for writer in writers:
                    os.close(writer)
            try:
                exited = await asyncio.wait_for(process.wait(), timeout)
            except TimeoutError:
                await self.signal(process, signal.SIGKILL)
                exited = await process.wait()
            return Finished(exited, *(output.rest() for output in outputs))
        finally:
            for output in outputs:
                output.close()

    async def _ask(
        self, request: Callable[[int], wire.Request], descriptors: Sequence[int] = (), command: Command | None = None
    ) -> _Reply:
        control = self._control
        if control is None:
            raise FabricError(errno.ENOTCONN, "the fabric is not running")
        self._sequence += 1
        packet = wire.encode(request(self._sequence))
        if len(packet) > wire.PACKET_LIMIT:
            raise FabricError(errno.E2BIG, f"a request of {len(packet)} bytes; the limit is {wire.PACKET_LIMIT}")
        waiting = _Waiting(asyncio.get_running_loop().create_future(), command)
        self._waiting[self._sequence] = waiting
        # Duplicates: the caller may close its own before the packet leaves.
        self._outgoing.append((packet, [os.dup(descriptor) for descriptor in descriptors]))
        self._flush(control)
        return await waiting.reply

    def _flush(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while self._outgoing:
            packet, descriptors = self._outgoing[0]
            try:
                socket.send_fds(control, [packet], descriptors)
            except BlockingIOError:
                loop.add_writer(control.fileno(), self._flush, control)
                return
            except OSError as error:
                # It may have said why before it went.
                self._readable()
                self._lose(f"the fabric is gone: {error.strerror}")
                return
            self._outgoing.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        loop.remove_writer(control.fileno())

    def _readable(self) -> None:
        control = self._control
        while control is not None and control is self._control:
            room = socket.CMSG_SPACE(wire.DESCRIPTOR_LIMIT * 4)
            try:
                packet, ancillary, _flags, _address = control.recvmsg(wire.PACKET_LIMIT, room, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # Told once; what the other end said before it went comes after it.
                continue
            if not packet:
                self._lose("the fabric is gone")
                return
            self._take(wire.answer_of(packet), wire.descriptors_in(ancillary))

    def _take(self, answer: wire.Answer, descriptors: list[int]) -> None:
        if isinstance(answer, wire.Exited):
            self._end(answer)
            return
        # Number 0: the fabric failed before it could read the first request.
        seq = answer.seq or next(iter(self._waiting), 0)
        waiting = self._waiting.pop(seq, None)
        if waiting is None or waiting.reply.done():
            self._discard(answer, descriptors)
        elif isinstance(answer, wire.Refused):
            waiting.reply.set_exception(FabricError(answer.errno, answer.reason))
        elif isinstance(answer, wire.Done) and waiting.command is not None:
            waiting.reply.set_result(_Reply(answer, [], self._begin(answer.pid, descriptors[0], waiting.command)))
        else:
            waiting.reply.set_result(_Reply(answer, descriptors))

    def _discard(self, answer: wire.Answer, descriptors: list[int]) -> None:
        """An answer to a task that was cancelled; a process nobody asks for any more must not run."""
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(answer, wire.Done) and answer.pid and self._control is not None:
            self._sequence += 1
            self._outgoing.append((wire.encode(wire.Signal(self._sequence, answer.pid, signal.SIGKILL)), []))
            self._flush(self._control)

    def _begin(self, pid: int, descriptor: int, command: Command) -> Process:
        host_pid = _pid_behind(descriptor)
        os.close(descriptor)
        process = Process(pid, host_pid, command, asyncio.get_running_loop().create_future())
        self._processes[pid] = process
        return process

    def _end(self, exited: Exited) -> None:
        process = self._processes.pop(exited.pid, None)
        if process is None:
            # Its task was cancelled while it started.
            return
        if not process.exited.done():
            process.exited.set_result(exited)
        if self._on_exit is not None:
            self._on_exit(process, exited)

    def _lose(self, reason: str) -> None:
        control, self._control = self._control, None
        if control is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(control.fileno())
        loop.remove_writer(control.fileno())
        control.close()
        for _packet, descriptors in self._outgoing:
            for descriptor in descriptors:
                os.close(descriptor)
        self._outgoing.clear()
        for waiting in self._waiting.values():
            if not waiting.reply.done():
                waiting.reply.set_exception(FabricError(errno.ENOTCONN, reason))
        self._waiting.clear()
        for pid in tuple(self._processes):
            self._end(Exited(pid, code=None, signal=signal.SIGKILL, cpu_seconds=0.0, peak_memory_bytes=0))
        if self._on_lost is not None:
            self._on_lost()


def import_environment() -> dict[str, str]:
    """The caller's environment, with its import path: the fabric must run the same code."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def _pid_behind(descriptor: int) -> int:
    """The pid, as this machine counts, behind a pidfd (man pidfd_open)."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.removeprefix("Pid:"))
    return -1


async def _connected(opened: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not writable.done():
            writable.set_result(None)

    loop.add_writer(opened.fileno(), ready)
    try:
        await writable
    finally:
        loop.remove_writer(opened.fileno())
    number = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


class _Output:
    """What a process writes into a pipe, kept while it runs."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> bool:
        try:
            piece = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return False
        if not piece:
            self._loop.remove_reader(self._descriptor)
        self._kept.append(piece)
        return bool(piece)

    def rest(self) -> bytes:
        """Everything written so far; a child left behind may hold the pipe open, so the end is not waited for."""
        while self._read():
            pass
        return b"".join(self._kept)

    def close(self) -> None:
        """Stop reading."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
