"""Linux system calls that Python 3.11 does not offer: namespaces, mounts, capabilities, process attributes.

Thin wrappers: every failure is an `OSError` whose `strerror` names the call. Knows nothing of pods; `sandbox` and
`init` decide in which order these are called.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Final

NEWNS: Final = 0x0002_0000
NEWUTS: Final = 0x0400_0000
NEWIPC: Final = 0x0800_0000
NEWUSER: Final = 0x1000_0000
NEWPID: Final = 0x2000_0000
NEWNET: Final = 0x4000_0000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
MNT_DETACH: Final = 0x2

ATTR_RDONLY: Final = 0x1
ATTR_NOSUID: Final = 0x2
ATTR_NODEV: Final = 0x4

CAP_NET_BIND_SERVICE: Final = 10
CAP_NET_ADMIN: Final = 12

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x2008_0522
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_SYS_CLOSE_RANGE: Final = 436
_SYS_MOUNT_SETATTR: Final = 442
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}

# Read while the machine's own /proc is in sight; a sandbox may have none.
_LAST_CAPABILITY: Final = int(Path("/proc/sys/kernel/cap_last_cap").read_text())

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapSets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(returned: int, call: str) -> None:
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces (`NEW*` flags)."""
    _checked(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """Join the namespace behind `fd`; `kind` is the `NEW*` flag it must have."""
    _checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), f"setns({kind:#x})")


def mount(source: str, target: str, fstype: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """`mount(2)`."""
    returned = _libc.mount(
        source.encode(),
        target.encode(),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _checked(returned, f"mount {fstype or source} on {target}")


def restrict(target: str, attributes: int, *, below: bool = True) -> None:
    """Set `ATTR_*` on a mount and, with `below`, on every mount below it.

    Falls back to remounting the top mount only on kernels before 5.12, where `mount_setattr` does not exist.
    """
    attr = _MountAttr(attributes, 0, 0, 0)
    returned = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        target.encode(),
        ctypes.c_uint(_AT_RECURSIVE if below else 0),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    if returned < 0 and ctypes.get_errno() == 38:
        # ATTR_* of these three equal MS_*; flags already set are locked in a user namespace and must be repeated.
        kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC | 0x400 | 0x800)
        mount("none", target, None, MS_REMOUNT | MS_BIND | attributes | kept)
        return
    _checked(returned, f"mount_setattr {target}")


def pivot_root_here() -> None:
    """Make the working directory the root and detach the old root (man pivot_root: the `pivot_root(".", ".")` idiom)."""
    number = _SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(38, f"pivot_root: unknown system call number on {platform.machine()}")
    _checked(_libc.syscall(ctypes.c_long(number), b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", ctypes.c_int(MNT_DETACH)), "umount2 of the old root")
    os.chdir("/")


def _prctl(name: str, option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(ctypes.c_int(option), *padded), f"prctl({name})")


def die_with_parent(signal_number: int) -> None:
    """Ask for `signal_number` when the thread that forked this process ends."""
    _prctl("PDEATHSIG", _PR_SET_PDEATHSIG, signal_number)


def no_new_privileges() -> None:
    """Set-uid bits and file capabilities mean nothing from here on, through every exec."""
    _prctl("NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def undumpable() -> None:
    """Nobody but a capable process of this user namespace may look into this process; ends with the next exec."""
    _prctl("DUMPABLE", _PR_SET_DUMPABLE, 0)


def process_name(name: str) -> None:
    """What `ps` shows as the command name (15 bytes)."""
    _checked(_libc.prctl(ctypes.c_int(_PR_SET_NAME), name.encode()[:15], 0, 0, 0), "prctl(NAME)")


def keep_capabilities(kept: frozenset[int]) -> None:
    """Reduce all five capability sets (bounding, permitted, effective, inheritable, ambient) to `kept`."""
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in kept:
            _prctl("CAPBSET_DROP", _PR_CAPBSET_DROP, capability)
    _prctl("CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    mask = sum(1 << capability for capability in kept)
    low, high = mask & 0xFFFF_FFFF, mask >> 32
    sets = (_CapSets * 2)(_CapSets(low, low, low), _CapSets(high, high, high))
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(sets)), "capset")
    for capability in kept:
        _prctl("CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def close_descriptors() -> None:
    """Close every file descriptor of the process, in one call where the kernel has it (5.9)."""
    if _libc.syscall(ctypes.c_long(_SYS_CLOSE_RANGE), ctypes.c_uint(0), ctypes.c_uint(0xFFFF_FFFF), ctypes.c_uint(0)):
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))


def map_one_user(proc: int, inside: tuple[int, int], outside: tuple[int, int]) -> None:
    """Write the maps of the caller's own fresh user namespace: one user, one group, no `setgroups`.

    `proc` is a descriptor of a /proc in which the caller is visible; the pairs are (uid, gid). One line with one's own
    id is what an unprivileged process may write without `newuidmap` (man user_namespaces).
    """
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside[0]} {outside[0]} 1"),
        ("gid_map", f"{inside[1]} {outside[1]} 1"),
    ):
        write_file(f"self/{name}", text, below=proc)


def write_file(path: str, text: str, below: int | None = None) -> None:
    """One `write(2)` to an existing kernel file; sysctls and id maps accept nothing else."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=below)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {path}: {error.strerror}") from error
    finally:
        os.close(fd)
