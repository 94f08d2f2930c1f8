"""One pod of the fabric: carries out what `supervision` decides, and tells it what happened.

Every action is a task of its own and ends in an event; nothing here decides. Which pods exist is `supervisor`'s.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tulle.compile.envoy import bootstrap
from tulle.compile.envoy.telling import environment
from tulle.dialects.kubernetes.injection import Role
from tulle.local import containers, envoys, lives, probing, supervision, volumes
from tulle.local.containers import Launch, Subject, World
from tulle.local.control import ControlPlane
from tulle.local.desired import Workload, capture_of
from tulle.local.fabric.client import Bind, Command, Fabric, Finished, Process
from tulle.local.lives import (
    SIDECAR,
    Action,
    CloseListeners,
    Drain,
    Drained,
    Event,
    Exited,
    Leave,
    Live,
    MakeNetwork,
    Networked,
    PreStop,
    PreStopped,
    Probed,
    ProbeKind,
    Refused,
    Settle,
    Settled,
    Signal,
    Start,
    Started,
    Tick,
    Unwatch,
    Watch,
)
from tulle.local.logs import open_log
from tulle.local.manifests import Container, Probe
from tulle.local.places import Places
from tulle.local.plans import plan_of, probe_of
from tulle.model.origin import Origin
from tulle.model.problems import Problem

_IDLE_PATIENCE: Final = 1.0
_HOOK_LIMIT: Final = 120.0


@dataclass(frozen=True)
class Surroundings:
    """What pods of a mesh share."""

    places: Places
    fabric: Fabric
    control: ControlPlane
    envoy: Path
    world: Callable[[Workload], World]
    binds: tuple[Bind, ...]
    hidden: tuple[str, ...]
    cluster: str
    trust_domain: str
    gate: asyncio.Semaphore
    """So many Envoys start at the same time: more would keep the control plane, which all wait for, from the cores."""
    mark: Callable[[str], None]
    """Told once what happened first of its kind (`--timings`)."""
    extra_env: Callable[[str], Mapping[str, str]]
    """Address of a pod -> variables its containers get unless their manifests set them."""
    domain: str = "cluster.local"


@dataclass
class _Sidecar:
    generation: int = 0
    admin: Path = Path()
    process: Process | None = None


@dataclass
class Clocks:
    """When things happened; Unix time."""

    made: float = field(default_factory=time.time)
    ready: float = 0.0
    deleted: float = 0.0


class RunningPod:
    """A pod with its processes."""

    def __init__(
        self,
        surroundings: Surroundings,
        workload: Workload,
        index: int,
        *,
        uid: str,
        ip: str,
        changed: Callable[[RunningPod], None],
    ) -> None:
        self.workload = workload
        self.index = index
        self.uid = uid
        self.ip = ip
        self.name = workload.pod_name(index)
        self.labels = workload.labels_of(self.name, index)
        self.plan = plan_of(workload)
        self.state = lives.Pod()
        self.clocks = Clocks()
        self.problems: dict[str, Problem] = {}
        self.is_live = False
        """Ready, and every proxy knows it; kept by the supervisor."""
        self._around = surroundings
        self._changed = changed
        self._processes: dict[str, Process] = {}
        self._launches: dict[str, Launch] = {}
        self._sidecar = _Sidecar()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: dict[str, list[asyncio.Task[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_replacing = False

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.workload.key.namespace

    @property
    def is_ready(self) -> bool:
        """Whether it may get traffic."""
        return supervision.is_ready(self.plan, self.state)

    @property
    def subject(self) -> Subject:
        """What its containers may know of it."""
        return Subject(
            name=self.name,
            namespace=self.namespace,
            uid=self.uid,
            ip=self.ip,
            host_ip=self._around.fabric.network.gateway,
            service_account=self.workload.service_account,
            labels=self.labels,
            annotations=dict(self.workload.annotations),
            hostname=self.workload.spec.hostname or self.name,
            volumes=self.workload.spec.volumes or (),
            origin=Origin(self.workload.key),
        )

    @property
    def admin_socket(self) -> Path:
        """The admin socket of its sidecar: a link to that of the one that serves."""
        return self._around.places.envoy(self.uid) / "admin.sock"

    def process_ids(self) -> dict[str, int]:
        """Container -> pid on this machine."""
        return {name: process.host_pid for name, process in self._processes.items()}

    def take(self, event: Event) -> None:
        """Let something have happened."""
        before = (self.state.stage, self.is_ready, self.state.is_terminating)
        self.state, actions = supervision.step(self.plan, self.state, event, time.monotonic())
        if self.is_ready and not self.clocks.ready:
            self.clocks.ready = time.time()
            self._around.mark("first pod ready")
        if self.state.is_terminating and not self.clocks.deleted:
            self.clocks.deleted = time.time()
        self._set_timer()
        for action in actions:
            self._do(action)
        if before != (self.state.stage, self.is_ready, self.state.is_terminating):
            self._changed(self)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = supervision.wake_at(self.state)
        if at is not None:
            wait = max(at - time.monotonic(), 0.001)
            self._timer = asyncio.get_running_loop().call_later(wait, self.take, Tick())

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": f"pod {self.name}", "exception": error})

    def _do(self, action: Action) -> None:
        match action:
            case MakeNetwork():
                self._task(self._make_network())
            case Start(name):
                self._task(self._start_sidecar() if name == SIDECAR else self._start(name))
            case Watch(name, kinds):
                self._watch(name, kinds)
            case Unwatch(name):
                for watcher in self._watchers.pop(name, ()):
                    watcher.cancel()
            case Signal(name, number):
                self._task(self._signal(name, number))
            case Settle():
                self._task(self._settle())
            case PreStop(name):
                self._task(self._pre_stop(name))
            case CloseListeners():
                self._task(self._close_listeners())
            case Drain():
                self._task(self._drain())
            case Leave():
                self._task(self._leave())

    async def _make_network(self) -> None:
        places = self._around.places
        for directory in (places.xds(self.uid), places.envoy(self.uid), places.pod(self.uid)):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            await self._around.fabric.pod_add(self.uid, self.ip, capture_of(self.workload))
        except OSError as error:
            self.take(Refused("", str(error)))
            return
        self.take(Networked())

    async def _start_sidecar(self) -> None:
        sidecar = _Sidecar(self._sidecar.generation + 1)
        try:
            async with self._around.gate:
                await self._spawn_sidecar(sidecar)
                await envoys.awake(sidecar.admin)
            self._around.mark("first sidecar awake")
        except OSError as error:
            self.take(Refused(SIDECAR, str(error)))
            return
        self._sidecar = sidecar
        self._link_admin()
        assert sidecar.process is not None
        self._processes[SIDECAR] = sidecar.process
        self.take(Started(SIDECAR))
        waiting = self._task(self._wait_live(sidecar))
        await self._wait_exit(SIDECAR, sidecar.process)
        waiting.cancel()

    async def _wait_live(self, sidecar: _Sidecar) -> None:
        await envoys.live(sidecar.admin, self._around.places.xds(self.uid) / Path(bootstrap.XDS_SOCKET).name)
        self._around.mark("first sidecar live")
        self.take(Live())

    async def _spawn_sidecar(self, sidecar: _Sidecar) -> None:
        around, workload = self._around, self.workload
        directory = around.places.envoy(self.uid)
        name = f"admin-{sidecar.generation}.sock"
        sidecar.admin = directory / name
        owner = workload.key.name
        account = workload.service_account
        node = bootstrap.Node(
            ip=self.ip,
            pod=self.name,
            namespace=self.namespace,
            workload=owner,
            service_account=account,
            labels=tuple(sorted(self.labels.items())),
            cluster=around.cluster,
            mesh_id=around.trust_domain,
            uid=self.uid,
            is_gateway=workload.role is Role.GATEWAY,
        )
        network = around.fabric.network
        resolver = (network.gateway, network.world_dns_port)
        settings = bootstrap.sidecar(node, f"{bootstrap.ADMIN_DIRECTORY}/{name}", resolver)
        principal = f"spiffe://{around.trust_domain}/ns/{self.namespace}/sa/{account}"
        env = environment(self.labels, owner, self.namespace, around.cluster, principal)
        binds = (
            Bind(str(around.envoy.parent)),
            Bind(str(around.places.xds(self.uid)), str(Path(bootstrap.XDS_SOCKET).parent)),
            Bind(str(directory), bootstrap.ADMIN_DIRECTORY, writable=True),
        )
        argv = envoys.command_line(around.envoy, settings)
        command = Command(argv, self.uid, kind="sidecar", env=env, hostname=self.name, binds=binds)
        logs = around.places.logs(self.namespace, self.name)
        out, err = open_log(logs / "proxy.log"), open_log(logs / "proxy-err.log")
        try:
            sidecar.process = await around.fabric.spawn(command, out, err)
        finally:
            os.close(out)
            os.close(err)

    def _link_admin(self) -> None:
        link = self.admin_socket
        temporary = link.with_name(".admin.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self._sidecar.admin.name)
        temporary.rename(link)

    async def _start(self, name: str) -> None:
        container = self._container(name)
        world = self._around.world(self.workload)
        world = replace(world, base_env={**world.base_env, **self._around.extra_env(self.ip)})
        made = containers.launch(container, self.subject, world)
        if isinstance(made, Problem):
            self.problems[name] = made
            self.take(Refused(name, "CreateContainerError"))
            return
        self.problems.pop(name, None)
        try:
            process = await self._spawn(name, made)
        except (OSError, volumes.MissingVolumeError) as error:
            self._say(name, f"tulle: {error}\n")
            self.take(Refused(name, str(error)))
            return
        self._launches[name] = made
        self._processes[name] = process
        self.take(Started(name))
        await self._wait_exit(name, process)

    async def _spawn(self, name: str, made: Launch) -> Process:
        around = self._around
        directory, claims = around.places.pod(self.uid), around.places.state / "volumes"
        binds = (
            *around.binds,
            *volumes.network_files(directory, self.subject, around.domain),
            *volumes.binds(made.mounts, self.subject, around.world(self.workload), directory, claims),
        )
        command = Command(
            made.argv,
            self.uid,
            env=made.env,
            cwd=made.directory,
            uid=made.uid,
            gid=made.gid,
            hostname=self.subject.hostname,
            binds=binds,
            hidden=around.hidden,
        )
        log = open_log(self.log_path(name))
        try:
            return await around.fabric.spawn(command, log, log)
        finally:
            os.close(log)

    def log_path(self, name: str) -> Path:
        """Where a container's output goes."""
        logs = self._around.places.logs(self.namespace, self.name)
        if name == SIDECAR:
            return logs / "proxy.log"
        main = self.workload.spec.containers
        return logs / ("app.log" if main and main[0].name == name else f"app-{name}.log")

    def _say(self, name: str, words: str) -> None:
        log = open_log(self.log_path(name))
        os.write(log, words.encode())
        os.close(log)

    async def _wait_exit(self, name: str, process: Process) -> None:
        exited = await process.wait()
        if self._processes.get(name) is process:
            del self._processes[name]
        if name == SIDECAR and self._sidecar.process is not process:
            return
        self.take(Exited(name, exited.code if exited.code is not None else -(exited.signal or 0)))

    async def run(self, name: str, argv: tuple[str, ...], patience: float) -> Finished | None:
        """Run a command in a container's sandbox, as that container; None when it does not run."""
        process, made = self._processes.get(name), self._launches.get(name)
        if process is None or made is None:
            return None
        command = Command(argv, self.uid, env=made.env, cwd=made.directory)
        return await self._around.fabric.run_in_pod(command, patience, process)

    def _container(self, name: str) -> Container:
        spec = self.workload.spec
        return next(one for one in (*(spec.init_containers or ()), *spec.containers) if one.name == name)

    def _watch(self, name: str, kinds: tuple[ProbeKind, ...]) -> None:
        process = self._processes.get(name)
        if process is None:
            return
        container, made = self._container(name), self._launches[name]
        patient = probing.Patient(self._around.fabric, self.uid, self.ip, container, process, made.env, made.directory)
        for kind in kinds:
            probe = probe_of(container, kind)
            if probe is not None:
                self._watchers.setdefault(name, []).append(self._task(self._probe(patient, probe, kind)))

    async def _probe(self, patient: probing.Patient, probe: Probe, kind: ProbeKind) -> None:
        def tell(finding: probing.Finding) -> None:
            self.take(Probed(patient.container.name, kind, finding.is_well, finding.words))

        await probing.probe_for_ever(patient, probe, tell, eagerly=kind != "liveness")

    async def _signal(self, name: str, number: int) -> None:
        process = self._processes.get(name)
        if process is not None:
            await self._around.fabric.signal(process, number)

    async def _settle(self) -> None:
        # The change was published before this task ran, and settling reads what was published.
        await self._around.control.settle()
        self.take(Settled())

    async def _pre_stop(self, name: str) -> None:
        container, process = self._container(name), self._processes.get(name)
        hook = container.lifecycle.pre_stop if container.lifecycle else None
        if hook is not None and process is not None:
            made = self._launches[name]
            patient = probing.Patient(
                self._around.fabric, self.uid, self.ip, container, process, made.env, made.directory
            )
            if hook.sleep is not None:
                await asyncio.sleep(hook.sleep.seconds)
            elif hook.exec is not None:
                await probing.run(patient, hook.exec, _HOOK_LIMIT)
            elif hook.http_get is not None:
                await probing.probe_once(patient, Probe(http_get=hook.http_get, timeout_seconds=int(_HOOK_LIMIT)))
        self.take(PreStopped(name))

    async def _close_listeners(self) -> None:
        is_gateway = self.workload.role is Role.GATEWAY
        try:
            await envoys.drain_listeners(self._sidecar.admin, keeps_listening=True, only_inbound=not is_gateway)
        except (OSError, EOFError):
            return  # it is gone already, and its listeners with it

    async def _drain(self) -> None:
        is_gateway = self.workload.role is Role.GATEWAY
        await envoys.idle(self._sidecar.admin, self.plan.grace if is_gateway else _IDLE_PATIENCE)
        self.take(Drained())

    async def _leave(self) -> None:
        around = self._around
        try:
            await around.fabric.pod_delete(self.uid)
        except OSError as error:
            if "no pod" not in str(error):
                raise
        for directory in (around.places.xds(self.uid), around.places.envoy(self.uid), around.places.pod(self.uid)):
            shutil.rmtree(directory, ignore_errors=True)
        self._changed(self)

    async def replace_sidecar(self, patience: float = 60.0) -> bool:
        """Put a new sidecar beside the old one, let the old one finish, end it: no connection is cut.

        The long streams of the old one have `patience` seconds to end. False when there is no sidecar to replace.
        Source: docs/facts/envoy.md §8.
        """
        old = self._sidecar
        if old.process is None or self._is_replacing or not self.state.proxy.is_ready:
            return False
        self._is_replacing = True
        fresh = _Sidecar(old.generation + 1)
        try:
            await self._spawn_sidecar(fresh)
            await asyncio.wait_for(envoys.live(fresh.admin), 30.0)
        except (OSError, TimeoutError):
            if fresh.process is not None:
                await self._around.fabric.signal(fresh.process, signal.SIGKILL)
            raise
        finally:
            self._is_replacing = False
        assert fresh.process is not None
        self._sidecar = fresh
        self._processes[SIDECAR] = fresh.process
        self._link_admin()
        self._task(self._wait_exit(SIDECAR, fresh.process))
        await envoys.drain_listeners(old.admin, keeps_listening=False)
        self._task(self._end_old(old, patience))
        return True

    async def _end_old(self, old: _Sidecar, patience: float) -> None:
        await asyncio.sleep(envoys.DRAIN_SECONDS)
        await envoys.idle(old.admin, patience)
        if old.process is not None:
            await self._around.fabric.signal(old.process, signal.SIGTERM)

    def stop(self) -> None:
        """Forget everything; the fabric is going down."""
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
