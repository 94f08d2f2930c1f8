"""Where a mesh lives on this machine: its run directory, its state directory, its sockets; and which meshes run.

Everything of a running mesh is below RUN, which is gone after `down`; what outlives it (certificates, addresses) is
below STATE. Knows file names only: what is in the files is the business of `supervisor` and of the control plane.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tulle.local.refusals import RefusedError, refusal

MESH_VARIABLE: Final = "TULLE_MESH"
"""Names the mesh commands mean when several run."""
STATE_VERSION: Final = 1
_SOCKET_PATH_LIMIT: Final = 107
_LONGEST_SOCKET: Final = "/xds/0123456789ab/xds.sock"
_NOT_A_NAME: Final = re.compile(r"[^a-z0-9-]+")
_NAME_LIMIT: Final = 40


@dataclass(frozen=True)
class Places:
    """The paths of one mesh."""

    name: str
    run: Path
    state: Path

    @property
    def admin_socket(self) -> Path:
        """The control plane's API."""
        return self.run / "admin.sock"

    @property
    def supervisor_socket(self) -> Path:
        """The supervisor's API."""
        return self.run / "supervisor.sock"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.run / "lock"

    @property
    def description(self) -> Path:
        """`mesh.json`: name, pid, manifests, config directory, published ports."""
        return self.run / "mesh.json"

    @property
    def runtime(self) -> Path:
        """What runs, for the control plane."""
        return self.run / "runtime.json"

    @property
    def names(self) -> Path:
        """Host names and their addresses, from the control plane."""
        return self.run / "names.json"

    @property
    def edge(self) -> Path:
        """Sockets and settings of the two edge proxies."""
        return self.run / "edge"

    def xds(self, uid: str) -> Path:
        """Directory of one sidecar's control-plane socket."""
        return self.run / "xds" / uid

    def envoy(self, uid: str) -> Path:
        """Directory of one sidecar's admin sockets."""
        return self.run / "envoy" / uid

    def pod(self, uid: str) -> Path:
        """What is made for one pod: resolv.conf, volumes."""
        return self.run / "pods" / uid

    def logs(self, namespace: str, pod: str) -> Path:
        """Directory of one pod's logs: `app.log` (or `app-<container>.log`), `proxy.log`, `proxy-err.log`."""
        return self.run / "logs" / namespace / pod

    def described(self) -> dict[str, Any]:
        """The contents of `mesh.json`; empty while the mesh starts."""
        try:
            found: dict[str, Any] = json.loads(self.description.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    @property
    def config_directory(self) -> Path:
        """Where `apply` writes: a directory whose manifests the mesh watches."""
        return Path(self.described().get("configDirectory") or self.state / "config")

    def make(self) -> None:
        """Create both directories, closed to others. Raises `RefusedError` (TUL0914, TUL0917)."""
        if len(str(self.run)) + len(_LONGEST_SOCKET) > _SOCKET_PATH_LIMIT:
            raise RefusedError(refusal("TUL0914", path=self.run, limit=_SOCKET_PATH_LIMIT))
        for parent in (self.run.parent, self.run, self.state):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _owned(self.run.parent)
        for name in ("xds", "envoy", "pods", "logs", "edge"):
            (self.run / name).mkdir(mode=0o700, exist_ok=True)
        version = self.state / "version"
        if not version.exists():
            version.write_text(f"{STATE_VERSION}\n")
        elif version.read_text().strip() != str(STATE_VERSION):
            raise RefusedError(refusal("TUL0917", path=self.state, found=version.read_text().strip()))

    def hold(self) -> int | None:
        """Take the mesh for this process; None when a supervisor holds it. The descriptor is the hold."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    @property
    def is_running(self) -> bool:
        """Whether a supervisor holds the mesh."""
        if not self.lock.exists():
            return False
        descriptor = self.hold()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def clear(self) -> None:
        """Remove everything in RUN but the lock: what a killed supervisor left behind."""
        for entry in self.run.iterdir():
            if entry != self.lock:
                _remove(entry)

    def remove(self) -> None:
        """Remove RUN; the state stays."""
        shutil.rmtree(self.run, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _owned(directory: Path) -> None:
    """The directory for scratch files is everybody's: what is ours in it must be ours and closed."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RefusedError(refusal("TUL0918", path=directory))
    if stat.S_IMODE(found.st_mode) & 0o077:
        directory.chmod(0o700)


def run_root() -> Path:
    """The directory of all run directories of this user (XDG base directory specification)."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "tulle"
    return Path(f"/tmp/tulle-{os.getuid()}")  # noqa: S108 - checked to be ours by `make`


def state_root() -> Path:
    """The directory of all state directories of this user (XDG base directory specification)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tulle"


def mesh_name(text: str) -> str:
    """A mesh's name from a folder's or what a user typed: lower-case letters, digits and hyphens."""
    return _NOT_A_NAME.sub("-", text.lower()).strip("-")[:_NAME_LIMIT] or "mesh"


def places_of(name: str) -> Places:
    """The paths of a mesh, running or not."""
    return Places(name, run_root() / name, state_root() / name)


def every_mesh() -> Iterator[Places]:
    """Meshes that left a run directory, running or not, by name."""
    root = run_root()
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        if entry.is_dir():
            yield places_of(entry.name)


def running() -> list[Places]:
    """Meshes that run now, by name."""
    return [mesh for mesh in every_mesh() if mesh.is_running]


def the_mesh(name: str | None = None) -> Places:
    """The mesh a command means: the named one, else $TULLE_MESH, else the only one.

    Raises `RefusedError` with TUL0911 (none) or TUL0912 (several).
    """
    wanted = name or os.environ.get(MESH_VARIABLE)
    if wanted:
        found = places_of(wanted)
        if not found.is_running:
            raise RefusedError(refusal("TUL0911", what=f"no mesh {wanted} runs here"))
        return found
    meshes = running()
    if not meshes:
        raise RefusedError(refusal("TUL0911", what="no mesh runs here"))
    if len(meshes) > 1:
        raise RefusedError(refusal("TUL0912", names=", ".join(mesh.name for mesh in meshes)))
    return meshes[0]
