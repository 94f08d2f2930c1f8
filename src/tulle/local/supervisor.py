"""The supervisor of one mesh: kubelet and workload controllers of one machine.

Reads the workload kinds of the manifests, makes pods and lets them go, publishes what runs, keeps the edge and the
names. It holds no policy and no route: those are the control plane's. What to do is decided by the pure modules beside
it (`desired`, `rollout`, `supervision`, `published`); here is the clock that turns them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from tulle.dialects.kubernetes.injection import Role
from tulle.dialects.kubernetes.secret import SecretMaterial
from tulle.local import desired, envoys, machine, manifests, published, rollout, supervision
from tulle.local.books import config_directory, load_books
from tulle.local.containers import World
from tulle.local.control import ControlPlane
from tulle.local.desired import Workload
from tulle.local.dns import NameServer
from tulle.local.edge import Edge, choose_host_ports
from tulle.local.fabric.client import Fabric, FabricError
from tulle.local.fabric.wire import Vip
from tulle.local.lives import Begin, Delete, Stage
from tulle.local.logs import LogKeeper
from tulle.local.places import Places, run_root, state_root
from tulle.local.pod import RunningPod, Surroundings
from tulle.local.refusals import RefusedError, refusal
from tulle.local.settings import images_of
from tulle.model.keys import ObjectKey
from tulle.model.objects import Object
from tulle.model.origin import Origin
from tulle.model.problems import Problem
from tulle.sources.files import SUFFIXES, Change, FileSource
from tulle.sources.watching import changes

_GATHER: Final = 0.01
"""Seconds in which changes of pods are told together."""
_VIP_PAUSE: Final = 0.05
_LOOK_PAUSE: Final = 1.0


@dataclass(frozen=True)
class Wishes:
    """What `tulle up` was asked for."""

    paths: tuple[Path, ...]
    host_ports: Mapping[int, int] = field(default_factory=dict)
    """Service port -> port of the machine."""
    addresses: tuple[str, ...] = ("127.0.0.1",)
    cluster: str = "Kubernetes"
    trust_domain: str = "cluster.local"
    tulle_yaml: Path | None = None


class Supervisor:
    """A running mesh."""

    isolation = "namespaces"
    """What `ps` and `check` say of it."""

    def __init__(
        self,
        places: Places,
        wishes: Wishes,
        control: ControlPlane,
        fabric: Fabric,
        mark: Callable[[str], None],
    ) -> None:
        self.places = places
        self.wishes = wishes
        self.control = control
        self.fabric = fabric
        self.pods: dict[str, RunningPod] = {}
        self.host_ports: dict[int, int] = {}
        self.is_stopping = asyncio.Event()
        self.logs = LogKeeper(places.run / "logs")
        self._mark = mark
        self._source = FileSource(wishes.paths, cluster=wishes.cluster, reader=manifests.read)
        self._objects: Mapping[ObjectKey, Object] = {}
        self._secrets: dict[ObjectKey, SecretMaterial] = {}
        self._desired: dict[ObjectKey, Workload] = {}
        self._problems: tuple[Problem, ...] = ()
        self._generations: dict[ObjectKey, int] = {}
        self._images: Mapping[str, tuple[str, ...]] = {}
        self._books = load_books(places, fabric.network)
        self._edge: Edge | None = None
        self._is_open = False
        self._dns: list[NameServer] = []
        self._around: Surroundings | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_refreshing = False
        self._is_confirming = False
        self._vips: dict[str, tuple[Vip, ...]] = {}
        self._written = b""

    async def start(self, fabric_started: Awaitable[None]) -> None:
        """Bring the mesh up; returns when every pod has been begun, not when it is ready."""
        envoy = envoys.binary()
        if self.wishes.tulle_yaml is not None:
            self._images = images_of(self.wishes.tulle_yaml)
        self._take(self._source.reload())
        self._mark("manifests read")
        self._around = self._surroundings(envoy)
        self._desire()
        # Pods are published before the fabric is there: the control plane compiles meanwhile.
        self._reconcile()
        self._publish()
        try:
            await fabric_started
        except FabricError as error:
            raise RefusedError(refusal("TUL0913", reason=error.strerror or str(error))) from error
        self._mark("fabric ready")
        # What requests from outside need comes first: the edge, then gateways, then who can be called.
        self._background(self.open_edge(envoy, self._around.gate))
        for uid in published.by_urgency(self.services(), self.seen()):
            self.pods[uid].take(Begin())
        await self.start_dns()
        self._is_open = True
        self._describe()
        self._mark("pods begun")
        for work in (self._watch(), self._keep_vips(), self._look()):
            self._background(work)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._background_ended)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        """Half a supervisor is worse than none: a part that failed ends the mesh, and says why."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.is_stopping.is_set():
            asyncio.get_running_loop().call_exception_handler({"message": "the supervisor failed", "exception": error})
            self.is_stopping.set()

    def _surroundings(self, envoy: Path) -> Surroundings:
        private = (run_root(), state_root())
        folders = [path if path.is_dir() else path.parent for path in self.wishes.paths]
        # Any manifest may come to hold a Secret, and one may come any time: none is shown, nor what editors leave of it.
        manifests_there = [str(path) for path in self.wishes.paths if not path.is_dir()]
        for path in self.wishes.paths:
            manifests_there += [f"{path}/*{end}*" for end in sorted(SUFFIXES) if path.is_dir()]
        return Surroundings(
            places=self.places,
            fabric=self.fabric,
            control=self.control,
            envoy=envoy,
            world=self._world,
            binds=machine.workload_binds(folders, private),
            hidden=(*(str(path) for path in private), *manifests_there),
            cluster=self.wishes.cluster,
            trust_domain=self.wishes.trust_domain,
            mark=self._mark,
            extra_env=self.extra_environment,
            gate=asyncio.Semaphore(max(1, (os.cpu_count() or 1) - 1)),
        )

    def _world(self, workload: Workload) -> World:
        place = self._source.locate(Origin(workload.key))
        folder = Path(place.file).parent if place is not None else Path("/")
        return World(
            config_map=self._config_map,
            secret=lambda namespace, name: self._secrets.get(self._key("Secret", namespace, name)),
            find_program=machine.find_program,
            images=self._images,
            directory=str(folder.resolve()),
            base_env=machine.base_environment(),
        )

    def _config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        found = self._objects.get(self._key("ConfigMap", namespace, name))
        return None if found is None else found.spec.data

    def _key(self, kind: str, namespace: str, name: str) -> ObjectKey:
        return ObjectKey(self.wishes.cluster, "", kind, namespace, name)

    def _take(self, change: Change) -> None:
        for key in change.deletes:
            self._secrets.pop(key, None)
        self._secrets.update(change.private)
        self._objects = self._source.objects

    def _desire(self) -> None:
        found, self._problems = desired.workloads(self._objects)
        self._desired = {}
        for workload in found:
            generation = self._generations.get(workload.key, 0)
            fresh = desired.letters(f"{workload.template_hash}/{generation}", 9) if generation else ""
            renewed = msgspec.structs.replace(workload, template_hash=fresh or workload.template_hash)
            if (runnable := self.runnable(renewed)) is not None:
                self._desired[workload.key] = runnable

    def runnable(self, workload: Workload) -> Workload | None:
        """A workload as it can be run here; None if it cannot."""
        return workload

    def _reconcile(self) -> None:
        """Make and end pods until the rollouts are content; new pods begin when the fabric is there."""
        for order in rollout.orders(self._desired, [self._present(pod) for pod in self.pods.values()]):
            if isinstance(order, rollout.End):
                self.pods[order.uid].take(Delete())
            else:
                self._make(order.workload, order.index)

    def _present(self, pod: RunningPod) -> rollout.Present:
        return rollout.Present(
            uid=pod.uid,
            name=pod.name,
            owner=pod.workload.key,
            index=pod.index,
            template_hash=pod.workload.template_hash,
            is_ready=pod.is_ready and pod.is_live,
            is_terminating=pod.state.is_terminating,
            is_over=pod.state.stage in (Stage.ENDED, Stage.FINISHING),
        )

    def _make(self, workload: Workload, index: int) -> None:
        name = workload.pod_name(index)
        address = self._books.pods.address(f"{workload.key.namespace}/{name}")
        uid = os.urandom(6).hex()
        assert self._around is not None
        for directory in (self.places.xds(uid), self.places.envoy(uid)):
            directory.mkdir(mode=0o700)
        pod = RunningPod(self._around, workload, index, uid=uid, ip=address, changed=self._changed)
        self.pods[uid] = pod
        if self._is_open:
            # The control plane makes the sidecar's socket while the sidecar starts.
            self._publish()
            pod.take(Begin())

    def _changed(self, pod: RunningPod) -> None:
        if pod.state.stage is Stage.GONE and pod.uid in self.pods:
            del self.pods[pod.uid]
            self._vips.pop(pod.uid, None)
            self.logs.forget(self.places.logs(pod.namespace, pod.name))
        if not pod.is_ready:
            pod.is_live = False
        if pod.state.is_terminating:
            # Settling, which comes next, must find it.
            self._publish()
        if not self._is_refreshing:
            self._is_refreshing = True
            asyncio.get_running_loop().call_later(_GATHER, self._refresh)

    def _refresh(self) -> None:
        self._is_refreshing = False
        self._publish()
        if self.is_stopping.is_set() or not self._is_open:
            return
        self.publish_edge()
        self._confirm()
        self._reconcile()

    def _confirm(self) -> None:
        """Ask the control plane, once for all of them, that every proxy knows the pods that became ready."""
        if self._is_confirming or all(pod.is_live or not pod.is_ready for pod in self.pods.values()):
            return
        self._is_confirming = True
        self._background(self._confirmed())

    async def _confirmed(self) -> None:
        await asyncio.sleep(_VIP_PAUSE)
        asked = [pod for pod in self.pods.values() if pod.is_ready]
        await self.control.settle()
        for pod in asked:
            pod.is_live = pod.is_ready
        self._is_confirming = False
        self._refresh()

    def seen(self) -> list[published.Seen]:
        """The pods as others see them."""
        return [_seen(pod) for pod in self.pods.values()]

    def services(self) -> list[Object]:
        """Every Service."""
        return [found for key, found in self._objects.items() if key.kind == "Service"]

    def _publish(self) -> None:
        """Write `runtime.json` if it says something new."""
        content = published.runtime(self.seen(), self.services(), self._books.services)
        if content == self._written:
            return
        self._written = content
        _write(self.places.runtime, content)
        _write(self.places.state / "addresses.json", msgspec.json.encode(self._books))

    def _gateway_ports(self) -> dict[int, tuple[tuple[str, int], ...]]:
        return published.gateway_ports(self.services(), self.seen())

    async def open_edge(self, envoy: Path, gate: asyncio.Semaphore) -> None:
        """Start what joins the mesh and the machine."""
        self._edge = Edge(self.places, envoy, self.fabric)
        self.publish_edge()
        await self._edge.start(gate)

    def publish_edge(self) -> None:
        """Tell the edge what there is now."""
        if self._edge is not None:
            self._choose_ports()
            self._edge.publish(self._published_ports())

    async def close_edge(self) -> None:
        """End it."""
        if self._edge is not None:
            await self._edge.stop()

    def extra_environment(self, ip: str) -> Mapping[str, str]:
        """What containers of a pod are told beside what their manifests say."""
        del ip
        return {}

    def links(self) -> list[str]:
        """Where a user can go from here: one address per gateway port."""
        host = "localhost" if self.wishes.addresses[0] == "127.0.0.1" else self.wishes.addresses[0]
        scheme = {443: "https", 8443: "https"}
        return [f"{scheme.get(port, 'http')}://{host}:{number}" for port, number in sorted(self.host_ports.items())]

    def _choose_ports(self) -> None:
        wanted = {
            port: published.preferred_host_port(port, self.wishes.host_ports)
            for port in self._gateway_ports()
            if port not in self.host_ports
        }
        if wanted:
            taken = frozenset(self.host_ports.values())
            self.host_ports |= choose_host_ports(wanted, self.wishes.addresses[0], taken)
            self._describe()

    def _published_ports(self) -> tuple[Any, ...]:
        return published.published(self._gateway_ports(), self.host_ports, self.wishes.addresses)

    async def start_dns(self) -> None:
        """Answer names inside the mesh."""
        network = self.fabric.network
        for port, of_world in ((network.dns_port, False), (network.world_dns_port, True)):
            server = NameServer(self.places.names, of_world=of_world)
            datagrams = await self.fabric.open_socket("udp-bind", network.gateway, port)
            connections = await self.fabric.open_socket("tcp-listen", network.gateway, port)
            await server.start(datagrams, connections)
            self._dns.append(server)

    async def _watch(self) -> None:
        async for change in changes(self._source):
            self._take(change)
            self._desire()
            self._publish()
            self._refresh()

    async def _keep_vips(self) -> None:
        """Keep the service addresses of pods that resolve them without a sidecar, the needier ones first."""
        while True:
            await asyncio.sleep(_VIP_PAUSE)
            wanted = published.vips(self.services(), self.seen(), self._books.services)
            stale = [pod for pod in self.pods.values() if self._needs_vips(pod, wanted)]
            if not stale:
                continue
            stale.sort(key=lambda pod: pod.workload.role is not Role.NONE)
            pod = stale[0]
            with contextlib.suppress(FabricError):  # a pod that went away meanwhile
                await self.fabric.vip_set(pod.uid, wanted)
            self._vips[pod.uid] = wanted

    def _needs_vips(self, pod: RunningPod, wanted: tuple[Vip, ...]) -> bool:
        is_there = pod.state.stage not in (Stage.NEW, Stage.PENDING, Stage.ENDED, Stage.GONE)
        return is_there and self._vips.get(pod.uid) != wanted

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_PAUSE)
            self.logs.look()

    def _describe(self) -> None:
        """Write `mesh.json`."""
        content = {
            "apiVersion": "tulle.dev/v1",
            "kind": "LocalMesh",
            "name": self.places.name,
            "pid": os.getpid(),
            "isolation": self.isolation,
            "cluster": self.wishes.cluster,
            "trustDomain": self.wishes.trust_domain,
            "manifests": [str(path) for path in self.wishes.paths],
            "configDirectory": str(config_directory(self.places, self.wishes.paths)),
            "ports": [{"port": port, "hostPort": host} for port, host in sorted(self.host_ports.items())],
            "addresses": list(self.wishes.addresses),
            "podCidr": self.fabric.network.pods,
            "serviceCidr": self.fabric.network.services,
            "slot": self._books.slot,
        }
        _write(self.places.description, json.dumps(content, indent=1).encode())

    def restart(self, key: ObjectKey) -> None:
        """Replace the pods of a workload, as after a change of its template."""
        self._generations[key] = self._generations.get(key, 0) + 1
        self._desire()
        self._refresh()

    @property
    def desired(self) -> Mapping[ObjectKey, Workload]:
        """What should run."""
        return self._desired

    def problems(self) -> list[dict[str, Any]]:
        """Everything that keeps pods from running, as JSON."""
        broken = [problem for pod in self.pods.values() for problem in pod.problems.values()]
        found = [(problem, self._source.locate(problem.origin)) for problem in (*self._problems, *broken)]
        found += [(reported.problem, reported.place) for reported in self._source.problems]
        unique = dict.fromkeys(found)
        return [
            {
                "code": problem.code,
                "severity": problem.severity.value,
                "text": problem.text,
                "advice": problem.advice,
                "kind": problem.origin.object.kind,
                "namespace": problem.origin.object.namespace,
                "name": problem.origin.object.name,
                "path": problem.origin.path,
                "file": place.file if place else "",
                "line": place.line if place else 0,
            }
            for problem, place in unique
        ]

    async def stop(self) -> None:
        """End everything; RUN is empty afterwards."""
        self.is_stopping.set()
        for task in tuple(self._tasks):
            task.cancel()
        for pod in self.pods.values():
            pod.stop()
        for server in self._dns:
            await server.stop()
        await self.fabric.stop()
        await self.close_edge()
        await self.control.stop()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.rename(path)


def _seen(pod: RunningPod) -> published.Seen:
    stage = pod.state.stage
    phase = "Running"
    if stage in (Stage.NEW, Stage.PENDING, Stage.INITIALIZING):
        phase = "Pending"
    elif stage is Stage.ENDED:
        phase = "Failed" if pod.state.is_failed else "Succeeded"
    return published.Seen(
        name=pod.name,
        uid=pod.uid,
        ip=pod.ip,
        workload=pod.workload,
        labels=pod.labels,
        phase=phase,
        is_ready=supervision.is_ready(pod.plan, pod.state),
        created=stamp(pod.clocks.made),
        deleted=stamp(pod.clocks.deleted) if pod.state.is_terminating else "",
    )


def stamp(seconds: float) -> str:
    """Unix time as Kubernetes writes it (RFC 3339, whole seconds)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
