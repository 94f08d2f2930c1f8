"""What workloads are known to call, on disk: one JSON file, replaced as a whole. Knows no proxies; deciding is `learning`'s."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from tulle.serve import logs
from tulle.serve.learning import Kept

_SCHEMA = 1


class _File(Struct):
    schema: int
    workloads: dict[str, dict[str, float]]


class Memory(Protocol):
    """Where it is kept."""

    def read(self) -> Kept:
        """What was kept, once, at start; it may be of another release, or damaged."""

    async def wrote(self, kept: Kept) -> bool:
        """Keep it; False where that is not done yet: it is asked again."""


class LearnedFile:
    """The file. Losing it costs every workload one slow first request per service."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said = ""

    def read(self) -> Kept:
        """What was written; nothing where there is no file, one of another schema, or none that can be read (then it is logged)."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, RecursionError) as error:
            logs.event(logging.WARNING, "what workloads call cannot be read", path=str(self._path), error=str(error))
            return {}
        return found.workloads if found.schema == _SCHEMA else {}

    async def wrote(self, kept: Kept) -> bool:
        """Replace it; False where that failed, which is logged once for each reason."""
        try:
            await asyncio.to_thread(self.write, kept)
        except OSError as error:
            if self._said != str(error):
                self._said = str(error)
                logs.event(logging.WARNING, "what workloads call is not written down", error=str(error))
            return False
        self._said = ""
        return True

    def write(self, kept: Kept) -> None:
        """Replace it: whole or not at all. Raises OSError."""
        whole = _File(_SCHEMA, {who: dict(names) for who, names in kept.items()})
        fresh = self._path.with_suffix(".new")
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(whole))
            fresh.replace(self._path)
        except OSError:
            fresh.unlink(missing_ok=True)  # half a file on a full disk helps nobody
            raise
