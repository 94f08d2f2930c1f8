"""The forward proxy of a mesh without isolation: one Envoy that follows files. What is in them is `forwarding`'s."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

from tulle.local import envoys, forwarding, tethered
from tulle.local.edge import choose_host_ports
from tulle.local.forwarding import Target
from tulle.local.places import Places

_FIRST_PORT: Final = 15080


class Forward:
    """The proxy and its files."""

    def __init__(self, places: Places, envoy: Path) -> None:
        self._places = places
        self._envoy = envoy
        self.port = choose_host_ports({_FIRST_PORT: _FIRST_PORT}, "127.0.0.1")[_FIRST_PORT]
        self._process: asyncio.subprocess.Process | None = None
        self._written: dict[str, bytes] = {}

    def publish(self, targets: list[Target]) -> None:
        """Write what the proxy shall do; it notices by itself."""
        made = forwarding.files(str(self._places.edge), self.port, targets)
        for name, content in made.items():
            encoded = json.dumps(content).encode()
            if self._written.get(name) != encoded:
                self._written[name] = encoded
                temporary = self._places.edge / f".{name}.new"
                temporary.write_bytes(encoded)
                temporary.rename(self._places.edge / name)

    async def start(self) -> None:
        """Start it and keep it; `publish` must have been called."""
        while True:
            settings = forwarding.settings(str(self._places.edge), str(self._places.edge / "forward-admin.sock"))
            argv = envoys.command_line(self._envoy, settings)
            self._process = await tethered.spawn(argv, {}, self._places.run / "logs" / "forward.log")
            await self._process.wait()
            await asyncio.sleep(0.2)

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            await tethered.end(self._process, patience=1.0)
