"""Two scrapes of a mesh's sidecars with a pause between: what `stat` and `edges` reckon from."""

import asyncio
import sys

import click

from tulle.cli.connection import Connection
from tulle.cli.output import say
from tulle.telemetry.merged import Scrape, reading
from tulle.telemetry.rates import Flow, Reading, flows, seconds_between

WINDOW_S = 6.0
"""Longer than Envoy's flush interval (5 s): shorter windows may see requests without their latencies."""


def window_option(function: click.decorators.FC) -> click.decorators.FC:
    """`--window`."""
    return click.option(
        "-w", "--window", default=WINDOW_S, metavar="SECONDS", help=f"How long to look (default: {WINDOW_S:g})."
    )(function)


def watched(connection: Connection, window_s: float) -> tuple[tuple[Flow, ...], float]:
    """The flows of a window and its length in seconds. Sidecars that did not answer are named on stderr."""
    if sys.stderr.isatty():
        say(f"looking for {window_s:g} s")
    before, after, failed = asyncio.run(_two(connection, max(window_s, 0.1)))
    for one in failed:
        name = f"{one.sidecar.reporter.pod}.{one.sidecar.reporter.namespace}"
        say(f"the sidecar of {name} did not answer: {one.failure}")
    return flows(before, after), seconds_between(before, after)


async def _two(connection: Connection, window_s: float) -> tuple[Reading, Reading, tuple[Scrape, ...]]:
    before, _ = await reading(connection.places.run)
    await asyncio.sleep(window_s)
    after, failed = await reading(connection.places.run)
    return before, after, failed
