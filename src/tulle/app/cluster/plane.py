"""One replica of the control plane in a cluster: objects from the API, roots in a Secret, proxies by their tokens; then the duties.

Wiring and order. Names and reasons: docs/decisions/0013. What a duty does is its module's; when it is done is said here.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic, time

from tulle.app.cluster.admission import injector, validator
from tulle.app.cluster.duties import OURS, PlaceRights, TrustRoots, WebhookTrust
from tulle.app.cluster.gateways import GatewayDuty
from tulle.app.cluster.learned import SharedMemory
from tulle.app.cluster.replicas import Replicas
from tulle.app.cluster.roots import CaSecret
from tulle.app.cluster.settings import Replica
from tulle.app.cluster.status import Statuses
from tulle.app.control_plane import ControlPlane
from tulle.app.settings import Settings
from tulle.dialects.gateway_api.deployments import DeploymentSettings
from tulle.dialects.gateway_api.listeners import secret_namespaces
from tulle.dialects.gateway_api.named import named_config_maps
from tulle.dialects.inputs import by_kind, objects
from tulle.dialects.kubernetes import workload
from tulle.identity.errors import IdentityError
from tulle.identity.store import RootStore, utc
from tulle.installing.naming import CONFIG_MAPS_RIGHT, CONTROL_PLANE, LEADER, SECRETS_RIGHT
from tulle.kube.access import Access
from tulle.kube.errors import KubeError
from tulle.kube.leases import Leadership
from tulle.kube.reviewing import Proven, Reviewer, TokenRefused
from tulle.kube.webhook import KeyPair, Webhook
from tulle.kube.writing import Ref, Writer
from tulle.serve import admin, logs
from tulle.serve.ads import TokenRefusedError
from tulle.serve.seats import Seat
from tulle.sources.cluster_namespaces import selected_by
from tulle.sources.kubernetes import KubernetesSource

XDS_PORT = 15012
WEBHOOK_PORT = 15017
METRICS_PORT = 15010
ADMIN_PORT = 15014
PROBE_PORT = 8080
AUDIENCE = "tulle"
_ASK_S = 1.0
"""How often the API is asked what nobody tells us: the CA's Secret, other replicas, addresses of gateways."""
_TURN_S = 0.1
"""Least time between two turns of the duties, however often something changes."""
_REST, _LONGEST_REST_S = 20.0, 5.0
"""Times as long as a turn took."""
_WAIT_FOR_API_S = 2.0


class ClusterPlane:
    """One replica. `run` it; `close` it."""

    def __init__(self, access: Access, replica: Replica, settings: Settings) -> None:
        names = replica.names
        self._access = access
        self._replica = replica
        self._settings = settings
        always = frozenset((settings.root_namespace, names.namespace))
        self._source = KubernetesSource(
            access, cluster=settings.cluster, is_selected=selected_by(settings.discovery_selectors, always)
        )
        self._ca = CaSecret(access, names.namespace, replica.state_dir / "ca")
        self._leadership = Leadership(
            access, names.namespace, names.revised(LEADER), f"{replica.name}-{os.getpid()}", labels=dict(OURS)
        )
        self._writer = Writer(access, lambda: self._leadership.is_leader, _on_refused)
        self._trust_roots = TrustRoots(self._writer)
        self._reviewer = Reviewer(access, AUDIENCE, is_alive=self._is_seated)
        self._memory = SharedMemory(access, names.namespace)
        self._replicas = Replicas(access, names.namespace, replica.name)
        self._gateways = GatewayDuty(access, self._writer, DeploymentSettings(), settings.cluster)
        self._webhook: Webhook | None = None
        self._shown: KeyPair | None = None
        self._webhook_trust = WebhookTrust(access, names, replica.injection.tags)
        self._secret_rights = PlaceRights(self._writer, names, SECRETS_RIGHT)
        self._map_rights = PlaceRights(self._writer, names, CONFIG_MAPS_RIGHT)
        self._statuses: Statuses | None = None
        self._told_at = -1
        self._plane: ControlPlane | None = None
        self._doors: list[admin.AdminServer] = []
        self._stored: tuple[object, ...] = ()
        self._is_leading = False
        self._holding: frozenset[str] = frozenset()
        self._maps: frozenset[tuple[str, str]] = frozenset()
        self._failures: dict[str, str] = {}

    async def run(self) -> None:
        """Start, then do the duties until cancelled. Raises what makes starting impossible."""
        started = monotonic()
        await self._patiently("the CA's roots", self._agree_on_roots)
        await self._patiently("the API", self._source.start)
        await self._source.synced()
        await self._memory.start()
        plane = await self._opened()
        logs.event(logging.INFO, "in the cluster", milliseconds=round((monotonic() - started) * 1000))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leadership.run())
            tasks.create_task(self._writer.run())
            tasks.create_task(self._reviewer.run())
            tasks.create_task(self._duties(plane))

    async def _opened(self) -> ControlPlane:
        plane = self._plane = ControlPlane(
            self._source,
            self._settings,
            None,
            self._replica.state_dir,
            rotates_roots=False,
            memory=self._memory,
        )
        self._memory.tell(plane.pushing.adopt)
        self._stored = plane.store.roots
        plane.credentials.trusted_elsewhere = self._replicas.trusting
        plane.credentials.runs = lambda seat: _is_ready(plane, seat)
        await plane.open()
        await plane.open_tokens(f"{self._replica.listen}:{XDS_PORT}", self.names, _Reviewing(self._reviewer))
        await self._open_webhook(plane)
        for serves, host, port in (
            (admin.application(plane), "127.0.0.1", ADMIN_PORT),
            (admin.metrics_of(plane), self._replica.listen, METRICS_PORT),
            (admin.probes_of(plane), self._replica.listen, PROBE_PORT),
        ):
            door = admin.AdminServer(serves)
            await door.open_tcp(host, port)
            self._doors.append(door)
        return plane

    async def _open_webhook(self, plane: ControlPlane) -> None:
        handlers = {"/inject": injector(self._replica.injection), "/validate": validator(self._settings.cluster)}
        self._webhook = Webhook(handlers, _pair(plane))
        await self._webhook.open(self._replica.listen, WEBHOOK_PORT)

    async def close(self) -> None:
        """Let go of everything; proxies keep what they have and find another replica."""
        for door in self._doors:
            await door.close()
        if self._webhook is not None:
            await self._webhook.close()
        if self._plane is not None:
            await self._plane.close()
            await self._replicas.leave()
        await self._memory.close()
        await self._source.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Under which proxies and the API server find us."""
        names = self._replica.names
        ours = (CONTROL_PLANE, names.revised(CONTROL_PLANE))
        hosts = [f"{name}.{names.namespace}.svc" for name in dict.fromkeys(ours)]
        return (*hosts, *(f"{host}.{self._settings.cluster_domain}" for host in hosts))

    # --- roots -------------------------------------------------------------------------------------------------------

    async def _agree_on_roots(self) -> None:
        """The state directory is a copy of the Secret, or the Secret of it: the first replica makes the first root."""
        found = await self._ca.newer()
        if found is not None:
            self._ca.lay(found)
            return
        directory = self._replica.state_dir / "ca"
        directory.parent.mkdir(parents=True, exist_ok=True)
        RootStore.open(directory, self._settings.trust_domain, utc(time())).close()
        if not await self._ca.store() and (other := await self._ca.newer()) is not None:
            self._ca.lay(other)

    async def _settle_roots(self, plane: ControlPlane) -> None:
        """Store the roots that we moved, or that somebody deleted; adopt those that another replica moved.

        The leader looks, too: each revision has one, and they share the roots.
        """
        is_lost = self._is_leading and not self._ca.is_kept
        if (plane.store.roots != self._stored or is_lost) and await self._ca.store():
            self._stored = plane.store.roots
            return
        found = await self._ca.newer()
        if found is not None:
            plane.adopt_roots(lambda: self._ca.lay(found))
            self._stored = plane.store.roots

    # --- duties ------------------------------------------------------------------------------------------------------

    async def _duties(self, plane: ControlPlane) -> None:
        ask_at = 0.0
        while True:
            plane.edited.clear()
            self._settle_lead(plane)
            if (now := monotonic()) >= ask_at:
                ask_at = now + _ASK_S
                await self._ask(plane)
            began = monotonic()
            self._settle(plane)
            # However large the cluster, and however often it changes: a small part of one core.
            await asyncio.sleep(min(max(_TURN_S, _REST * (monotonic() - began)), _LONGEST_REST_S))
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, ask_at - monotonic())):
                    await plane.edited.wait()

    def _settle_lead(self, plane: ControlPlane) -> None:
        if self._leadership.is_leader == self._is_leading:
            return
        self._is_leading = self._leadership.is_leader
        self._writer.forget_written()
        self._trust_roots = TrustRoots(self._writer)
        self._told_at = -1
        plane.credentials.lead(is_leader=self._is_leading)
        logs.event(logging.INFO, "leads" if self._is_leading else "follows", replica=self._replica.name)

    async def _ask(self, plane: ControlPlane) -> None:
        """What the API must be asked for, again and again."""
        await self._tried("the CA's roots", self._settle_roots(plane))
        await self._tried("replicas", self._replicas.settle(*plane.credentials.trusting()))
        if self._webhook is not None and (pair := _pair(plane)) != self._shown:
            self._webhook.renew(pair)
            self._shown = pair
        if self._is_leading:
            await self._tried("webhooks", self._webhook_trust.settle(plane.bundle_pem, monotonic()))
            await self._tried("gateways", self._gateways.settle(plane))

    def _settle(self, plane: ControlPlane) -> None:
        """What follows from the objects we know: wishes, and no waiting."""
        self._follow_secrets(plane)
        self._follow_maps(plane)
        if self._is_leading:
            self._trust_roots.settle(self._namespaces(plane), plane.bundle_pem, monotonic())
            self._secret_rights.settle(self._holding)
            self._map_rights.settle(frozenset(namespace for namespace, _ in self._maps))
            self._settle_statuses(plane)

    def _settle_statuses(self, plane: ControlPlane) -> None:
        if plane.db.revision == self._told_at and not self._source.regenerated:
            return
        self._source.regenerated.clear()
        self._told_at = plane.db.revision
        if self._statuses is None:
            self._statuses = Statuses(plane.db, self._source, self._writer, self._settings.cluster)
        self._statuses.settle()

    def _follow_secrets(self, plane: ControlPlane) -> None:
        """Secrets are read in namespaces that hold a gateway, or grant one a certificate, and nowhere else."""
        holding = frozenset(seat.workload.namespace for seat in plane.fleet.seats.values() if seat.is_gateway)
        holding |= secret_namespaces(plane.db, self._settings.cluster)
        if holding != self._holding:
            self._holding = holding
            self._source.follow(("", "Secret"), ((name, "") for name in holding))

    def _follow_maps(self, plane: ControlPlane) -> None:
        """ConfigMaps are read one by one, where a Gateway or a policy for its backends names them."""
        named = named_config_maps(plane.db, self._settings.cluster)
        if named != self._maps:
            self._maps = named
            self._source.follow(("", "ConfigMap"), named)

    def _namespaces(self, plane: ControlPlane) -> Mapping[str, str]:
        found = {}
        for key in by_kind(plane.db, (self._settings.cluster, "Namespace")):
            one = objects(plane.db, key)
            if one is not None and not key.group:
                found[key.name] = one.uid
        return found

    def _is_seated(self, namespace: str, pod: str, uid: str) -> bool:
        seat = self._plane.fleet.seats.get(uid) if self._plane is not None else None
        return seat is not None and (seat.workload.name, seat.workload.namespace) == (pod, namespace)

    async def _tried(self, what: str, duty: Awaitable[object]) -> None:
        """Do a duty; what fails is told once, and tried again at the next turn."""
        try:
            await duty
        except (KubeError, IdentityError) as error:
            if self._failures.get(what) != str(error):
                logs.event(logging.WARNING, "not done yet", duty=what, error=str(error))
            self._failures[what] = str(error)
            return
        if self._failures.pop(what, None) is not None:
            logs.event(logging.INFO, "done again", duty=what)

    async def _patiently(self, what: str, duty: Callable[[], Awaitable[None]]) -> None:
        """Until it is done: a cluster that starts has no API for a while."""
        while True:
            try:
                return await duty()
            except KubeError as error:
                logs.event(logging.WARNING, "waiting", duty=what, error=str(error))
            await asyncio.sleep(_WAIT_FOR_API_S)


def _pair(plane: ControlPlane) -> KeyPair:
    assert plane.server_identity is not None
    key, chain = plane.server_identity.pem()
    return KeyPair(chain, key)


class _Reviewing:
    """The API's reviews in the words of the door."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer

    async def review(self, token: str) -> Proven:
        """Whose a token is; raises TokenRefusedError, KubeError."""
        try:
            return await self._reviewer.review(token)
        except TokenRefused as refused:
            raise TokenRefusedError(str(refused)) from refused


def _is_ready(plane: ControlPlane, seat: Seat) -> bool:
    """A pod is ready only while its proxy runs. Others may be waiting for a node, or be over, for days."""
    found = workload(plane.db, seat.workload)
    return found is not None and found.is_ready


def _on_refused(ref: Ref, error: KubeError) -> None:
    logs.event(logging.WARNING, "not written", object=ref.path, error=str(error))
