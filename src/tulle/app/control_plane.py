"""The control plane of one mesh, put together: sources to engine, engine to proxies, certificates, names, the admin API.

One event loop, one process. Everything here is order and wiring; each step is some room's.
"""

import asyncio
import gc
import logging
import os
from collections.abc import Coroutine, Sequence
from pathlib import Path
from time import monotonic, time

import msgspec

from tulle.app.settings import Settings
from tulle.app.world import Edited, QueuedSource, World
from tulle.compile.explain import origins_of
from tulle.compile.views import View
from tulle.engine import Database
from tulle.identity.office import Office, Trouble
from tulle.identity.store import RootStore, passphrase_from, utc
from tulle.model.origin import Origin
from tulle.model.problems import Problem
from tulle.serve import logs
from tulle.serve.ads import Doors
from tulle.serve.credentials import Credentials
from tulle.serve.fleet import Fleet
from tulle.serve.names import Named, names_held, table
from tulle.serve.pushing import Pushed, Pushing
from tulle.serve.seats import Seat
from tulle.serve.vault import Vault
from tulle.sources.watching import changes
from tulle.xds.names import TypeUrl

HOUSEKEEPING_S = 5.0
COLLECT_EVERY = 256
"""Edits between two collections of what nobody looks at any more."""


class ControlPlane:
    """Make it, `open` it, keep it, `close` it."""

    def __init__(self, config: Sequence[Path], settings: Settings, run: Path | None, state: Path) -> None:
        """`run` is the supervisor's directory; None for a control plane alone."""
        self.settings = settings
        self.db = Database()
        self.vault = Vault()
        self._run = run
        place = {"cluster": settings.cluster, "namespace": settings.namespace}
        runtime = QueuedSource([run / "runtime.json"], **place) if run and (run / "runtime.json").exists() else None
        self.world = World(self.db, self.vault, QueuedSource(config, **place), runtime)
        self.store = RootStore.open(
            state / "ca", settings.trust_domain, utc(time()), passphrase=passphrase_from(os.environ)
        )
        self.fleet = Fleet(self._origins)
        office = Office(self.store, settings.timing(), time())
        self.credentials = Credentials(office, self.vault, self.fleet, _on_trouble)
        self.pushing = Pushing(self.db, self.fleet, self.vault, self.credentials, _on_bug, cluster=settings.cluster)
        self.fleet.ears = (self.credentials,)
        self.doors = Doors(self.pushing)
        self.touched: dict[Path, tuple[int, float]] = {}
        """Version before the last change of a file, and when: `apply` may come after the watcher."""
        self.edits = 0
        self._names_root = self.db.root(names_held, settings.cluster)
        self._names: dict[str, Named] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Load, compile, serve the pods there are, and follow what changes. Raises OSError and what identity raises."""
        started = monotonic()
        self.world.load(self.settings.mesh())
        self.credentials.start(self.pushing)
        await self._after_edit(Edited(frozenset(), secrets_changed=False))
        gc.collect()
        gc.freeze()  # what was loaded lives as long as the process; the collector need not walk it again
        for source in (self.world.config, self.world.runtime):
            if source is not None:
                self._keep(self._follow(source))
        self._keep(self._housekeeping())
        logs.event(
            logging.INFO,
            "ready",
            objects=len(self.world.config.objects),
            pods=len(self.fleet.seats),
            milliseconds=round((monotonic() - started) * 1000),
        )

    async def close(self) -> None:
        """Let go of sockets, timers and the state directory. Proxies keep what they have."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.credentials.close()
        await self.doors.close()
        self.store.close()

    # --- edits -------------------------------------------------------------------------------------------------------

    async def reload(self, paths: Sequence[Path]) -> Pushed:
        """Read these files now and push what changed."""
        for source in (self.world.config, self.world.runtime):
            if source is not None:
                await asyncio.to_thread(source.reload, paths)
        return await self.take()

    async def take(self) -> Pushed:
        """Apply what was read and push it."""
        edited = self.world.take()
        return await self._after_edit(edited)

    async def _after_edit(self, edited: Edited) -> Pushed:
        pushed = self.pushing.after_edit(secrets_changed=edited.secrets_changed)
        for path in edited.paths:
            self.touched[path] = (pushed.before, monotonic())
        self._write_names()
        await self._seat(pushed.joined, pushed.parted)
        self.edits += 1
        if self.edits % COLLECT_EVERY == 0:
            self.db.collect()
        logs.event(logging.DEBUG, "pushed", version=pushed.version, proxies=len(pushed.affected))
        return pushed

    async def _seat(self, joined: tuple[Seat, ...], parted: tuple[Seat, ...]) -> None:
        for seat in parted:
            self.doors.close_pod(seat.uid)
        for seat in joined:
            if self._run is None:
                continue
            try:
                await self.doors.open_pod(seat.uid, self._run / "xds" / seat.uid / "xds.sock")
            except OSError as error:
                logs.event(logging.ERROR, "socket failed", proxy=seat.id, error=str(error))

    async def _follow(self, source: QueuedSource) -> None:
        async for _ in changes(source):
            await self.take()

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self.fleet.tick()
            if self.edits % COLLECT_EVERY:
                self.db.collect()

    def _keep(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logs.LOGGER.error("a task failed", exc_info=error)

    def _write_names(self) -> None:
        if self._run is None or not (self._names is None or self._names_root.is_dirty):
            return
        names = dict(self._names_root.value())
        if names != self._names:
            self._names = names
            _write(self._run / "names.json", msgspec.json.encode(table(names)))

    # --- questions ---------------------------------------------------------------------------------------------------

    def _origins(self, view: View, type_url: str, name: str) -> tuple[Origin, ...]:
        try:
            return origins_of(self.db, view, TypeUrl(type_url), name)
        except Exception:  # noqa: BLE001 - a refusal is told even where its origin cannot be found
            logs.LOGGER.warning("no origin found", exc_info=True)
            return ()


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)


def _on_trouble(trouble: Trouble) -> None:
    logs.event(logging.ERROR, "certificates", code=trouble.error.code, error=trouble.error.problem().text)


def _on_bug(found: Problem, error: Exception) -> None:
    logs.LOGGER.error("%s %s", found.code, found.text, exc_info=error)
