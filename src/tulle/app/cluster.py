"""The control plane of a mesh in a cluster: `python -m tulle.app.cluster --namespace tulle-system ...`.

Wiring and order: objects from the API, roots in a Secret, proxies by their tokens; then the duties that are nobody's else. Names and
reasons: docs/decisions/0013. What a duty does is its module's; when it is done is said here.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic, time

import msgspec
from msgspec.structs import replace

from tulle.app.admission import injector, validator
from tulle.app.cluster_duties import OURS, SECRETS_ROLE, Replicas, SecretRights, TrustRoots, WebhookTrust
from tulle.app.cluster_gateways import GatewayDuty
from tulle.app.cluster_roots import CaSecret
from tulle.app.cluster_status import Statuses
from tulle.app.control import GARBAGE
from tulle.app.control_plane import ControlPlane
from tulle.app.settings import Settings, SettingsRefusedError, load
from tulle.dialects.gateway_api.deployments import DeploymentSettings
from tulle.dialects.gateway_api.listeners import secret_namespaces
from tulle.dialects.inputs import by_kind, objects
from tulle.identity.errors import IdentityError
from tulle.identity.store import RootStore, utc
from tulle.injecting.settings import InjectionSettings
from tulle.kube.access import Access
from tulle.kube.errors import KubeError
from tulle.kube.leases import Leadership
from tulle.kube.reviewing import Proven, Reviewer, TokenRefused
from tulle.kube.webhook import KeyPair, Webhook
from tulle.kube.writing import Ref, Writer
from tulle.serve import admin, logs
from tulle.serve.ads import TokenRefusedError
from tulle.sources.cluster_namespaces import selected_by
from tulle.sources.kubernetes import KubernetesSource

XDS_PORT = 15012
WEBHOOK_PORT = 15017
METRICS_PORT = 15010
ADMIN_PORT = 15014
PROBE_PORT = 8080
AUDIENCE = "tulle"
LEADER = "tulled-leader"
SERVICE = "tulled"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - of a pod
_STEP_S = 1.0
_WAIT_FOR_API_S = 2.0


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(prog="tulle-cluster", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--namespace", default=os.environ.get("POD_NAMESPACE", "tulle-system"), help="our own")
    parser.add_argument("--revision", default="default", help="which revision of the control plane this is")
    parser.add_argument("--name", default=os.environ.get("POD_NAME", f"pid-{os.getpid()}"), help="of this replica")
    parser.add_argument("--settings", type=Path, default=None, help="settings of the mesh, JSON")
    parser.add_argument("--injection-settings", type=Path, default=None, help="settings of injection, JSON")
    parser.add_argument(
        "--state-dir", type=Path, default=Path("/var/lib/tulle"), help="memory, not disk: keys are in it"
    )
    parser.add_argument("--kubeconfig", type=Path, default=None, help="instead of the pod's own service account")
    parser.add_argument("--context", default=None, help="of the kubeconfig")
    parser.add_argument("--listen", default=_EVERYWHERE, help="address of the ports that proxies and the API reach")
    parser.add_argument("--log-format", choices=("text", "json"), default="json")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run until told to stop; the exit code."""
    given = arguments(words)
    try:
        settings = load(given.settings)
    except (SettingsRefusedError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logs.start(given.log_format, logging.DEBUG if given.verbose else logging.INFO)
    gc.set_threshold(*GARBAGE)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # nothing is forked while serving
    try:
        return asyncio.run(_serve(given, settings))
    except SettingsRefusedError as error:
        logs.event(logging.ERROR, "cannot start", error=str(error))
    except (IdentityError, KubeError) as error:
        found = error.problem()
        logs.event(logging.ERROR, "cannot start", code=found.code, error=found.text, advice=found.advice)
    except OSError as error:
        logs.event(logging.ERROR, "cannot start", error=str(error))
    return 1


async def _serve(given: argparse.Namespace, settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    access = (
        Access.in_cluster() if given.kubeconfig is None else Access.from_kubeconfig(given.kubeconfig, given.context)
    )
    async with access:
        plane = ClusterPlane(access, given, settings)
        stopping = asyncio.ensure_future(stop.wait())
        running = asyncio.ensure_future(plane.run())
        try:
            await asyncio.wait((stopping, running), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            stopping.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await plane.close()
    return 0


class ClusterPlane:
    """One replica. `run` it; `close` it."""

    def __init__(self, access: Access, given: argparse.Namespace, settings: Settings) -> None:
        self._access = access
        self._given = given
        self._settings = settings
        always = frozenset((settings.root_namespace, given.namespace))
        self._source = KubernetesSource(
            access, cluster=settings.cluster, is_selected=selected_by(settings.discovery_selectors, always)
        )
        self._ca = CaSecret(access, given.namespace, given.state_dir / "ca")
        self._leadership = Leadership(
            access,
            given.namespace,
            _of_revision(LEADER, given.revision),
            f"{given.name}-{os.getpid()}",
            labels=dict(OURS),
        )
        self._writer = Writer(access, lambda: self._leadership.is_leader, _on_refused)
        self._trust_roots = TrustRoots(self._writer)
        self._replicas = Replicas(access, given.namespace, given.name)
        self._gateways = GatewayDuty(access, self._writer, DeploymentSettings(), settings.cluster)
        self._webhook: Webhook | None = None
        self._shown: KeyPair | None = None
        self._injection = _injection(given, settings)
        self._webhook_trust = WebhookTrust(access, [*_webhooks(given, self._injection)], given.revision)
        self._secret_rights = SecretRights(
            role=_wide(SECRETS_ROLE, given),
            binding=_of_revision(SECRETS_ROLE, given.revision),
            account=_of_revision(SERVICE, given.revision),
            namespace=given.namespace,
            revision=given.revision,
        )
        self._statuses: Statuses | None = None
        self._told_at = -1
        self._plane: ControlPlane | None = None
        self._doors: list[admin.AdminServer] = []
        self._stored: tuple[object, ...] = ()
        self._is_leading = False
        self._holding: frozenset[str] = frozenset()
        self._failures: dict[str, str] = {}

    async def run(self) -> None:
        """Start, then do the duties until cancelled. Raises what makes starting impossible."""
        started = monotonic()
        await self._patiently("the CA's roots", self._agree_on_roots)
        await self._patiently("the API", self._source.start)
        await self._source.synced()
        plane = self._plane = ControlPlane(
            self._source, self._settings, None, self._given.state_dir, rotates_roots=False
        )
        self._stored = plane.store.roots
        plane.credentials.trusted_elsewhere = self._replicas.trusting
        await plane.open()
        reviewer = Reviewer(
            self._access, AUDIENCE, is_alive=lambda namespace, pod, uid: _is_seated(plane, uid, pod, namespace)
        )
        await plane.open_tokens(f"{self._given.listen}:{XDS_PORT}", self.names, _Reviewing(reviewer))
        await self._open_webhook(plane)
        for serves, host, port in (
            (admin.application(plane), "127.0.0.1", ADMIN_PORT),
            (admin.metrics_of(plane), self._given.listen, METRICS_PORT),
            (admin.probes_of(plane), self._given.listen, PROBE_PORT),
        ):
            door = admin.AdminServer(serves)
            await door.open_tcp(host, port)
            self._doors.append(door)
        logs.event(logging.INFO, "in the cluster", milliseconds=round((monotonic() - started) * 1000))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leadership.run())
            tasks.create_task(self._writer.run())
            tasks.create_task(reviewer.run())
            tasks.create_task(self._duties(plane))

    async def _open_webhook(self, plane: ControlPlane) -> None:
        handlers = {"/inject": injector(self._injection), "/validate": validator(self._settings.cluster)}
        self._webhook = Webhook(handlers, _pair(plane))
        await self._webhook.open(self._given.listen, WEBHOOK_PORT)

    async def close(self) -> None:
        """Let go of everything; proxies keep what they have and find another replica."""
        for door in self._doors:
            await door.close()
        if self._webhook is not None:
            await self._webhook.close()
        if self._plane is not None:
            await self._plane.close()
            await self._replicas.leave()
        await self._source.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Under which proxies and the API server find us."""
        ours = (SERVICE, _of_revision(SERVICE, self._given.revision))
        hosts = [f"{name}.{self._given.namespace}.svc" for name in dict.fromkeys(ours)]
        return (*hosts, *(f"{host}.{self._settings.cluster_domain}" for host in hosts))

    # --- roots -------------------------------------------------------------------------------------------------------

    async def _agree_on_roots(self) -> None:
        """The state directory is a copy of the Secret, or the Secret of it: the first replica makes the first root."""
        found = await self._ca.newer()
        if found is not None:
            self._ca.lay(found)
            return
        directory = self._given.state_dir / "ca"
        directory.parent.mkdir(parents=True, exist_ok=True)
        RootStore.open(directory, self._settings.trust_domain, utc(time())).close()
        if not await self._ca.store() and (other := await self._ca.newer()) is not None:
            self._ca.lay(other)

    async def _settle_roots(self, plane: ControlPlane) -> None:
        """Store the roots that we moved; adopt those that another replica moved."""
        if plane.store.roots != self._stored:
            if await self._ca.store():
                self._stored = plane.store.roots
                return
        elif self._is_leading:
            return
        found = await self._ca.newer()
        if found is not None:
            plane.adopt_roots(lambda: self._ca.lay(found))
            self._stored = plane.store.roots

    # --- duties ------------------------------------------------------------------------------------------------------

    async def _duties(self, plane: ControlPlane) -> None:
        while True:
            if self._leadership.is_leader != self._is_leading:
                self._is_leading = self._leadership.is_leader
                self._writer.forget_written()
                self._told_at = -1
                plane.credentials.lead(is_leader=self._is_leading)
                logs.event(logging.INFO, "leads" if self._is_leading else "follows", replica=self._given.name)
            await self._tried("the CA's roots", self._settle_roots(plane))
            await self._tried("replicas", self._replicas.settle(*plane.credentials.trusting()))
            plane.credentials.look_again()
            if self._webhook is not None and (pair := _pair(plane)) != self._shown:
                self._webhook.renew(pair)
                self._shown = pair
            if self._is_leading:
                self._trust_roots.settle(self._namespaces(plane), plane.bundle_pem, monotonic())
                await self._tried("webhooks", self._webhook_trust.settle(plane.bundle_pem, monotonic()))
                await self._tried("gateways", self._gateways.settle(plane))
                self._settle_statuses(plane)
            self._follow_secrets(plane)
            await asyncio.sleep(_STEP_S)

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
        if self._is_leading:
            self._secret_rights.settle(self._writer, holding, self._holding)
        if holding != self._holding:
            self._holding = holding
            self._source.follow(("", "Secret"), ((name, "") for name in holding))

    def _namespaces(self, plane: ControlPlane) -> Mapping[str, str]:
        found = {}
        for key in by_kind(plane.db, (self._settings.cluster, "Namespace")):
            one = objects(plane.db, key)
            if one is not None and not key.group:
                found[key.name] = one.uid
        return found

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


def _injection(given: argparse.Namespace, settings: Settings) -> InjectionSettings:
    """What is injected: the installation's word, and what it must agree with."""
    raw = given.injection_settings.read_bytes() if given.injection_settings else b"{}"
    try:
        found = msgspec.json.decode(raw, type=InjectionSettings)
    except msgspec.MsgspecError as error:
        raise SettingsRefusedError(f"{given.injection_settings}: {error}") from error
    images = {
        name: os.environ[variable]
        for name, variable in (
            ("proxy_image", "TULLE_PROXY_IMAGE"),
            ("capture_image", "TULLE_CAPTURE_IMAGE"),
            ("image_pull_policy", "TULLE_PULL_POLICY"),
        )
        if os.environ.get(variable)
    }
    return replace(
        found,
        revision=given.revision,
        namespace=given.namespace,
        cluster=settings.cluster,
        mesh_id=settings.mesh_id,
        trust_domain=settings.trust_domain,
        **images,
    )


def _webhooks(given: argparse.Namespace, injection: InjectionSettings) -> Iterator[tuple[str, str]]:
    """The configurations that call us."""
    yield "mutatingwebhookconfigurations", _wide("tulle-injector", given)
    yield "validatingwebhookconfigurations", _wide("tulle-validator", given)
    for tag in injection.tags:
        yield "mutatingwebhookconfigurations", f"tulle-tag-{tag}-{given.namespace}"


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


def _is_seated(plane: ControlPlane, uid: str, pod: str, namespace: str) -> bool:
    seat = plane.fleet.seats.get(uid)
    return seat is not None and (seat.workload.name, seat.workload.namespace) == (pod, namespace)


def _on_refused(ref: Ref, error: KubeError) -> None:
    logs.event(logging.WARNING, "not written", object=ref.path, error=str(error))


def _wide(name: str, given: argparse.Namespace) -> str:
    return f"{_of_revision(name, given.revision)}-{given.namespace}"


def _of_revision(name: str, revision: str) -> str:
    return name if revision == "default" else f"{name}-{revision}"


if __name__ == "__main__":
    sys.exit(main())
