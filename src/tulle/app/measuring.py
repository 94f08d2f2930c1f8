"""The mesh's one Prometheus endpoint on this machine: every sidecar's metrics and the control plane's, over HTTP on loopback.

Wiring: what is served is `telemetry.merged`'s. Loopback only; it names workloads and nothing secret.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from tulle.telemetry.merged import PORT, endpoint

HOST = "127.0.0.1"
_TRIES = 80
"""Ports after Istio's 15020 that are tried before any free one: each mesh of this machine has its own."""


class MetricsDoor:
    """Serves until closed. A restarted control plane comes back at the port it had."""

    def __init__(self, run: Path, own: Callable[[], bytes]) -> None:
        self._run = run
        self._own = own
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.url = ""
        """Empty while closed."""

    async def open(self) -> str:
        """Listen; the URL. Raises OSError."""
        noted = self._run / "metrics-port"
        listening = _listen(int(noted.read_text()) if noted.exists() else PORT)
        port = listening.getsockname()[1]
        noted.write_text(str(port))
        application = endpoint(self._run, lambda: self._own().decode())
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.ensure_future(self._server._serve([listening]))  # noqa: SLF001 - `serve` takes over signals
        self.url = f"http://{HOST}:{port}/metrics"
        return self.url

    async def close(self) -> None:
        """Stop, after the requests under way, for a second at most."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait((self._serving,), timeout=3)
        self.url = ""


def _listen(first: int) -> socket.socket:
    for port in (first, *range(PORT, PORT + _TRIES), 0):
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            found.bind((HOST, port))
            found.listen(64)
            return found
        found.close()
    raise OSError(f"no port of {HOST} is free")
