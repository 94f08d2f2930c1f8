"""tulle as a user has it: the wheel of this checkout in an environment of its own, and an ordinary user to run it.

Root is no user of a mesh; where the tests run as root an account without rights is made for them. Knows nothing of meshes.
"""

import atexit
import functools
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "programs"
ACCOUNT = "tulle-test"
KEEP = "TULLE_TEST_KEEP"
"""Set, what the meshes wrote stays where it is."""


@dataclass(frozen=True)
class Installed:
    """Where everything is, and who runs it."""

    place: Path
    user: tuple[int, int] | None
    """User and group; None: whoever runs the tests."""

    @property
    def environment(self) -> Path:
        """The virtual environment; its prefix is readable in every sandbox, so the test programs lie there."""
        return self.place / "venv"

    @property
    def programs(self) -> Path:
        """`echo.py`, `requester.py`."""
        return self.environment / "programs"

    def file_for_user(self, path: Path, content: str | bytes) -> Path:
        """Write a file that the ordinary user owns."""
        self.directory_for_user(path.parent)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if self.user is not None:
            os.chown(path, *self.user)
        return path

    def directory_for_user(self, path: Path) -> Path:
        """Make a directory that the ordinary user owns."""
        missing = [one for one in (path, *path.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir()
            if self.user is not None:
                os.chown(one, *self.user)
        return path

    def command(self, *argv: str | Path, **settings: str) -> dict[str, Any]:
        """Arguments for `subprocess`: a command as the ordinary user, in a home of its own."""
        environ = {
            "PATH": f"{self.environment / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.place / "home"),
            "XDG_STATE_HOME": str(self.place / "state"),
            "XDG_RUNTIME_DIR": str(self.place / "run"),
            "TMPDIR": str(self.place / "tmp"),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **settings,
        }
        as_user: dict[str, Any] = (
            {} if self.user is None else {"user": self.user[0], "group": self.user[1], "extra_groups": []}
        )
        return {"args": [str(word) for word in argv], "env": environ, "cwd": self.place / "home", **as_user}


def ordinary_user() -> tuple[int, int] | None:
    """User and group number of an account that may do nothing in particular; made if the tests run as root and there is none."""
    if os.geteuid() != 0:
        return None
    if not any(entry.pw_name == ACCOUNT for entry in pwd.getpwall()):
        line = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT]
        subprocess.run(line, check=True)
    entry = pwd.getpwnam(ACCOUNT)
    assert entry.pw_uid
    return entry.pw_uid, entry.pw_gid


def _interpreters(place: Path) -> Iterator[Path]:
    """Pythons that any user may execute, the tests' own version first; the last is a copy of ours."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name in (f"python{version}", "python3", "python3.13", "python3.12", "python3.11"):
        for folder in ("/usr/bin", "/usr/local/bin"):
            if (found := Path(folder) / name).exists():
                yield found
    prefix = Path(sys.base_prefix)
    ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a", "idlelib", "config-*")
    shutil.copytree(prefix / "lib", place / "python" / "lib", ignore=ignored, symlinks=True)
    (place / "python" / "bin").mkdir()
    shutil.copy2(prefix / "bin" / f"python{version}", place / "python" / "bin" / "python3")
    yield place / "python" / "bin" / "python3"


def _interpreter(place: Path) -> Path:
    question = "import sys, ssl; sys.exit(sys.version_info < (3, 11))"
    for found in _interpreters(place):
        if subprocess.run([found, "-c", question], check=False, capture_output=True).returncode == 0:
            return found
    raise FileNotFoundError("no Python of 3.11 or newer that any user may execute")


def _uv(*arguments: str | Path, **environ: str) -> None:
    """uv beside our interpreter; from its cache if that has everything, else from the registry."""
    line = [Path(sys.executable).parent / "uv", *arguments, "-q"]
    environment = {**os.environ, **environ}
    if subprocess.run([*line, "--offline"], check=False, capture_output=True, env=environment).returncode:
        subprocess.run(line, check=True, env=environment)


@functools.cache
def installed() -> Installed:
    """Once a session: about two seconds with a warm uv cache, a minute without."""
    place = Path("/var/tmp") / f"tulle-test-{os.getpid()}"
    place.mkdir()
    if KEEP not in os.environ:
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    tools = place / "venv"
    _uv("venv", "--python", _interpreter(place), tools)
    _uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", place / "dist", ROOT)
    (wheel,) = (place / "dist").glob("*.whl")
    _uv("pip", "install", "-c", ROOT / "requirements.lock", wheel, VIRTUAL_ENV=str(tools))
    shutil.copytree(PROGRAMS, tools / "programs", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)
    made = Installed(place, ordinary_user())
    for name in ("home", "state", "run", "tmp", "meshes", "control"):
        made.directory_for_user(place / name)
        (place / name).chmod(0o700)
    return made
