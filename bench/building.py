"""The two programs that put load on tulle, built once into `build/bench/` (git ignores it): a Go client, a Rust load generator."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.machine import ROOT

HERE = Path(__file__).resolve().parent
BUILT = ROOT / "build" / "bench"
_TOOLS = {
    "go": ("Go", "golang-go", "/usr/local/go/bin"),
    "rustc": ("Rust", "rustc", str(Path.home() / ".cargo" / "bin")),
}
"""Language, its package of Debian and Ubuntu, where it lies when it was installed without one."""


class CannotMeasureError(Exception):
    """What is missing, in a sentence that says what to do."""


def adsload() -> Path:
    """M simulated sidecars (bench/adsload). Raises CannotMeasureError."""
    folder = HERE / "adsload"
    target = BUILT / "adsload"
    sources = [*folder.glob("*.go"), folder / "go.mod", folder / "go.sum"]
    return _built(target, sources, [_tool("go"), "build", "-o", str(target), "."], folder)


def loadgen() -> Path:
    """Load, echo and relay (bench/loadgen). Raises CannotMeasureError."""
    folder = HERE / "loadgen"
    target = BUILT / "loadgen"
    line = [_tool("rustc"), "-O", "--edition", "2021", "-o", str(target), str(folder / "main.rs")]
    return _built(target, list(folder.glob("*.rs")), line, folder)


def _tool(name: str) -> str:
    language, package, folder = _TOOLS[name]
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{folder}")
    if found is None:
        raise CannotMeasureError(f"{name} is missing: install {language} (apt-get install {package})")
    return found


def _built(target: Path, sources: list[Path], line: list[str], folder: Path) -> Path:
    if target.exists() and target.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        hint = "; bench/adsload needs the Go named in its go.mod" if target.name == "adsload" else ""
        raise CannotMeasureError(f"{Path(line[0]).name} could not build {folder.name}{hint}:\n{said}")
    os.utime(target)
    return target
