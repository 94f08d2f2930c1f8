"""Reloading a file source when its files change.

The clock and the file system's events live here; `files` decides what changed. Source: inotify(7).
"""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from asyncinotify import Event, Inotify, Mask

from tulle.sources.files import Change, FileSource

SETTLE_S = 0.01
"""So long after the first event its change is read, with everything that was said meanwhile."""
_EMPTIED_S = 0.05
_MASK = Mask.CREATE | Mask.MODIFY | Mask.CLOSE_WRITE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO


async def changes(source: FileSource) -> AsyncGenerator[Change]:
    """Every change of the source from now on, parsed in a thread; cancel to end.

    Yields also when only problems changed. Folders are watched rather than files, because editors replace files.
    """
    before = source.problems
    with Inotify(sync_timeout=0) as told:
        for folder in _folders(source):
            told.add_watch(folder, _MASK)
        while True:
            touched = await _touched(told)
            if any(_is_emptied(path) for path in touched):
                await asyncio.sleep(_EMPTIED_S)  # editors that write in place empty the file first
            change = await asyncio.to_thread(source.reload, touched)
            if not change.is_empty or change.problems != before:
                before = change.problems
                yield change


async def _touched(told: Inotify) -> tuple[Path, ...]:
    """The files that changed, each once; none where more changed than the kernel remembers: then all are looked at."""
    event: Event | None = await told.get()
    await asyncio.sleep(SETTLE_S)
    paths: dict[Path, None] = {}
    is_lost = False
    while event is not None:
        is_lost |= Mask.Q_OVERFLOW in event.mask
        if event.path is not None and event.name is not None:
            paths[event.path] = None
        event = told.sync_get()
    return () if is_lost else tuple(paths)


def _folders(source: FileSource) -> tuple[Path, ...]:
    folders = {path if path.is_dir() else path.parent for path in source.paths}
    return tuple(sorted(folder for folder in folders if folder.is_dir()))


def _is_emptied(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return False
