"""The way to a mesh in a Kubernetes cluster: every replica of its control plane, through the API's port-forward.

A mesh is called `kube`, or `kube:CONTEXT`; commands ask the same admin API as on one machine. Each replica knows the proxies that are
connected to it, so what is asked of proxies is asked of all replicas.
"""

import asyncio
import atexit
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tulle.cli.connection import TIMEOUT_S, Connection
from tulle.cli.output import Exit, refuse
from tulle.kube.access import Access
from tulle.kube.errors import KubeError
from tulle.kube.forwarding import Forward
from tulle.local.places import Places
from tulle.telemetry import pipe

PREFIX = "kube"
NAMESPACE_VARIABLE = "TULLE_NAMESPACE"
ADMIN_PORT = 15014
_OPENING_S = 15.0


class ClusterConnection(Connection):
    """One mesh in a cluster. Threads and sockets of it end with the process."""

    def __init__(self, context: str, namespace: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tulle-"))
        name = f"{PREFIX}:{context}" if context else PREFIX
        super().__init__(Places(name, self._folder, self._folder))
        self.namespace = namespace
        """Of the control plane."""
        self.context = context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        atexit.register(self._end)
        self._forwards: dict[Path, Forward] = {}
        try:
            self.replicas = self._do(self._opened())
            """Sockets of the ready replicas, oldest pod first."""
        except KubeError as error:
            found = error.problem()
            refuse(found.text, Exit.UNREACHABLE, advice=found.advice, code=found.code)
        if not self.replicas:
            refuse(
                f"no replica of the control plane is ready in the namespace {namespace}",
                Exit.UNREACHABLE,
                advice="See `kubectl get pods`; `tulle install` installs one; $TULLE_NAMESPACE names another namespace.",
            )

    @property
    def cluster(self) -> "ClusterConnection":
        """It is one."""
        return self

    def get(self, path: str, timeout_s: float = TIMEOUT_S, **query: str | None) -> Any:
        """The JSON answer of the replica that knows; None for 404."""
        asked = {name: value for name, value in query.items() if value}
        if path == "/v1/proxies":
            return self._proxies(timeout_s)
        found = None
        for socket in self.replicas:
            answer = self._of(socket, "GET", path, timeout_s, query=asked)
            if answer.status != HTTPStatus.NOT_FOUND:
                return self._read(answer)
            found = answer
        assert found is not None
        return self._read(found)

    def of_each(self, path: str) -> list[Any]:
        """The answers of all replicas."""
        return [self._read(self._of(socket, "GET", path, TIMEOUT_S)) for socket in self.replicas]

    def each(self, path: str, bodies: Sequence[Mapping[str, Any]], timeout_s: float = TIMEOUT_S) -> list[Any]:
        """The answers of all replicas to a POST, asked at the same time: to each its own body."""

        def ask(socket: Path, body: Mapping[str, Any]) -> pipe.Answer:
            return self._of(socket, "POST", path, timeout_s, body=json.dumps(dict(body)).encode())

        with ThreadPoolExecutor(len(self.replicas)) as pool:
            return [self._read(answer) for answer in pool.map(ask, self.replicas, bodies)]

    def _ask(self, method: str, path: str, timeout_s: float, **more: Any) -> pipe.Answer:
        return self._of(self.replicas[0], method, path, timeout_s, **more)

    def _of(self, socket: Path, method: str, path: str, timeout_s: float, **more: Any) -> pipe.Answer:
        try:
            return pipe.ask(socket, method, path, timeout_s=timeout_s, **more)
        except OSError as error:
            failure = self._forwards[socket].failure
            reason = failure.problem().text if failure else str(error) or type(error).__name__
            refuse(
                f"the control plane in {self.namespace} does not answer: {reason}",
                Exit.TIMEOUT if isinstance(error, TimeoutError) else Exit.UNREACHABLE,
                advice="The right to create pods/portforward in its namespace is needed; see `tulle check`.",
            )

    def _proxies(self, timeout_s: float) -> Any:
        """Of each proxy the entry of the replica that it is connected to."""
        merged: dict[str, Any] = {}
        revision = 0
        for socket in self.replicas:
            answer = self._read(self._of(socket, "GET", "/v1/proxies", timeout_s))
            revision = max(revision, answer["revision"])
            for one in answer["proxies"]:
                known = merged.get(one["uid"] or one["id"])
                if known is None or (one["stream"] and not known["stream"]):
                    merged[one["uid"] or one["id"]] = one
        return {"revision": revision, "proxies": sorted(merged.values(), key=lambda one: (one["namespace"], one["id"]))}

    async def _opened(self) -> list[Path]:
        access = Access.from_kubeconfig(None, self.context or None)
        query = {"labelSelector": "app=tulled", "fieldSelector": "status.phase=Running"}
        body = await access.get(f"/api/v1/namespaces/{self.namespace}/pods", query)
        pods = sorted(json.loads(body)["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        sockets = []
        for number, pod in enumerate(pod for pod in pods if _is_ready(pod)):
            socket = self._folder / f"{number}.sock"
            forward = Forward(access, self.namespace, pod["metadata"]["name"], ADMIN_PORT)
            await forward.open(socket)
            self._forwards[socket] = forward
            sockets.append(socket)
        return sockets

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_OPENING_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )


def connection_of(word: str) -> ClusterConnection:
    """The mesh that `kube` or `kube:CONTEXT` names."""
    return ClusterConnection(word.partition(":")[2], os.environ.get(NAMESPACE_VARIABLE) or "tulle-system")
