"""Log files of pods: written by the processes themselves, kept small and indexed by time by the supervisor.

A process holds the file's descriptor, so nothing is copied and nothing is lost when the supervisor is busy. A file
that grows too large is copied aside and emptied in place.
"""

from __future__ import annotations

import os
import shutil
import time
from bisect import bisect_left
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 8 * 1024 * 1024
_MARKS_LIMIT: Final = 3600


def open_log(path: Path) -> int:
    """A descriptor that appends to a log."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


class LogKeeper:
    """Looks at every log file of a mesh once in a while."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._marks: dict[Path, list[tuple[float, int]]] = {}

    def look(self) -> None:
        """Remember how long each file is now; rotate those that are too long. O(files)."""
        now = time.time()
        for path in self._directory.rglob("*.log"):
            try:
                size = path.stat().st_size
                if size > LIMIT_BYTES:
                    _rotate(path)
                    self._marks[path] = [(now, 0)]
                    continue
            except FileNotFoundError:
                continue
            marks = self._marks.setdefault(path, [(now, 0)])
            if size != marks[-1][1]:
                marks.append((now, size))
                del marks[:-_MARKS_LIMIT]

    def offset(self, path: Path, since: float) -> int:
        """Where in a file the lines written after `since` (Unix time) begin, to about a second."""
        marks = self._marks.get(path, [])
        index = bisect_left(marks, (since, 0))
        return marks[index - 1][1] if index else 0

    def forget(self, directory: Path) -> None:
        """Drop what is known of a pod that is gone."""
        for path in [path for path in self._marks if path.parent == directory]:
            del self._marks[path]


def _rotate(path: Path) -> None:
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)


def last_lines(path: Path, count: int, start: int = 0) -> tuple[bytes, int]:
    """The last `count` lines after offset `start`, and where reading goes on."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = start if start <= end else 0
        if count <= 0:
            return b"", end
        at, found = end, b""
        while at > start and found.count(b"\n") <= count:
            step = min(65536, at - start)
            at -= step
            file.seek(at)
            found = file.read(step) + found
    lines = found.splitlines(keepends=True)
    return b"".join(lines[-count:]), end
