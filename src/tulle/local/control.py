"""The control plane as a child process: started first, started again when it dies, asked to settle.

What it does is `tulle.app.control`'s business; sidecars go on as they are while it is away.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tulle.local import tethered
from tulle.local.asking import ask
from tulle.local.fabric.client import import_environment
from tulle.local.places import Places

_PAUSES: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY: Final = 10.0
_SETTLE_AGAIN: Final = 0.05
_SETTLE_FALLBACK: Final = 2.0


class ControlPlane:
    """One control plane, for as long as the mesh runs."""

    def __init__(self, places: Places, arguments: Sequence[str], tell: Callable[[str, Path], None]) -> None:
        self._places = places
        self._argv = (
            *(sys.executable, "-m", "tulle.app.control"),
            *("--run-dir", str(places.run), "--state-dir", str(places.state)),
            *arguments,
        )
        self._tell = tell
        """Called with how it ended and where it says why, whenever it ended unasked."""
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def log(self) -> Path:
        """Everything it prints."""
        return self._places.run / "logs" / "control-plane.log"

    @property
    def pid(self) -> int | None:
        """Its process on this machine; None while it is away."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    async def start(self) -> None:
        """Start it, and keep it running until `stop`."""
        await self._spawn()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _spawn(self) -> None:
        self._process = await tethered.spawn(self._argv, import_environment(), self.log)

    async def _keep(self) -> None:
        failures = 0
        while True:
            assert self._process is not None
            began = time.monotonic()
            code = await self._process.wait()
            failures = 0 if time.monotonic() - began > _STEADY else failures + 1
            self._tell(f"signal {-code}" if code < 0 else f"status {code}", self.log)
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            await self._spawn()

    async def stop(self) -> None:
        """End it."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is not None:
            await tethered.end(self._process)

    async def settle(self, patience: float = 10.0) -> bool:
        """Wait until every connected proxy holds what the files and `runtime.json` say now.

        False when the control plane stays away for two seconds, which is what is known to be enough on an idle machine, or
        does not answer in time. One that has just started serves proxies before it answers us: it is asked again.
        """
        body = json.dumps({"timeoutSeconds": patience}).encode()
        until = time.monotonic() + _SETTLE_FALLBACK
        while True:
            try:
                reply = await ask(self._places.admin_socket, "POST", "/v1/settle", body, timeout=patience)
                if reply.status == 200:
                    return True
            except (OSError, EOFError):
                pass  # not there, or gone while it was asked
            left = until - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(_SETTLE_AGAIN, left))
