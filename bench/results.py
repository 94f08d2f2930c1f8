"""Results as files: `bench/results/<name>.json`, rows with their provenance; measuring again replaces rows of the same key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.machine import calibration_ms, described, load_average

FOLDER = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]


class Recorder:
    """Gives rows the machine, the commit and the calibration loop before and after them."""

    def __init__(self) -> None:
        self._where = described()
        self._before = calibration_ms()

    def row(self, key: Row, measured: Row) -> Row:
        """One result: `key` says what was measured, equal keys replace each other."""
        after = calibration_ms()
        beside = {"calibrationMs": [self._before, after], "loadAverage": load_average()}
        self._before = after
        return {"key": key, **measured, "machine": {**self._where, **beside}}


def read(name: str, folder: Path = FOLDER) -> list[Row]:
    """Saved rows; none where nothing was saved."""
    path = folder / f"{name}.json"
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


def save(name: str, rows: Iterable[Row], folder: Path = FOLDER) -> Path:
    """Put rows beside those that were saved with other keys."""
    kept = merged(read(name, folder), rows)
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, "rows": kept}, indent=1) + "\n")
    return path


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Rows by key, sorted by it; the newer wins."""
    found = {_order(row["key"]): row for row in [*old, *new]}
    return [found[key] for key in sorted(found)]


def _order(key: Row) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{value:012}" if isinstance(value, int) else str(value)) for name, value in key.items())


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Columns of text for a terminal."""
    rows = [tuple(map(str, head)), *(tuple(map(str, line)) for line in lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            word.ljust(width) if at == 0 else word.rjust(width)
            for at, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
