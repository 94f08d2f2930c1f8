"""Tries, in a process that ends afterwards, each thing the fabric needs: `python -m tulle.local.fabric.trial`.

Prints one `support.Check` per line. Does what `init` does, with the same code, so that it cannot say yes where `init`
would fail.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from tulle.local.fabric import init, kernel, root, wire
from tulle.local.fabric.pods import Pods
from tulle.local.fabric.support import Check

_SWITCHES: Final = (
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
    ("/proc/sys/user/max_user_namespaces", "0", "10000"),
)
"""Settings of distributions that forbid user namespaces: file, forbidding value, allowing value."""


def _tried(name: str, attempt: Callable[[], object], *, required: bool = True, advice: str = "") -> bool:
    try:
        attempt()
    except OSError as error:
        reason = "; ".join(part for part in (wire.reason_of(error), advice) if part)
        check = Check(name, works=False, required=required, reason=reason)
    else:
        check = Check(name, works=True, required=required)
    sys.stdout.buffer.write(msgspec.json.encode(check) + b"\n")
    sys.stdout.buffer.flush()
    return check.works or not required


def _namespace_advice() -> str:
    for path, forbidding, allowing in _SWITCHES:
        if Path(path).exists() and Path(path).read_text().strip() == forbidding:
            setting = path.removeprefix("/proc/sys/").replace("/", ".")
            return f"sysctl {setting} is {forbidding}; an administrator can allow it: sysctl -w {setting}={allowing}"
    return ""


def _mount_proc() -> None:
    notes = init.prepare_file_system()
    if notes:
        raise OSError(1, notes[0])


def _root_in_a_child() -> None:
    readable, writable = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            kernel.unshare(kernel.NEWNS | kernel.NEWIPC | kernel.NEWUTS)
            root.enter_root((), ())
            kernel.unshare(kernel.NEWUSER)
        except OSError as error:
            os.write(writable, wire.reason_of(error).encode())
        os._exit(0)
    os.close(writable)
    reason = os.read(readable, 4096).decode()
    os.waitpid(pid, 0)
    if reason:
        raise OSError(1, reason)


def _try_inside() -> None:
    """As PID 1 of the new namespaces."""
    if not _tried("/proc of its own", _mount_proc, required=False):
        return
    pods = Pods()
    vip = wire.Vip("10.96.0.1", 80, (("10.244.0.2", 80), ("10.244.0.3", 80)))
    pod = wire.PodAdd(0, "trial", "10.244.0.2", wire.Capture())
    if (
        _tried("bridge", lambda: pods.set_up(wire.Network()))
        and _tried("veth and nftables redirection", lambda: pods.add(pod))
        and _tried("nftables service addresses", lambda: pods.set_vips("trial", (vip,)), required=False)
    ):
        _tried("private file systems", _root_in_a_child)


def main() -> None:
    """Try everything; the exit status says only whether the trial itself went well."""
    if not _tried("user namespaces", init.enter_namespaces, advice=_namespace_advice()):
        return
    pid = os.fork()
    if pid == 0:
        _try_inside()
        os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
