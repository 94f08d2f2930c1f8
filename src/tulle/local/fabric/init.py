"""PID 1 of the fabric: `python -m tulle.local.fabric.init --fd N --parent PID`, started by `client.Fabric` only.

The process first puts itself into new user, pid, mount, network, IPC and host name namespaces, asks the kernel to be
killed with its parent, then forks PID 1, which serves requests (`wire`) until the socket closes. When PID 1 ends, for
whatever reason, the kernel kills every process below it and the network namespaces go. It imports little and runs no
thread, because every sidecar and workload is a fork of it. It decides nothing: no restarts, no probes.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from tulle.local.fabric import kernel, root, sandbox, wire
from tulle.local.fabric.pods import Pods


@dataclass
class _Process:
    """A process that was asked for; `starting` is the pipe that closes when it has executed its program."""

    pid: int
    reaper: int
    pid_ns: int | None
    """The sandbox's pid namespace, held by its first process; None for one that joined."""
    request: wire.Spawn
    starting: int | None
    pidfd: int
    """Opened at once: a short-lived process may be gone when its start is reported. Closed then."""


class Init:
    """The request loop of PID 1."""

    def __init__(self, control: socket.socket, notes: tuple[str, ...]) -> None:
        self._control = control
        self._notes = notes
        self._pods = Pods()
        self._processes: dict[int, _Process] = {}
        self._own_pid_ns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def serve(self) -> None:
        """Answer requests until the supervisor closes its end."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while True:
            for key, _events in self._selector.select():
                if key.fileobj is self._control:
                    if not self._receive():
                        return
                elif key.fd == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                    self._reap()
                elif key.data in self._processes:
                    self._started(self._processes[key.data])

    def _receive(self) -> bool:
        room = socket.CMSG_SPACE(wire.DESCRIPTOR_LIMIT * 4)
        try:
            packet, ancillary, _flags, _address = self._control.recvmsg(
                wire.PACKET_LIMIT, room, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            # The supervisor went away with our answers unread.
            return False
        if not packet:
            return False
        descriptors = wire.descriptors_in(ancillary)
        request = wire.request_of(packet)
        try:
            self._answer(request, descriptors)
        except OSError as error:
            self._send(wire.Refused(request.seq, error.errno or 0, wire.reason_of(error)))
        except ValueError as error:
            self._send(wire.Refused(request.seq, 22, str(error)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _answer(self, request: wire.Request, descriptors: list[int]) -> None:
        match request:
            case wire.Setup():
                self._send(wire.Done(request.seq, notes=self._notes + self._pods.set_up(request.network)))
            case wire.PodAdd():
                self._pods.add(request)
                self._send(wire.Done(request.seq))
            case wire.PodDelete():
                self._delete(request)
            case wire.VipSet():
                self._pods.set_vips(request.pod, request.vips)
                self._send(wire.Done(request.seq))
            case wire.Spawn():
                self._spawn(request, descriptors)
            case wire.Signal():
                self._signal(request)
            case wire.Open():
                with self._pods.open(request) as opened:
                    self._send(wire.Done(request.seq), opened.fileno())
            case wire.ListAll():
                running = tuple(
                    wire.Running(one.pid, one.request.kind, one.request.pod) for one in self._processes.values()
                )
                self._send(wire.Listing(request.seq, self._pods.names, running))

    def _send(self, answer: wire.Answer, *descriptors: int) -> None:
        # A supervisor that is gone needs no answer; the next receive sees the end.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if descriptors:
                socket.send_fds(self._control, [wire.encode(answer)], descriptors)
            else:
                self._control.send(wire.encode(answer))

    def _delete(self, request: wire.PodDelete) -> None:
        self._pods.delete(request.name)
        for process in self._processes.values():
            if process.request.pod == request.name:
                os.kill(process.reaper, signal.SIGKILL)
        self._send(wire.Done(request.seq))

    def _signal(self, request: wire.Signal) -> None:
        if request.pid not in self._processes:
            raise OSError(3, f"no process {request.pid}")
        os.kill(request.pid, request.signal)
        self._send(wire.Done(request.seq))

    def _spawn(self, request: wire.Spawn, descriptors: list[int]) -> None:
        if len(descriptors) != 2:
            raise OSError(22, "a process needs two log descriptors")
        network = self._pods.namespace(request.pod)
        failed, failing = os.pipe2(os.O_CLOEXEC)
        logs = (descriptors[0], descriptors[1])
        try:
            if request.into is None:
                reaper, pid, pid_ns = self._fork_sandbox(request, network, logs, failing)
            else:
                reaper, pid, pid_ns = self._fork_into(request, request.into, network, logs, failing)
        except OSError:
            os.close(failed)
            raise
        finally:
            os.close(failing)
        self._processes[pid] = _Process(pid, reaper, pid_ns, request, failed, os.pidfd_open(pid))
        self._selector.register(failed, selectors.EVENT_READ, pid)

    def _fork_sandbox(
        self, request: wire.Spawn, network: int, logs: tuple[int, int], failing: int
    ) -> tuple[int, int, int | None]:
        kernel.unshare(kernel.NEWPID)
        try:
            reaper = os.fork()
            if reaper == 0:
                _run_or_exit(failing, sandbox.reap_forever)
            # Now, from here: the reaper's own /proc entry is closed to everybody, to us too.
            pid_ns = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
            pid = os.fork()
            if pid == 0:
                _run_or_exit(failing, lambda: sandbox.become(request, network, logs))
        finally:
            kernel.setns(self._own_pid_ns, kernel.NEWPID)
        return reaper, pid, pid_ns

    def _fork_into(
        self, request: wire.Spawn, into: int, network: int, logs: tuple[int, int], failing: int
    ) -> tuple[int, int, int | None]:
        host = self._processes.get(into)
        if host is None or host.starting is not None or host.pid_ns is None or host.request.kind != "workload":
            raise OSError(3, f"no running workload {into}")
        member = os.pidfd_open(into)
        try:
            kernel.setns(host.pid_ns, kernel.NEWPID)
            pid = os.fork()
            if pid == 0:
                _run_or_exit(failing, lambda: sandbox.join(request, network, logs, member))
        finally:
            kernel.setns(self._own_pid_ns, kernel.NEWPID)
            os.close(member)
        return host.reaper, pid, None

    def _started(self, process: _Process) -> None:
        """Answer a `Spawn`: the pipe closed (the program runs) or carried the reason why not."""
        if process.starting is None:
            return
        reason = os.read(process.starting, 4096).decode(errors="replace")
        self._selector.unregister(process.starting)
        os.close(process.starting)
        process.starting = None
        pidfd = process.pidfd
        if reason:
            os.close(pidfd)
            number, _, text = reason.partition(" ")
            self._send(wire.Refused(process.request.seq, int(number), text))
            del self._processes[process.pid]
            _end_sandbox(process)
            return
        self._send(wire.Done(process.request.seq, process.pid), pidfd)
        os.close(pidfd)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._processes.get(pid)
            if process is None:
                continue
            self._started(process)
            if self._processes.pop(pid, None) is None:
                continue
            _end_sandbox(process)
            code = os.waitstatus_to_exitcode(status)
            self._send(
                wire.Exited(
                    pid=pid,
                    code=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    cpu_seconds=usage.ru_utime + usage.ru_stime,
                    peak_memory_bytes=usage.ru_maxrss * 1024,
                )
            )


def _end_sandbox(process: _Process) -> None:
    """With its first process a sandbox ends, as a container does: the kernel kills what the reaper leaves."""
    if process.pid_ns is not None:
        os.close(process.pid_ns)
        os.kill(process.reaper, signal.SIGKILL)


def _run_or_exit(failing: int, body: Callable[[], NoReturn]) -> NoReturn:
    """Run what a forked child is for; whatever goes wrong is written to the pipe, and the child never returns."""
    try:
        body()
    except OSError as error:
        reason = f"{error.errno or 0} {wire.reason_of(error)}"
    except BaseException as error:  # noqa: BLE001 - a child that came back would run the loop of PID 1 a second time
        reason = f"0 {type(error).__name__}: {error}"
    os.write(failing, reason.encode())
    os._exit(127)


def enter_namespaces() -> None:
    """Move into new namespaces of all six kinds, as root of the first; the next child is PID 1."""
    outside = (os.geteuid(), os.getegid())
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel.unshare(kernel.NEWUSER)
    kernel.map_one_user(proc, (0, 0), outside)
    os.close(proc)
    kernel.unshare(kernel.NEWPID | kernel.NEWNS | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS)


def prepare_file_system() -> tuple[str, ...]:
    """As PID 1: mounts that nobody outside sees; returns what the kernel refused that a mesh can do without."""
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    notes: tuple[str, ...] = ()
    try:
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    except OSError as error:
        notes = (f"{error.strerror}: sandboxes have no /proc",)
    root.prepare_stage()
    return notes


def _refuse(control: socket.socket, error: OSError) -> NoReturn:
    control.send(wire.encode(wire.Refused(0, error.errno or 0, wire.reason_of(error))))
    sys.exit(1)


def main() -> None:
    """Enter the namespaces, fork PID 1, wait for it."""
    parser = argparse.ArgumentParser(prog="tulle-fabric")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != arguments.parent:
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=arguments.fd)
    control.set_inheritable(False)
    try:
        enter_namespaces()
    except OSError as error:
        _refuse(control, error)
    # A change of credentials may have cleared it.
    kernel.die_with_parent(signal.SIGKILL)
    pid = os.fork()
    if pid:
        control.close()
        kernel.process_name("tulle-fabric")
        _pid, status = os.waitpid(pid, 0)
        os._exit(0 if status == 0 else 1)
    kernel.die_with_parent(signal.SIGKILL)
    kernel.process_name("tulle-init")
    try:
        init = Init(control, prepare_file_system())
    except OSError as error:
        _refuse(control, error)
    # Two descriptors for each pod and process.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Every sandbox is a fork: a collection there would copy pages it shares with this process.
    gc.collect()
    gc.disable()
    init.serve()


if __name__ == "__main__":
    main()
