"""The control plane as a process of its own, and the simulated sidecars that connect to it. Knows no table."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from bench.building import CannotMeasureError
from bench.machine import ROOT, cpu_seconds

LOAD_SECONDS = 120.0
NAMESPACES = 4
"""The simulated sidecars live in so many namespaces: so many views."""
Line = dict[str, Any]


class ControlPlane:
    """`python -m tulle.app.control` with plaintext xDS on loopback."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path, address: str) -> None:
        self._process = process
        self._place = place
        self.address = address
        self.load_seconds = 0.0
        self.load_cpu_seconds = 0.0

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def metric(self, name: str) -> float:
        """One of its own metrics; the sum over labels."""
        port = (self._place / "run" / "metrics-port").read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))

    def wait(self, began: float) -> None:
        """Until it accepts: everything is loaded then. Raises CannotMeasureError."""
        host, _, port = self.address.rpartition(":")
        while time.monotonic() < began + LOAD_SECONDS:
            if self._process.poll() is not None:
                said = (self._place / "control.log").read_text()[-600:]
                raise CannotMeasureError(f"the control plane ended with {self._process.returncode}: {said}")
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                self.load_seconds = time.monotonic() - began
                self.load_cpu_seconds = cpu_seconds(self.pid)
                return
            time.sleep(0.02)
        raise CannotMeasureError(f"the control plane loaded for more than {LOAD_SECONDS:.0f} s")


@contextmanager
def control_plane(config: Path, place: Path, settings: dict[str, Any]) -> Iterator[ControlPlane]:
    """Start one, give it when it has loaded everything, end it."""
    for name in ("run", "state"):
        (place / name).mkdir(mode=0o700)
    (place / "settings.json").write_text(json.dumps(settings))
    address = f"127.0.0.1:{_free_port()}"
    began = time.monotonic()
    with (place / "control.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tulle.app.control"),
                *("--run-dir", place / "run", "--state-dir", place / "state"),
                *("--settings", place / "settings.json", "--xds-plaintext", address),
                config,
            ],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    plane = ControlPlane(process, place, address)
    try:
        plane.wait(began)
        yield plane
    finally:
        _end(process)


class Sidecars:
    """`adsload`: told one change after the other, answers with what it cost."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def answer(self) -> Line:
        """The next line. Raises CannotMeasureError if there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CannotMeasureError(f"adsload ended with {self._process.wait(10)}")
        return dict(json.loads(line))

    def rename(self, name: str, source: Path, target: Path) -> Line:
        """Rename a file and wait until every sidecar that holds it has changed."""
        return self.tell(f"{name}: @rename {source} {target}")

    def tell(self, command: str) -> Line:
        """One command of bench/adsload/README.md, and its answer. Raises CannotMeasureError."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self.answer()


class Serving(Protocol):
    """A control plane that sidecars can connect to."""

    address: str

    @property
    def pid(self) -> int:
        """Its process."""


@contextmanager
def sidecars(program: Path, plane: Serving, count: int, place: Path, further: Sequence[str] = ()) -> Iterator[Sidecars]:
    """Connect `count` sidecars; the first answer is their cold start."""
    with (place / "adsload.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(program, "-addr", plane.address, "-m", str(count), "-namespaces", str(NAMESPACES)),
                *("-server-pid", str(plane.pid), "-cold-timeout", "600s", "-trial-timeout", "120s"),
                *further,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield Sidecars(process)
    finally:
        _end(process)


def _free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _end(process: subprocess.Popen[Any]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
