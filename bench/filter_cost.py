"""What each default piece of tulle's configuration costs: the plain pair with more and more of it, then tulle's own pair.

The same windows, cycles and ratios as the data path's (bench/data_path.py); what the pieces are is said in bench/pieces.py. The last
step, from the access log to tulle's own pair, is the capture and listeners chosen by address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import data_path
from bench.results import Row
from bench.ways import PLAIN, WITH

NAME = "filter-cost"
WAYS = (PLAIN, *WITH, "full")


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    return data_path.text(rows)


def arguments(parser: Any) -> None:
    """Of the command line."""
    parser.add_argument("--cycles", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one window")


def run(given: Any) -> list[Row]:
    """What the command line asks for."""
    return data_path.measure(data_path.Plan(("http1",), WAYS, given.cycles, given.seconds))
