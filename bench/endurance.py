"""What hours do to it, in minutes: 10,000 reconnects, 10,000 edits, a client that stands still, half an hour of small load.

Counts and memory, not times: everything but `frozen` may run on a machine that has other work (`--nice`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench import churn, frozen, soak
from bench.results import Recorder, Row

NAME = "endurance"


_HEAD = """\
Memory is resident memory of the control plane when nothing has happened for a while, after a warm-up and again after so many
reconnects or edits; sidecars connect through the sockets of their pods. Beside one that stands still, times are paired with rounds
without it. The soak is a mesh of `tulle up` with real sidecars under load.
"""


class Trial(NamedTuple):
    """One kind."""

    run: Callable[[Any], list[tuple[Row, Row]]]
    """Of the command line: key and what was measured."""
    text: Callable[[Row], str]


def _soak(given: Any) -> list[tuple[Row, Row]]:
    plan = soak.Plan(given.minutes * 60, given.rate)
    return [({"what": "soak"}, soak.measure(plan))]


def _churn(given: Any) -> list[tuple[Row, Row]]:
    cases = [
        churn.Case(given.what, how, given.count, max(1, given.count // 10), given.services, given.sidecars)
        for how in given.discovery.split(",")
    ]
    return [(case.key, churn.measure(case)) for case in cases]


def _frozen(given: Any) -> list[tuple[Row, Row]]:
    cases = [frozen.Case(how, given.services, given.sidecars - 1) for how in (frozen.LIVE, frozen.STARTING)]
    return [(case.key, frozen.measure(case, given.repeat)) for case in cases]


TRIALS = {
    "frozen": Trial(_frozen, frozen.text),
    "reconnects": Trial(_churn, churn.text),
    "edits": Trial(_churn, churn.text),
    "soak": Trial(_soak, soak.text),
}


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    return "\n\n".join(f"{_named(row)}\n{TRIALS[row['key']['what']].text(row)}" for row in rows)


def section(rows: Sequence[Row]) -> str:
    """For the page: one paragraph per row, as a list."""
    parts = [
        f"### {_named(row).capitalize()}\n\n"
        + "".join(f"- {line}\n" for line in TRIALS[row["key"]["what"]].text(row).splitlines())
        for row in rows
    ]
    return "## Endurance\n\n" + _HEAD + "\n" + "\n".join(parts)


def _named(row: Row) -> str:
    what, *further = row["key"].items()
    return ", ".join([str(what[1]), *(f"{name} {value}" for name, value in further)])


def arguments(parser: Any) -> None:
    """Of the command line."""
    parser.add_argument("what", choices=sorted(TRIALS))
    parser.add_argument("--minutes", type=float, default=30.0, help="of a soak")
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second of a soak")
    parser.add_argument("--count", type=int, default=10_000, help="of reconnects or edits")
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--sidecars", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=5, help="rounds beside one that stands still")
    parser.add_argument("--discovery", default="full,on-demand", help="comma-separated")
    parser.add_argument("--nice", type=int, default=0, help="give way to others by so much")


def run(given: Any) -> list[Row]:
    """What the command line asks for."""
    os.nice(given.nice)
    recorder = Recorder()
    return [recorder.row(key, found) for key, found in TRIALS[given.what].run(given)]
