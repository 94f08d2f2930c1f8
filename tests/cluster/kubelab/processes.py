"""Starting processes that cannot outlive their parent, and ending those that a crashed one left behind.

A process is its pid and its start time (clock ticks since boot): a pid alone may be somebody else's by now.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

STEP_S = 0.05
LONGEST_S = 20.0


class Started(NamedTuple):
    """Who a process is, for good."""

    pid: int
    ticks: int


def spawn(
    line: list[str], log: Path, *, environment: dict[str, str] | None = None, death: str = "KILL"
) -> subprocess.Popen[bytes]:
    """Start in a session of its own; the kernel sends it the signal `death` when the calling thread ends. Output to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", death, *line],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )


def who(pid: int) -> Started | None:
    """None when there is no such process, or only its corpse."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else Started(pid, int(fields[19]))


def is_alive(process: Started) -> bool:
    """The very same process still runs."""
    return who(process.pid) == process


def end(processes: list[Started], *, grace_s: float) -> None:
    """SIGTERM, wait up to `grace_s` for all, then SIGKILL. Raises TimeoutError when one survives even that for 20 s."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    if not _gone(processes, grace_s):
        for process in processes:
            _signal(process, signal.SIGKILL)
        if not _gone(processes, LONGEST_S):
            raise TimeoutError(f"processes that do not die: {[one.pid for one in processes if is_alive(one)]}")


def _signal(process: Started, number: int) -> None:
    if is_alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return  # ended in between, which was the aim


def _gone(processes: list[Started], limit_s: float) -> bool:
    until = time.monotonic() + limit_s
    while any(is_alive(one) for one in processes):
        if time.monotonic() > until:
            return False
        time.sleep(STEP_S)
    return True
