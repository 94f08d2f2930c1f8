"""Two scrapes of a mesh's sidecars with a pause between: what `stat` and `edges` reckon from."""

import asyncio
import sys
from collections.abc import Sequence

import click

from tulle.cli.connection import Connection
from tulle.cli.output import Exit, count, refuse, say
from tulle.telemetry.merged import Scrape, Sidecar, reading
from tulle.telemetry.rates import Flow, Reading, flows, seconds_between

WINDOW_S = 6.0
"""Longer than Envoy's flush interval (5 s): shorter windows may see requests without their latencies."""


_NAMED = 5
"""Proxies that are named one by one."""


def window_option(function: click.decorators.FC) -> click.decorators.FC:
    """`--window`."""
    return click.option(
        "-w", "--window", default=WINDOW_S, metavar="SECONDS", help=f"How long to look (default: {WINDOW_S:g})."
    )(function)


def watched(connection: Connection, window_s: float) -> tuple[tuple[Flow, ...], float]:
    """The flows of a window and its length in seconds. Sidecars that did not answer are named on stderr."""
    if sys.stderr.isatty():
        say(f"looking for {window_s:g} s")
    found = connection.sidecars()
    before, after, failed = asyncio.run(_two(found, max(window_s, 0.1)))
    _tell(failed, len(found))
    return flows(before, after), seconds_between(before, after)


def _tell(failed: Sequence[Scrape], asked: int) -> None:
    """Which proxies did not answer: what they alone saw is missing. Ends the command where none did."""
    for one in failed[:_NAMED]:
        say(f"the proxy of {one.sidecar.reporter.pod}.{one.sidecar.reporter.namespace} did not answer: {one.failure}")
    if len(failed) > _NAMED:
        say(f"and {len(failed) - _NAMED} more")
    if failed and len(failed) == asked:
        refuse(
            "no proxy answered: nothing is known of the traffic", Exit.UNREACHABLE, advice="See `tulle proxy status`."
        )
    if failed:
        say(f"figures are of {asked - len(failed)} of {count(asked, 'proxy')}")


async def _two(found: Sequence[Sidecar], window_s: float) -> tuple[Reading, Reading, tuple[Scrape, ...]]:
    before, missed = await reading(found)
    await asyncio.sleep(window_s)
    after, failed = await reading(found)
    # Of a proxy that answered only the second time, everything it ever counted would seem to be of this window.
    both = {one: samples for one, samples in after.samples.items() if one in before.samples}
    silent = {one.sidecar.reporter: one for one in (*missed, *failed)}
    return before, Reading(after.at_s, both), tuple(silent.values())
