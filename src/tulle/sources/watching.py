"""Reloading a file source when its files change.

The clock and the file system's events live here; `files` decides what changed.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import awatch

from tulle.sources.files import Change, FileSource

DEBOUNCE_MS = 10
"""At most this long after the first event its change is read."""
_STEP_MS = 4
_EMPTIED_S = 0.05
_POLL_MS = 1_000


async def changes(source: FileSource, stop: asyncio.Event | None = None) -> AsyncIterator[Change]:
    """Every change of the source from now on, parsed in a thread. Ends when `stop` is set; cancel to end at once.

    Yields also when only problems changed. Folders are watched rather than files, because editors replace files.
    """
    before = source.problems
    async for events in awatch(
        *_folders(source), debounce=DEBOUNCE_MS, step=_STEP_MS, stop_event=stop, rust_timeout=_POLL_MS, recursive=False
    ):
        touched = [Path(name) for _, name in events]
        if any(_is_emptied(path) for path in touched):
            await asyncio.sleep(_EMPTIED_S)  # editors that write in place empty the file first
        change = await asyncio.to_thread(source.reload, touched)
        if not change.is_empty or change.problems != before:
            before = change.problems
            yield change


def _folders(source: FileSource) -> tuple[Path, ...]:
    folders = {path if path.is_dir() else path.parent for path in source.paths}
    return tuple(sorted(folder for folder in folders if folder.is_dir()))


def _is_emptied(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return False
