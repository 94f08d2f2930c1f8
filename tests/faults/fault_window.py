"""The seconds of a fault, and what a load has written until now. Knows no mesh."""

from __future__ import annotations

import json
import time
from pathlib import Path

from fault_rows import Line


class Window:
    """The seconds of one fault."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        # From the second after next: what was due before a fault is none of its business.
        self.begin = int(time.time()) + 2
        self.end = self.begin + seconds
        self.when: list[float] = []

    def mark(self) -> None:
        """It happens now."""
        self.when.append(time.time() - self.begin)

    def sleep_until(self, share: float) -> None:
        """Wait for a share of the window to be over."""
        time.sleep(max(0.0, self.begin + share * self.seconds - time.time()))

    @property
    def has_time(self) -> bool:
        """Whether the last tenth has not begun: what happens then is seen by the load, too."""
        return time.time() < self.begin + 0.9 * self.seconds


def read_lines(path: Path) -> list[Line]:
    """The whole lines of a result file."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
