"""From a forked child of the fabric's init to a sidecar or a workload.

A **sidecar** stays in the fabric's user namespace with two capabilities over its pod's network (NET_ADMIN for the
packet mark, NET_BIND_SERVICE). A **workload** gets a user namespace of its own below it, with no capability at all:
the kernel then denies it the rules, raw sockets, marks, and ptrace of anything outside (ptrace across user namespaces
needs CAP_SYS_PTRACE in the target's). Both have their own pid, mount, IPC and host name namespaces.

Every function here runs after `fork` and before `exec`; failures are `OSError`s that `init` reports.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from typing import Final, NoReturn

from tulle.local.fabric import kernel, root
from tulle.local.fabric.wire import Spawn

_SIDECAR_CAPABILITIES: Final = frozenset({kernel.CAP_NET_ADMIN, kernel.CAP_NET_BIND_SERVICE})
_NOTHING: Final[frozenset[int]] = frozenset()


def reap_forever() -> NoReturn:
    """PID 1 of a sandbox: collects orphans, holds nothing, ends when killed (and the sandbox with it)."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    kernel.close_descriptors()
    os.chdir("/")
    kernel.process_name("tulle-reaper")
    kernel.keep_capabilities(_NOTHING)
    kernel.undumpable()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.sigwait({signal.SIGCHLD})


def become(request: Spawn, network_namespace: int, logs: tuple[int, int]) -> NoReturn:
    """Turn the caller, alone in a new pid namespace with its reaper, into the process `request` describes."""
    _own_terminal(logs)
    kernel.setns(network_namespace, kernel.NEWNET)
    kernel.unshare(kernel.NEWNS | kernel.NEWIPC | kernel.NEWUTS)
    socket.sethostname(request.hostname)
    outer_proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    python = root.python_binds() if request.kind == "workload" else ()
    root.enter_root((*python, *request.binds), request.hidden)
    if request.kind == "workload":
        _own_user_namespace(outer_proc, request.uid, request.gid)
    os.close(outer_proc)
    _exec(request, _NOTHING if request.kind == "workload" else _SIDECAR_CAPABILITIES)


def join(request: Spawn, network_namespace: int, logs: tuple[int, int], member: int) -> NoReturn:
    """Turn the caller, already in the workload's pid namespace, into one more process of that workload's sandbox.

    `member` is a pidfd of a process in it (Linux 5.8); numbers in /proc might be those of another pid namespace.
    """
    _own_terminal(logs)
    kernel.setns(network_namespace, kernel.NEWNET)
    kernel.setns(member, kernel.NEWIPC | kernel.NEWUTS | kernel.NEWNS)
    # Last: joining the others takes the fabric's capabilities.
    kernel.setns(member, kernel.NEWUSER)
    os.chdir("/")
    _exec(request, _NOTHING)


def _own_terminal(logs: tuple[int, int]) -> None:
    os.setsid()
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    # Two steps: a log descriptor may itself be 1 or 2.
    out, err = os.dup(logs[0]), os.dup(logs[1])
    os.dup2(out, 1)
    os.dup2(err, 2)


def _own_user_namespace(proc: int, uid: int, gid: int) -> None:
    kernel.unshare(kernel.NEWUSER)
    kernel.map_one_user(proc, (uid, gid), (0, 0))
    # As the default seccomp profile of container runtimes: no user namespaces inside, thus no capabilities anywhere.
    # Where /proc/sys is masked this stays possible, and gives power over nothing outside.
    with contextlib.suppress(OSError):
        kernel.write_file("sys/user/max_user_namespaces", "0", below=proc)


def _exec(request: Spawn, capabilities: frozenset[int]) -> NoReturn:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kernel.keep_capabilities(capabilities)
    kernel.no_new_privileges()
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.chdir(request.cwd)
    except OSError as error:
        raise OSError(error.errno, f"working directory {request.cwd}: {error.strerror}") from error
    try:
        os.execvpe(request.argv[0], list(request.argv), request.env)  # noqa: S606 - an argument list needs no shell
    except OSError as error:
        raise OSError(error.errno, f"exec {request.argv[0]}: {error.strerror}") from error
