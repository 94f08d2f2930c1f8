"""The way to a mesh in a Kubernetes cluster: every replica of its control plane, and every proxy, through the API's port-forward.

A mesh is called `kube`, or `kube:CONTEXT`; commands ask the same admin API as on one machine. Each replica knows the proxies that are
connected to it, so what is asked of proxies is asked of all replicas. What objects look like as a whole is asked of the API: the control
plane keeps of them what it compiles. All rights are the user's own.
"""

import asyncio
import atexit
import itertools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from tulle.cli.connection import KUBE, TIMEOUT_S, Connection, mesh_word
from tulle.cli.output import Exit, Finding, refuse, report
from tulle.cli.reaching import Cluster, exit_of, refuse_with, true_conditions
from tulle.compile.envoy.cluster_bootstrap import LOOKING_PORT
from tulle.kube.access import Access
from tulle.kube.errors import KubeError, Refused, Unreachable
from tulle.kube.forwarding import Forward
from tulle.local.places import Places
from tulle.model.problems import NOWHERE, problem
from tulle.telemetry import pipe
from tulle.telemetry.merged import Sidecar
from tulle.telemetry.rates import Reporter

NAMESPACE_VARIABLE = "TULLE_NAMESPACE"
SYSTEM_NAMESPACE = "tulle-system"
ADMIN_PORT = 15014
_API_S = 60.0
"""How long anything that is asked of the API may take as a whole."""
_CUT_OFF = (Unreachable, OSError)
T = TypeVar("T")
Json = dict[str, Any]


class Replica(NamedTuple):
    """A pod of the control plane."""

    pod: str


class Said(NamedTuple):
    """What one replica answered, or why it did not."""

    replica: Replica
    answer: Any
    failure: str = ""


class ClusterConnection(Connection):
    """One mesh in a cluster. Threads and sockets of it end with the process."""

    def __init__(self, context: str, namespace: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tulle-"))
        name = f"{KUBE}:{context}" if context else KUBE
        super().__init__(Places(name, self._folder, self._folder))
        self.namespace = namespace
        """Of the control plane."""
        self.context = context
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        atexit.register(self._end)
        self._silent: set[str] = set()
        self.access = self.api(self._opened())
        self._replicas: list[Replica] | None = None
        self.unready: list[str] = []
        """Replicas that run and are not ready, with why: what is connected to them is not known."""

    @property
    def cluster(self) -> "ClusterConnection":
        """It is one."""
        return self

    @property
    def default_namespace(self) -> str:
        """Of the context, as kubectl has it."""
        return self.access.namespace or "default"

    @property
    def replicas(self) -> list[Replica]:
        """The ready ones, oldest pod first. Ends the command where there is none."""
        if self._replicas is None:
            self._replicas = self._found()
        return self._replicas

    # --- the API -----------------------------------------------------------------------------------------------------

    def api(self, coroutine: Coroutine[Any, Any, T], limit_s: float | None = _API_S) -> T:
        """Ask the API; what it refuses ends the command. `limit_s` None: as long as it takes."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(limit_s)
        except KubeError as error:
            refuse_kube(error)
        except TimeoutError:
            future.cancel()
            refuse(f"the Kubernetes API did not answer within {limit_s:g} s", Exit.TIMEOUT)
        except KeyboardInterrupt:
            future.cancel()
            raise

    async def _opened(self) -> Access:
        return Access.from_kubeconfig(None, self.context or None)

    def _found(self) -> list[Replica]:
        query = {"labelSelector": "app=tulled"}
        body = self.api(self.access.get(f"/api/v1/namespaces/{self.namespace}/pods", query))
        pods = sorted(json.loads(body)["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        if not pods:
            refuse_with("TUL1108", Exit.UNREACHABLE, what=f"of tulle in the namespace {self.namespace}")
        ready = [Replica(pod["metadata"]["name"]) for pod in pods if is_ready(pod)]
        # A replica that stopped answering keeps the streams it has, and the API soon calls it not ready.
        running = [pod for pod in pods if pod["status"].get("phase") == "Running" and not is_ready(pod)]
        odd = [Said(Replica(pod["metadata"]["name"]), None, "it is not ready") for pod in running if _stays(pod)]
        self.unready = [f"{one.replica.pod}: {one.failure}" for one in odd]
        if ready:
            self._tell(odd)
        else:
            refuse_with("TUL1131", Exit.UNREACHABLE, namespace=self.namespace, count=len(pods))
        return ready

    # --- the control plane -------------------------------------------------------------------------------------------

    def get(self, path: str, timeout_s: float = TIMEOUT_S, **query: str | None) -> Any:
        """The JSON answer of the replica that knows; None for 404."""
        asked = {name: value for name, value in query.items() if value}
        if path == "/v1/proxies":
            return _proxies(self._heard(path, timeout_s))
        if path == "/v1/workloads":
            return _workloads(self._heard(path, timeout_s))
        if path == "/v1/ca":
            return _leafs(self._heard(path, timeout_s))
        if path == "/v1/objects" and asked.pop("document", ""):
            return {"objects": self._documented(asked)}
        found, failures = None, []
        for replica in self.replicas:
            try:
                answer = self._of(replica, "GET", path, timeout_s, query=asked)
            except _CUT_OFF as error:
                failures.append(Said(replica, None, _reason(error)))
                continue
            if answer.status != HTTPStatus.NOT_FOUND:
                return self._read(answer)
            found = answer
        self._tell(failures)
        if found is None:
            self.nobody(failures)
        return self._read(found)

    def some_of_each(self, path: str, timeout_s: float = TIMEOUT_S) -> list[Said]:
        """The answers of all replicas to a GET; of those that do not answer, why. Ends the command where none does."""
        said = self._together("GET", path, timeout_s, [None for _ in self.replicas])
        failures = [one for one in said if one.failure]
        if len(failures) == len(said):
            self.nobody(failures)
        self._tell(failures)
        return said

    def each(self, path: str, bodies: Sequence[Mapping[str, Any]], timeout_s: float = TIMEOUT_S) -> list[Said]:
        """The answers of all replicas to a POST, asked at the same time: to each its own body."""
        return self._together("POST", path, timeout_s, [json.dumps(dict(body)).encode() for body in bodies])

    def _heard(self, path: str, timeout_s: float) -> list[Any]:
        return [one.answer for one in self.some_of_each(path, timeout_s) if not one.failure]

    def _together(self, method: str, path: str, timeout_s: float, bodies: Sequence[bytes | None]) -> list[Said]:
        def ask(replica: Replica, body: bytes | None) -> Said:
            try:
                answer = self._of(replica, method, path, timeout_s, body=body or b"")
            except _CUT_OFF as error:
                return Said(replica, None, _reason(error))
            return Said(replica, answer)

        with ThreadPoolExecutor(len(self.replicas)) as pool:
            found = list(pool.map(ask, self.replicas, bodies))
        return [one if one.failure else one._replace(answer=self._read(one.answer)) for one in found]

    def _tell(self, failures: Sequence[Said]) -> None:
        """Each silent replica once: what it alone knows is missing from every answer."""
        for one in failures:
            if one.replica.pod not in self._silent:
                self._silent.add(one.replica.pod)
                found = problem("TUL1132", NOWHERE, pod=one.replica.pod, namespace=self.namespace, reason=one.failure)
                report([Finding.of(found)])

    def nobody(self, failures: Sequence[Said]) -> NoReturn:
        """End the command: no replica answered."""
        reasons = "; ".join(f"{one.replica.pod}: {one.failure}" for one in failures)
        refuse(
            f"the control plane in {self.namespace} does not answer: {reasons}",
            Exit.TIMEOUT if all("timed out" in one.failure for one in failures) else Exit.UNREACHABLE,
            advice=f"See `kubectl -n {self.namespace} get pods` and `tulle check --cluster`.",
        )

    def _ask(self, method: str, path: str, timeout_s: float, **more: Any) -> pipe.Answer:
        replica = self.replicas[0]
        try:
            return self._of(replica, method, path, timeout_s, **more)
        except _CUT_OFF as error:
            self.nobody([Said(replica, None, _reason(error))])

    def _of(self, replica: Replica, method: str, path: str, timeout_s: float, **more: Any) -> pipe.Answer:
        """Raises Unreachable and OSError; what the API refuses ends the command."""
        try:
            return self._through(self.namespace, replica.pod, ADMIN_PORT, method, path, timeout_s=timeout_s, **more)
        except Refused as error:
            if error.is_absent:
                raise ConnectionError("the pod is gone") from error
            refuse_kube(error)
        except KubeError as error:
            if isinstance(error, Unreachable):
                raise
            raise ConnectionError(error.problem().text) from error

    # --- proxies -----------------------------------------------------------------------------------------------------

    def sidecar(self, proxy: Mapping[str, Any], path: str, *, method: str = "GET", **query: str) -> pipe.Answer:
        """What may be read of a proxy's admin interface; ends the command where it cannot be reached."""
        if method != "GET":
            refuse_with(
                "TUL1134",
                Exit.USAGE,
                command="proxy log",
                instead="Annotate the pod template: `sidecar.istio.io/logLevel: debug` (or `componentLogLevel`), which restarts "
                "its pods. Proxies of a cluster can be looked into, not changed",
            )
        try:
            return self._through(proxy["namespace"], proxy["pod"], LOOKING_PORT, "GET", path, query=query)
        except (KubeError, OSError) as error:
            if isinstance(error, Refused) and not error.is_absent:
                refuse_kube(error)
            refuse_with("TUL1133", Exit.UNREACHABLE, pod=proxy["id"], reason=_reason(error))

    def sidecars(self) -> tuple[Sidecar, ...]:
        """Every pod with a proxy, by name: those the control plane knows, connected or not."""
        found = [one for one in self.get("/v1/workloads")["workloads"] if one["hasSidecar"] or one["isGateway"]]
        made = [Sidecar(Reporter(one["namespace"], one["name"]), self._asking(one)) for one in found]
        return tuple(sorted(made, key=lambda one: one.reporter))

    def _asking(self, one: Mapping[str, Any]) -> Callable[[str, dict[str, str], float], pipe.Answer]:
        def ask(path: str, query: dict[str, str], timeout_s: float) -> pipe.Answer:
            place = (one["namespace"], one["name"], LOOKING_PORT)
            limit_s = max(timeout_s, TIMEOUT_S)  # longer than on one machine: the way leads over the API and a kubelet
            try:
                return self._through(*place, "GET", path, query=query, timeout_s=limit_s)
            except KubeError as error:
                raise ConnectionError(f"{error.problem().code} {error.problem().text}") from error

        return ask

    def _through(self, namespace: str, pod: str, port: int, method: str, path: str, **more: Any) -> pipe.Answer:
        """One request to a port of a pod. Raises KubeError and OSError."""
        with self._forwarded(namespace, pod, port) as (socket, forward):
            try:
                return pipe.ask(socket, method, path, **more)
            except OSError as error:
                if forward.failure is not None:
                    raise forward.failure from error
                raise

    @contextmanager
    def _forwarded(self, namespace: str, pod: str, port: int) -> Iterator[tuple[Path, Forward]]:
        socket = self._folder / f"{next(self._numbers)}.sock"
        forward = Forward(self.access, namespace, pod, port)
        self.api(forward.open(socket))
        try:
            yield socket, forward
        finally:
            self.api(forward.close())
            socket.unlink(missing_ok=True)

    # --- objects -----------------------------------------------------------------------------------------------------

    def _documented(self, asked: Mapping[str, str]) -> list[Json]:
        """Objects as the API has them, with where the control plane has them from; values of Secrets are left out."""
        listed = self.get("/v1/objects", kind=asked.get("kind"), namespace=asked.get("namespace"))["objects"]
        known = {(one["group"], one["kind"], one["namespace"], one["name"]): one for one in listed}
        found = self.api(self._read_objects(asked.get("kind", ""), asked.get("namespace", ""), asked.get("name", "")))
        rows = []
        for group, one in found:
            meta = one["metadata"]
            key = (group, one["kind"], meta.get("namespace", ""), meta["name"])
            shown = {"group": group, "kind": key[1], "namespace": key[2], "name": key[3]}
            shown |= {"labels": meta.get("labels") or {}, "file": "", "line": 0}
            rows.append({**shown, **known.get(key, {}), "document": _shown(one)})
        return rows

    async def _read_objects(self, kind: str, namespace: str, name: str) -> list[tuple[str, Json]]:
        cluster = Cluster(self.access)
        await cluster.look()
        found = []
        for (group, its_kind), served in cluster.table.items():
            if kind == its_kind and served:
                if name and (namespace or not served[0].is_namespaced):
                    one = await cluster.read(served[0], name, namespace)
                    items = [one] if one is not None else []
                else:
                    items = await cluster.listed(served[0], namespace=namespace)
                found += [(group, one) for one in items if name in ("", one["metadata"]["name"])]
        return found

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        shutil.rmtree(self._folder, ignore_errors=True)


def refuse_kube(error: KubeError) -> NoReturn:
    """End the command with what the API said."""
    found = error.problem()
    refuse(found.text, exit_of(error), advice=found.advice, code=found.code)


def _stays(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod serves."""
    return _stays(pod) and "Ready" in true_conditions(pod)


def _proxies(answers: Sequence[Any]) -> Any:
    """Of each proxy the entry of the replica that it is connected to."""
    merged: dict[str, Any] = {}
    for answer in answers:
        for one in answer["proxies"]:
            known = merged.get(one["uid"] or one["id"])
            if known is None or (one["stream"] and not known["stream"]):
                merged[one["uid"] or one["id"]] = one
    revision = max(answer["revision"] for answer in answers)
    return {"revision": revision, "proxies": sorted(merged.values(), key=lambda one: (one["namespace"], one["id"]))}


def _workloads(answers: Sequence[Any]) -> Any:
    """A pod's proxy is connected if it is to any replica."""
    merged: dict[tuple[str, str], Any] = {}
    for answer in answers:
        for one in answer["workloads"]:
            key = (one["namespace"], one["name"])
            if key not in merged or one["isConnected"]:
                merged[key] = one
    return {"workloads": [merged[key] for key in sorted(merged)]}


def _leafs(answers: Sequence[Any]) -> Any:
    """Each replica signs for its own proxies; of a proxy that changed replicas the newest certificate counts."""
    leafs: dict[str, Any] = {}
    for one in (one for answer in answers for one in answer["leafs"]):
        known = leafs.get(one["proxy"])
        if known is None or one["remainingSeconds"] > known["remainingSeconds"]:
            leafs[one["proxy"]] = one
    return {**answers[0], "leafs": list(leafs.values())}


def _shown(document: Json) -> Json:
    meta = {name: value for name, value in document["metadata"].items() if name != "managedFields"}
    shown = {**document, "metadata": meta}
    if document["kind"] == "Secret":
        for field in ("data", "stringData"):
            if field in shown:
                shown[field] = dict.fromkeys(shown[field], "...")
        annotations = dict(meta.get("annotations") or {})
        if annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None) is not None:
            meta["annotations"] = annotations
    return shown


def _reason(error: BaseException) -> str:
    if isinstance(error, KubeError):
        return error.problem().text
    return str(error) or type(error).__name__


def namespace_of(word: str) -> str:
    """The namespace of a context, as kubectl has it."""
    try:
        return Access.from_kubeconfig(None, word.partition(":")[2] or None).namespace or "default"
    except KubeError as error:
        refuse_kube(error)


def cluster_of(mesh: str | None) -> ClusterConnection:
    """The mesh in a cluster that `--mesh` or the environment names."""
    return connection_of(mesh_word(mesh))


def connection_of(word: str) -> ClusterConnection:
    """The mesh that `kube` or `kube:CONTEXT` names."""
    return ClusterConnection(word.partition(":")[2], os.environ.get(NAMESPACE_VARIABLE) or SYSTEM_NAMESPACE)
