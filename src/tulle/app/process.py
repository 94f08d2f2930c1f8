"""What every process of the control plane does before it serves, and how it is told to stop, and of which release it is."""

import asyncio
import gc
import logging
import os
import signal
from functools import cache

from tulle.app.allocator import few_arenas
from tulle.serve import logs

GARBAGE = (50_000, 20, 50)
"""Collections of garbage are rarer than Python's: a first compile makes a hundred thousand objects that all stay."""


def prepare(log_format: str, *, is_verbose: bool = False) -> None:
    """Before threads are started and before grpc is imported."""
    logs.start(log_format, logging.DEBUG if is_verbose else logging.INFO)
    gc.set_threshold(*GARBAGE)
    few_arenas()
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # nothing is forked while serving


def stopping() -> asyncio.Event:
    """Set when the process is told to end; call it in the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@cache
def release(distribution: str) -> str:
    """The version of an installed distribution."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - drags in the parser of e-mail

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unpackaged"  # run from a source tree
