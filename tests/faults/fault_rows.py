"""Rows of the fault table: which seconds of the load belong to a fault, and what they came to. Pure.

Reads the lines that `load.py` writes; knows no mesh and no fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Line = Mapping[str, Any]


@dataclass
class Counted:
    """The load of one window."""

    requests: int = 0
    new: int = 0
    failed: int = 0
    ms: list[float] = field(default_factory=list)
    pods: Counter[str] = field(default_factory=Counter)
    serials: list[str] = field(default_factory=list)
    """Of the server's certificate, in the order they were first seen."""
    reasons: Counter[str] = field(default_factory=Counter)
    echoes: dict[str, int] = field(default_factory=dict)
    """Per long stream, heard in the window."""
    breaks: list[str] = field(default_factory=list)
    """Of long streams, in the window."""
    unopened: list[str] = field(default_factory=list)
    """Those of them that never said a word: a stream begun anew is a new request."""
    lag_ms: float = 0.0

    def quantile(self, share: float) -> float:
        """Milliseconds that this share of the requests did not exceed."""
        ordered = sorted(self.ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def counted(lines: Sequence[Line], begin: int, end: int) -> Counted:
    """What was due in the seconds from `begin` up to `end`, `end` excluded."""
    found = Counted()
    inside = [line for line in lines if begin <= line["at"] < end]
    for line in inside:
        found.requests += line["sent"]
        found.new += line["new"]
        found.failed += line["failed"]
        found.ms += line["ms"]
        found.pods.update(line["pods"])
        found.lag_ms = max(found.lag_ms, line["lag_ms"])
        found.serials += [serial for serial in line["serials"] if serial not in found.serials]
        for failure in line["failures"]:
            found.reasons[f"{failure['on']}: {failure['reason']}"] += 1
    if inside:
        _streams(found, inside, begin, end)
    return found


def _streams(found: Counted, inside: Sequence[Line], begin: int, end: int) -> None:
    first, last = inside[0]["streams"], inside[-1]["streams"]
    for before, after in zip(first, last, strict=True):
        found.echoes[after["kind"]] = after["echoes"] - before["echoes"]
        for failure in after["failures"]:
            if begin <= failure["at"] < end:
                told = f"{after['kind']} stream at +{failure['at'] - begin:.1f} s: {failure['reason']}"
                found.breaks.append(told)
                if failure.get("echoes") == 0:
                    found.unopened.append(told)


def is_complete(lines: Sequence[Line], end: int) -> bool:
    """Whether nothing due before `end` is still under way (lines come in order)."""
    return bool(lines) and lines[-1]["at"] >= end - 1


@dataclass
class Row:
    """One fault and its load."""

    fault: str
    when: list[float]
    """Seconds after the window's begin."""
    proof: str
    seconds: int
    counted: Counted
    beside: Counted | None = None
    """The load inside the mesh, where the counted one came from outside."""
    streams_may_end: bool = False
    """With the pods they lead to. To begin anew they must not fail."""

    @property
    def faults_of_it(self) -> list[str]:
        """Why this row is not good; empty if it is."""
        wrong = [f"{count} x {reason}" for reason, count in self.counted.reasons.most_common(5)]
        wrong += self._broken(self.counted)
        if self.beside is not None:
            wrong += [f"inside the mesh: {count} x {reason}" for reason, count in self.beside.reasons.most_common(5)]
            wrong += self._broken(self.beside)
        for kind, echoes in (self.beside or self.counted).echoes.items():
            if echoes < self.seconds * 0.1:
                wrong.append(f"the {kind} stream stood still: {echoes} echoes")
        if self.counted.failed and not self.counted.reasons:
            wrong.append(f"{self.counted.failed} failed")
        if abs(self.counted.new * 2 - self.counted.requests) > 2:
            wrong.append(f"{self.counted.new} of {self.counted.requests} on new connections")
        return wrong

    def _broken(self, counted: Counted) -> list[str]:
        return counted.unopened if self.streams_may_end else counted.breaks


def table(rows: Sequence[Row]) -> str:
    """All rows as text."""
    head = ("fault", "at second", "proof", "requests", "failed", "p50 ms", "p99 ms", "max ms", "echoes tcp/grpc")
    body = [head] + [_cells(row) for row in rows]
    widths = [max(len(cells[at]) for cells in body) for at in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in body)


def _cells(row: Row) -> tuple[str, ...]:
    found, streams = row.counted, (row.beside or row.counted).echoes
    when = ", ".join(f"{moment:.1f}" for moment in row.when[:3]) + (
        f" … {row.when[-1]:.1f} ({len(row.when)} times)" if len(row.when) > 3 else ""
    )
    return (
        row.fault,
        when,
        row.proof,
        str(found.requests),
        str(found.failed),
        f"{found.quantile(0.5):.1f}",
        f"{found.quantile(0.99):.1f}",
        f"{max(found.ms, default=0.0):.0f}",
        "/".join(str(streams[kind]) for kind in ("tcp", "grpc") if kind in streams),
    )
