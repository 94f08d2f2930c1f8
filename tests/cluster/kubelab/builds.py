"""Go programs of `../go` and of the modules they name, built once into the cache and found there by the hash of their source.

Kubernetes costs about ten CPU minutes the first time. Nothing here knows what the programs do.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from . import toolchain
from .layout import cache
from .saying import say

SOURCES = Path(__file__).resolve().parents[1] / "go"
REPOSITORY = Path(__file__).resolve().parents[3]
LONGEST_S = 45 * 60
KUBERNETES = "v1.36.3"
SUITE = "sigs.k8s.io/gateway-api/conformance"


class UnavailableError(Exception):
    """This machine cannot run a cluster; the text says what is missing."""


class Program(NamedTuple):
    """What is built: a package as seen from a module's folder."""

    name: str
    folder: Path
    package: str
    flags: tuple[str, ...]
    promise: str


def _stamped() -> str:
    """Linker flags: the version that kubectl, kubelet and the API show; clients read it."""
    _, minor, _ = KUBERNETES.removeprefix("v").split(".")
    values = {"gitVersion": KUBERNETES, "gitMajor": "1", "gitMinor": minor, "gitTreeState": "clean"}
    values |= {"gitCommit": "0" * 40, "buildDate": "1970-01-01T00:00:00Z"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())


def _program(name: str, folder: str, package: str = ".", *, stamp: str = "", promise: str = "seconds") -> Program:
    return Program(name, SOURCES / folder, package, ("-ldflags", f"-s -w {stamp}"), promise)


PROGRAMS = {
    one.name: one
    for one in (
        _program("k", "kubernetes", stamp=_stamped(), promise="10 CPU minutes"),
        _program("coredns", "coredns", promise="3 CPU minutes"),
        _program("echo-basic", "echo", f"{SUITE}/echo-basic", promise="1 CPU minute"),
        _program("echo", "echo", promise="1 CPU minute"),
        _program("conformance", "conformance", promise="2 CPU minutes"),
    )
}


def built(name: str) -> Path:
    """The program's file; made when it is not there yet. Raises UnavailableError without a Go, RuntimeError when it fails."""
    program = PROGRAMS.get(name) or Program(name, REPOSITORY / name, ".", ("-ldflags", "-s -w"), "seconds")
    target = cache() / "go" / f"{name}-{_key(program)}" / name
    with locked(target.parent.parent / f"{name}.lock"):
        if not target.exists():
            _build(program, target)
    return target


def module(folder: str, path: str) -> Path:
    """Where Go keeps the source of a module, at the version of `go/<folder>/go.mod`; fetched when it is not there."""
    line = [go(), "mod", "download", "-json", path]
    done = subprocess.run(line, cwd=SOURCES / folder, check=False, capture_output=True, text=True, timeout=300)
    found: dict[str, str] = json.loads(done.stdout or "{}")
    if "Dir" not in found:
        raise RuntimeError(f"{path}: {done.stderr}{found.get('Error', '')}")
    return Path(found["Dir"])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time per path; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def tree_hash(folders: list[Path], *further: str) -> str:
    """16 hex digits of all files' names and bytes below the folders, compiled Python aside."""
    digest = hashlib.sha256("\0".join(further).encode())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(folder)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _key(program: Program) -> str:
    return tree_hash([program.folder], program.package, *program.flags, toolchain.go_version())


def go() -> str:
    """The Go toolchain. Raises UnavailableError."""
    try:
        return toolchain.go()
    except toolchain.NoGoError as error:
        raise UnavailableError(str(error)) from error


def _build(program: Program, target: Path) -> None:
    say(f"building {program.name} (once; takes {program.promise})")
    began = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / program.name
        line = ["nice", "-n", "5", go(), "build", *program.flags, "-o", str(made), program.package]
        done = subprocess.run(
            line, cwd=program.folder, env=environment, check=False, capture_output=True, text=True, timeout=LONGEST_S
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program.name} does not build:\n{done.stdout}{done.stderr}"[-4000:])
        made.rename(target)
    say(f"built {program.name} in {time.monotonic() - began:.0f} s")
