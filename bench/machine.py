"""What a process costs, and how fast this machine is right now: a fixed loop is timed beside every result."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TICK = os.sysconf("SC_CLK_TCK")
_ROUNDS = 1_000_000
MIB = 1 << 20


def calibration_ms() -> float:
    """The time of a loop that is always the same and only computes; best of three. Doubled: the machine had half the time for us."""
    return round(min(_loop() for _ in range(3)), 1)


def _loop() -> float:
    began, value = time.perf_counter(), 0
    for number in range(_ROUNDS):
        value = (value * 31 + number) & 0xFFFFFFFF
    return (time.perf_counter() - began) * 1000


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, in steps of a tick (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory(pid: int) -> dict[str, float]:
    """MiB: resident now, resident at most, private (what the kernel would get back if it ended)."""
    status = kilobytes(Path(f"/proc/{pid}/status"))
    rollup = kilobytes(Path(f"/proc/{pid}/smaps_rollup"))
    private = rollup["Private_Clean"] + rollup["Private_Dirty"]
    found = {"resident": status["VmRSS"], "most": status["VmHWM"], "private": private}
    return {name: round(value / 1024, 1) for name, value in found.items()}


def kilobytes(path: Path) -> dict[str, int]:
    """Lines `Name: N kB` of a file of /proc."""
    lines = (line.split() for line in path.read_text().splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


def described() -> dict[str, object]:
    """This machine and this checkout, as every result names them."""
    models = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "isDirty": bool(_git("status", "--porcelain", "--", "src")),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": len(os.sched_getaffinity(0)),
        "processor": next(models, "").partition(": ")[2] or platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def load_average() -> float:
    """Of the last minute: others' work while we measured."""
    return round(os.getloadavg()[0], 2)


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()
