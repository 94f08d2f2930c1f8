"""The file system of a sandbox: an empty root that shows only what is on a list.

Runs in a forked child, in its own mount namespace still owned by the fabric: the workload that comes later has no
power over these mounts. Nothing of the host is visible unless it is bound here, so state directories, control sockets
and home directories need no masking.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from tulle.local.fabric import kernel
from tulle.local.fabric.wire import Bind

_STAGE: Final = "/sys"
"""Directory of the fabric's mount namespace under which roots are built: present everywhere, needed by nobody."""
_ROOT: Final = f"{_STAGE}/root"
_SYSTEM: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix")
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_SCRATCH: Final = ("tmp", "run", "var/tmp", "dev/shm")
_PROC_READ_ONLY: Final = ("sys", "sysrq-trigger", "irq", "bus")
_SAFE: Final = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV
_TMPFS: Final = kernel.MS_NOSUID | kernel.MS_NODEV
_SYMLINK_LIMIT: Final = 40


def prepare_stage() -> None:
    """Once, in the fabric's PID 1: the place where sandboxes build their roots."""
    kernel.mount("tulle", _STAGE, "tmpfs", _TMPFS, "mode=0700,size=64m")
    Path(_ROOT).mkdir()


def python_binds() -> tuple[Bind, ...]:
    """The prefixes of this Python: whoever runs the mesh in a virtual environment runs workloads in it too."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    return tuple(Bind(prefix) for prefix in sorted(prefixes) if not prefix.startswith("/usr"))


def enter_root(binds: tuple[Bind, ...], hidden: tuple[str, ...]) -> None:
    """Build the root of a sandbox in the caller's own mount namespace and make it the root.

    Raises `OSError` naming the mount that failed. Cost: about 40 mounts, 1 ms.
    """
    root = _Root()
    root.system()
    root.devices()
    root.proc()
    for bind in sorted(binds, key=lambda bind: bind.target or bind.source):
        root.bind(bind)
        root.thin_out(bind.target or bind.source, hidden)
    for path in hidden:
        root.hide(path)
    root.seal()
    os.chdir(_ROOT)
    kernel.pivot_root_here()


class _Root:
    """A root under construction."""

    def __init__(self) -> None:
        kernel.mount("root", _ROOT, "tmpfs", _TMPFS, "mode=0755,size=16m")
        self._writable_while_building = [_ROOT]

    def system(self) -> None:
        """System directories read-only, scratch directories fresh."""
        for name in _SYSTEM:
            source, target = f"/{name}", f"{_ROOT}/{name}"
            if Path(source).is_symlink():
                Path(target).symlink_to(Path(source).readlink())
            elif Path(source).is_dir():
                Path(target).mkdir()
                _bind(source, target, _SAFE)
        self._hide_private_settings()
        Path(f"{_ROOT}/dev").mkdir()
        kernel.mount("dev", f"{_ROOT}/dev", "tmpfs", _TMPFS, "mode=0755,size=1m")
        self._writable_while_building.append(f"{_ROOT}/dev")
        for name in _SCRATCH:
            Path(f"{_ROOT}/{name}").mkdir(parents=True)
            kernel.mount("scratch", f"{_ROOT}/{name}", "tmpfs", _TMPFS, "mode=1777")
        Path(f"{_ROOT}/var/run").symlink_to("../run")

    def _hide_private_settings(self) -> None:
        """A mesh run by root: its workloads are the same user on disk, and must not read what only root may."""
        if Path("/etc").stat().st_uid != 0:
            return
        for entry in os.scandir("/etc"):
            if not entry.is_symlink() and not entry.stat().st_mode & stat.S_IROTH:
                self.hide(f"/etc/{entry.name}")

    def devices(self) -> None:
        """The devices every program expects, and terminals of its own."""
        for name in _DEVICES:
            target = Path(f"{_ROOT}/dev/{name}")
            target.touch()
            _bind(f"/dev/{name}", str(target), kernel.ATTR_NOSUID)
        Path(f"{_ROOT}/dev/pts").mkdir()
        kernel.mount("devpts", f"{_ROOT}/dev/pts", "devpts", kernel.MS_NOSUID, "newinstance,ptmxmode=0666,mode=0600")
        for name, to in (
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ):
            Path(f"{_ROOT}/dev/{name}").symlink_to(to)

    def proc(self) -> None:
        """The sandbox's own processes; nothing where the kernel refuses (a container that masks parts of /proc)."""
        target = Path(f"{_ROOT}/proc")
        target.mkdir()
        try:
            kernel.mount("proc", str(target), "proc", _TMPFS | kernel.MS_NOEXEC)
        except OSError:
            # The supervisor knows: init met the same refusal and reported it when the fabric started.
            return
        for name in _PROC_READ_ONLY:
            path = str(target / name)
            if Path(path).exists():
                _bind(path, path, _SAFE)

    def bind(self, bind: Bind) -> None:
        """Show one path of the host."""
        try:
            is_directory = stat.S_ISDIR(Path(bind.source).stat().st_mode)
        except OSError as error:
            raise OSError(error.errno, f"bind source {bind.source}: {error.strerror}") from error
        target = self._mount_point(bind.target or bind.source, is_directory=is_directory)
        _bind(bind.source, target, _SAFE & ~kernel.ATTR_RDONLY if bind.writable else _SAFE)

    def thin_out(self, folder: str, hidden: tuple[str, ...]) -> None:
        """Show what a bound folder holds now, but for entries that a hidden path names; its last part may be a pattern.

        A cover alone would fall off when the host replaces the file below it (an editor does), and would not be there
        for a file that comes later.
        """
        patterns = [path.rpartition("/")[2] for path in hidden if path.rpartition("/")[0] == folder]
        target, missing = self._resolve(folder)
        if patterns and not missing and Path(target).is_dir():
            self._spread(target, patterns)

    def hide(self, path: str) -> None:
        """Cover a path of the sandbox, if it is there, by emptiness."""
        target, missing = self._resolve(path)
        if missing:
            return
        if Path(target).is_dir():
            kernel.mount("hidden", target, "tmpfs", _TMPFS | kernel.MS_RDONLY, "mode=0555,size=4k")
        else:
            _bind("/dev/null", target, kernel.ATTR_RDONLY)

    def seal(self) -> None:
        """No more directories beside the listed ones."""
        for path in self._writable_while_building:
            kernel.restrict(path, kernel.ATTR_RDONLY, below=False)

    def _resolve(self, path: str) -> tuple[str, list[str]]:
        """The existing part of a path, symlinks followed inside the new root, and what is missing of it."""
        todo, done, followed = [part for part in path.split("/") if part], _ROOT, 0
        while todo:
            part = todo.pop(0)
            here = f"{done}/{part}"
            if part == "..":
                done = done.rpartition("/")[0] if done != _ROOT else done
            elif Path(here).is_symlink():
                followed += 1
                if followed > _SYMLINK_LIMIT:
                    raise OSError(errno.ELOOP, f"mount point {path}: too many symlinks")
                link = str(Path(here).readlink())
                done = _ROOT if link.startswith("/") else done
                todo = [step for step in link.split("/") if step not in {"", "."}] + todo
            elif not os.path.lexists(here):
                return done, [part, *todo]
            else:
                done = here
        return done, []

    def _mount_point(self, path: str, *, is_directory: bool) -> str:
        done, missing = self._resolve(path)
        for position, part in enumerate(missing):
            here = Path(done) / part
            wants_directory = is_directory or position < len(missing) - 1
            try:
                _make(here, is_directory=wants_directory)
            except OSError as error:
                if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
                    raise
                self._spread(done)
                _make(here, is_directory=wants_directory)
            done = str(here)
        return done

    def _spread(self, directory: str, without: Sequence[str] = ()) -> None:
        """Replace a read-only directory by a fresh one with the same entries, so that entries can be added or left out."""
        original = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        source = f"/proc/self/fd/{original}"
        entries = [
            (entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
            for entry in os.scandir(source)
            if not any(fnmatchcase(entry.name, pattern) for pattern in without)
        ]
        kernel.mount("spread", directory, "tmpfs", _TMPFS, "mode=0755,size=16m")
        for name, is_symlink, is_directory in entries:
            target = Path(directory) / name
            if is_symlink:
                target.symlink_to(Path(f"{source}/{name}").readlink())
                continue
            _make(target, is_directory=is_directory)
            _bind(f"{source}/{name}", str(target), _SAFE)
        os.close(original)
        self._writable_while_building.append(directory)


def _make(path: Path, *, is_directory: bool) -> None:
    if is_directory:
        path.mkdir()
    else:
        path.touch(exist_ok=False)


def _bind(source: str, target: str, attributes: int) -> None:
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    kernel.restrict(target, attributes)
