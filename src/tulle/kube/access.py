"""Where the API is and as whom: kubeconfig or the pod's service account, requests, and streams of bytes.

Adapter over lightkube's configuration (kubeconfig, exec plugins, token files that rotate) and its HTTP client. Knows no kinds
(`discovery.py`), no watch (`reflector.py`), and reads no body but the Status of a refusal. Every error is a `KubeError`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from http.client import responses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import PROXY_CONF, KubeConfig, SingleConfig
from lightkube.config.models import Cluster, NameValue, User, UserExec
from lightkube.core.exceptions import ConfigError
from msgspec import Struct

from tulle.kube.errors import NoCluster, Refused, Unreachable

if TYPE_CHECKING:
    from httpx2.websockets import AsyncWebSocketSession

CONNECT_S = 5.0
ANSWER_S = 30.0
"""How long a request that is no watch may take."""
QUIET_S = 150.0
"""A watch without a byte for this long is dead: bookmarks come about once a minute."""
_EXEC_OLD, _EXEC_NOW = "client.authentication.k8s.io/v1beta1", "client.authentication.k8s.io/v1"
FIELD_OWNER = "tulle"
"""Field manager of what the control plane writes."""
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_ERRORS_FROM = HTTPStatus.BAD_REQUEST


class Answer(Struct, frozen=True):
    """What the API answered, below 400."""

    status: int
    body: bytes
    etag: str = ""


class _Details(Struct):
    retry_after: float = msgspec.field(name="retryAfterSeconds", default=0.0)


class _Status(Struct):
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


class Access:
    """One cluster as one user. Close it when done."""

    def __init__(self, server: str, client: httpx2.AsyncClient, namespace: str) -> None:
        self.server = server
        self.namespace = namespace
        """Of the context, or of the pod."""
        self._client = client

    @classmethod
    def from_kubeconfig(cls, path: str | Path | None = None, context: str | None = None) -> "Access":
        """A user's cluster: `path`, or the files of KUBECONFIG, or ~/.kube/config. Raises NoCluster."""
        try:
            files = (
                [str(path)] if path else [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
            )
            config = _merged(files or ["~/.kube/config"])
            return cls._of(config.get(context or None))
        except (ConfigError, KeyError, OSError, TypeError, ValueError, yaml.YAMLError) as error:
            raise NoCluster(_said(error)) from error

    @classmethod
    def in_cluster(cls) -> "Access":
        """The cluster this process is a pod of. Its token is read again when the API refuses it. Raises NoCluster."""
        try:
            return cls._of(KubeConfig.from_service_account().get())
        except (ConfigError, KeyError, OSError, ValueError) as error:
            raise NoCluster(_said(error)) from error

    @classmethod
    def from_server(cls, url: str) -> "Access":
        """An API without authentication, such as `kubectl proxy`."""
        return cls._of(PROXY_CONF._replace(cluster=Cluster(server=url)))

    @classmethod
    def _of(cls, config: SingleConfig | None) -> "Access":
        if config is None:
            raise NoCluster("no current context")
        user = config.user
        if user is not None and user.exec is not None:
            user.exec = _exec_ready(user.exec, config.cluster.server)
        client = httpx2.AsyncClient(
            base_url=config.cluster.server,
            verify=verify_cluster(config.cluster, user or User(), config.abs_file),
            auth=user_auth(user),
            timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
            # Lists come at a twentieth of their size, and a quarter of the cost of reading them; watches are never compressed.
            headers={"user-agent": "tulle", "accept-encoding": "gzip"},
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=30.0),
        )
        return cls(config.cluster.server, client, config.namespace)

    async def send(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        etag: str = "",
    ) -> Answer:
        """One request and its whole answer. Raises Refused and Unreachable."""
        headers = {"accept": accept}
        if body is not None:
            headers["content-type"] = content_type
        if etag:
            headers["if-none-match"] = etag
        try:
            response = await self._client.request(verb, path, params=query, content=body, headers=headers)
        except (
            httpx2.HTTPError,
            OSError,
            ConfigError,
            KeyError,
            ValueError,
        ) as error:  # the last two: an exec plugin's answer
            raise Unreachable(self.server, _said(error)) from error
        if response.status_code >= _ERRORS_FROM:
            raise _refusal(verb, path, response, response.content)
        return Answer(response.status_code, response.content, response.headers.get("etag", ""))

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """The body of a GET. Raises as `send`."""
        return (await self.send("GET", path, query=query)).body

    async def read(self, path: str) -> bytes | None:
        """One object; None: there is none. Raises as `send`."""
        try:
            return await self.get(path)
        except Refused as refused:
            if refused.is_absent:
                return None
            raise

    async def apply(self, path: str, document: bytes, owner: str = FIELD_OWNER, *, is_trial: bool = False) -> bytes:
        """Server-side apply of a whole object, as it stands afterwards: conflicts are won. Raises as `send`."""
        query = {"fieldManager": owner, "force": "true", **({"dryRun": "All"} if is_trial else {})}
        return (await self.send("PATCH", path, query=query, body=document, content_type=_APPLY)).body

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], *, accept: str = _JSON, quiet_s: float | None = QUIET_S
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a GET as it comes, in pieces that end anywhere. Raises as `send`, also while it is read.

        `quiet_s`: how long it may be silent, seconds; None: for ever (the log of a container that says nothing).
        """
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S, read=quiet_s)
        try:
            async with self._client.stream(
                "GET", path, params=query, headers={"accept": accept, "accept-encoding": "identity"}, timeout=timeout
            ) as response:
                if response.status_code >= _ERRORS_FROM:
                    raise _refusal("GET", path, response, await response.aread())
                yield response.aiter_raw()
        except (httpx2.TransportError, OSError, ConfigError) as error:
            raise Unreachable(self.server, _said(error)) from error

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Mapping[str, str], protocol: str
    ) -> AsyncIterator["AsyncWebSocketSession"]:
        """A WebSocket. Raises as `send` while it is opened."""
        from httpx2.websockets import (  # noqa: PLC0415 - only tools on a user's machine open any
            AsyncWebSocketClient,
            WebSocketUpgradeError,
        )

        try:
            opening = AsyncWebSocketClient(self._client, keepalive_ping_interval_seconds=None).connect(
                path, params=query, subprotocols=[protocol]
            )
            async with opening as session:
                yield session
        except WebSocketUpgradeError as error:
            raise _unopened(path, error.response.status_code) from error
        except (httpx2.TransportError, ConfigError) as error:
            raise Unreachable(self.server, _said(error)) from error

    async def close(self) -> None:
        """End every connection."""
        await self._client.aclose()

    async def __aenter__(self) -> "Access":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.close())


def refusal_of(path: str, status: bytes) -> Refused:
    """The refusal that a Status object inside a watch stands for."""
    return _from_status("GET", path, 0, status, 0.0)


def _refusal(verb: str, path: str, response: httpx2.Response, content: bytes) -> Refused:
    after = response.headers.get("retry-after", "")
    return _from_status(verb, path, response.status_code, content, float(after) if after.isdigit() else 0.0)


def _unopened(path: str, status: int) -> Refused:
    """A WebSocket that was refused: the body with the API's own words is closed before anybody can read it."""
    reason = responses.get(status, str(status))
    refused = Refused("GET", path, status, reason, reason)
    if not refused.is_denied:
        return refused
    kind, part = path.split("/")[-3], path.rpartition("/")[2]
    return Refused("GET", path, status, reason, f"{reason}; it takes the rights get and create of {kind}/{part}")


def _from_status(verb: str, path: str, code: int, content: bytes, after_s: float) -> Refused:
    try:
        status = msgspec.json.decode(content, type=_Status)
    except msgspec.MsgspecError:
        status = _Status(message=content[:200].decode("utf-8", "replace"))  # a proxy's page, not the API's Status
    details_s = status.details.retry_after if status.details else 0.0
    return Refused(verb, path, code or status.code, status.reason, status.message, retry_after_s=after_s or details_s)


def _merged(files: list[str]) -> KubeConfig:
    """Several kubeconfig files as kubectl reads them: the first to name something wins; missing files are passed over."""
    configs = [KubeConfig.from_file(name) for name in files if len(files) == 1 or Path(name).expanduser().is_file()]
    if not configs:
        raise NoCluster(f"none of {', '.join(files)} is a file")
    first = configs[0]
    for config in configs[1:]:
        first.current_context = first.current_context or config.current_context
        for mine, theirs in (
            (first.clusters, config.clusters),
            (first.contexts, config.contexts),
            (first.users, config.users),
        ):
            _fill(mine, theirs)
    return first


def _fill(mine: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    for name, value in theirs.items():
        mine.setdefault(name, value)


def _exec_ready(plugin: UserExec, server: str) -> UserExec:
    """An exec plugin as kubectl runs it: told which version and cluster it answers for; v1 answers have v1beta1's shape."""
    told = {
        "apiVersion": plugin.apiVersion,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"server": server}},
    }
    variable = NameValue("KUBERNETES_EXEC_INFO", msgspec.json.encode(told).decode())
    version = _EXEC_OLD if plugin.apiVersion == _EXEC_NOW else plugin.apiVersion
    return msgspec.structs.replace(plugin, apiVersion=version, env=[variable, *(plugin.env or ())])


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
