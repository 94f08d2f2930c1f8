"""What of this machine the workloads of a mesh see: programs, Python, the manifests' folder; and what they never see.

Knows paths only. The fabric's sandbox shows the system's own directories by itself and nothing else of the host.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

import tulle
from tulle.local.fabric.client import Bind

_SYSTEM: Final = ("/usr/", "/bin/", "/sbin/", "/lib", "/etc/", "/opt/", "/nix/")
_PYTHONS: Final = frozenset({"python", "python3", f"python3.{sys.version_info.minor}"})


def base_environment() -> dict[str, str]:
    """What every container starts with: nothing of the user's own environment but where programs are."""
    env = {
        "PATH": os.pathsep.join(_program_directories()),
        "HOME": "/tmp",  # noqa: S108 - a folder of the sandbox's own
        "LANG": "C.UTF-8",
    }
    source = _source_directory()
    if source is not None and str(source) in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        # Tulle was not installed but pointed at; its examples must be found all the same.
        env["PYTHONPATH"] = str(source)
    return env


def find_program(word: str, directory: str) -> str | None:
    """The path of a program as a workload can execute it; None if there is none. `python` is the Python we run on."""
    if word in _PYTHONS:
        return sys.executable
    if "/" in word:
        path = Path(directory, word)
        return str(path) if os.access(path, os.X_OK) and path.is_file() else None
    return shutil.which(word, path=os.pathsep.join(_program_directories()))


def workload_binds(manifests: Iterable[Path], private: Iterable[Path]) -> tuple[Bind, ...]:
    """Folders shown read-only to every workload: programs of the PATH, tulle's own source, the manifests' folders.

    Nothing that contains a `private` path (run and state directories) because of a program in it.
    """
    kept_out = [path.resolve() for path in private]
    found: dict[str, None] = {}
    for directory in _program_directories():
        for path in (Path(directory), *_prefixes(Path(directory))):
            if _may_show(path, kept_out):
                found[str(path)] = None
    source = _source_directory()
    if source is not None:
        found[str(source)] = None
    for manifest in manifests:
        found[str(manifest)] = None
    return tuple(Bind(path) for path in found if not path.startswith(_SYSTEM) and os.path.isdir(path))  # noqa: PTH112 - as below


def _may_show(path: Path, private: list[Path]) -> bool:
    resolved = path.resolve()
    home = Path.home()
    is_too_much = resolved in (Path("/"), home, home / ".local") or resolved in home.parents
    return not is_too_much and not any(resolved == one or resolved in one.parents for one in private)


def _prefixes(directory: Path) -> tuple[Path, ...]:
    """Programs in …/bin look for …/lib (a Node or Go in the user's home)."""
    return (directory.parent,) if directory.name == "bin" and directory.parent != Path("/") else ()


@cache
def _program_directories() -> tuple[str, ...]:
    said = os.environ.get("PATH", "").split(os.pathsep)
    usual = [str(Path(sys.prefix) / "bin"), *said, "/usr/local/bin", "/usr/bin", "/bin"]
    return tuple(dict.fromkeys(entry for entry in usual if entry.startswith("/") and os.path.isdir(entry)))  # noqa: PTH112 - a folder one may not look into is none


@cache
def _source_directory() -> Path | None:
    """Where the package is when it is not below a Python prefix (a checkout)."""
    assert tulle.__file__ is not None
    source = Path(tulle.__file__).resolve().parent.parent
    prefixes = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
    return None if any(prefix in source.parents for prefix in prefixes) else source
