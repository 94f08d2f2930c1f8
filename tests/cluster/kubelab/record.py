"""The run file of a cluster: who keeps it, what it consists of, how far it is. What a crash leaves is found by it.

`KEEPER/run.json` is replaced whole (rename); readers see one state or the next.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from . import cgroups, processes
from .layout import MOST_CLUSTERS, Layout, clusters
from .processes import Started

STARTING, READY, FAILED = "starting", "ready", "failed"


class Record(NamedTuple):
    """`parts` are all processes by name, the keeper aside; `message` is for the person who waits."""

    layout: Layout
    keeper: Started
    state: str
    message: str
    parts: dict[str, Started]

    @property
    def is_kept(self) -> bool:
        """Somebody looks after it."""
        return processes.is_alive(self.keeper)


def path_of(name: str) -> Path:
    """The run file's place."""
    return clusters() / name / "run.json"


def write(record: Record) -> None:
    """Replace the file."""
    target = path_of(record.layout.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".part")
    fresh.write_text(json.dumps(record._asdict()))
    fresh.rename(target)


def read(name: str) -> Record | None:
    """None when there is no such cluster."""
    try:
        found: dict[str, Any] = json.loads(path_of(name).read_text())
    except FileNotFoundError:
        return None
    return Record(
        layout=Layout(*found["layout"]),
        keeper=Started(*found["keeper"]),
        state=found["state"],
        message=found["message"],
        parts={part: Started(*pair) for part, pair in found["parts"].items()},
    )


def names() -> list[str]:
    """All that have a run file, dead ones too."""
    return sorted(path.parent.name for path in clusters().glob("*/run.json"))


def free_slot() -> int:
    """The least that no run file claims. Raises RuntimeError when all are taken. Call it under the lock of all clusters."""
    taken = {found.layout.slot for name in names() if (found := read(name)) is not None}
    for slot in range(MOST_CLUSTERS):
        if slot not in taken:
            return slot
    raise RuntimeError(f"{MOST_CLUSTERS} clusters run already: take some down")


def clear(record: Record) -> None:
    """End what is left of a cluster and remove its traces; its keeper must be dead. Safe to repeat."""
    processes.end(list(record.parts.values()), grace_s=0.0)
    layout = record.layout
    # the kernel removes the link with its namespace, a moment later
    subprocess.run(["ip", "link", "del", layout.link], check=False, capture_output=True)
    for node in layout.nodes:
        cgroups.remove(node.cgroup)
    shutil.rmtree(layout.folder, ignore_errors=False)
