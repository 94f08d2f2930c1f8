"""What tests of the API need: a namespace that goes away, and a wire to the API that can be cut."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tulle.kube.access import Access

WAIT_S = 20.0


class Relay:
    """A port here that leads to the API, until it is cut."""

    def __init__(self, kubeconfig: Path, place: Path) -> None:
        self.kubeconfig = place / "relayed.kubeconfig"
        self._whole = yaml.safe_load(kubeconfig.read_text())
        self._target = urlsplit(self._whole["clusters"][0]["cluster"]["server"])
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    async def mend(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        cluster = self._whole["clusters"][0]["cluster"]
        cluster["server"] = f"https://127.0.0.1:{self._port}"
        self.kubeconfig.write_text(yaml.safe_dump(self._whole))

    async def cut(self) -> None:
        """Refuse connections, and break those there are."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._open |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()
        sink.close()
        self._open.discard(sink)


@contextlib.asynccontextmanager
async def relayed(kubeconfig: Path, place: Path) -> AsyncIterator[Relay]:
    """A relay that is open."""
    relay = Relay(kubeconfig, place)
    await relay.mend()
    try:
        yield relay
    finally:
        await relay.cut()


async def until(is_so: Callable[[], object], wait_s: float = WAIT_S) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(wait_s):
        while not is_so():
            await asyncio.sleep(0.02)


class Place:
    """A namespace of our own, and short words for what is in it."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.name = f"kube-{uuid.uuid4().hex[:8]}"

    async def make(self, **labels: str) -> None:
        await self.post("/api/v1/namespaces", {"metadata": {"name": self.name, "labels": labels}})
        # The controllers make it a little later; pods are refused until then.
        await self.post(self.path("serviceaccounts"), {"metadata": {"name": "default"}}, is_there=True)

    async def end(self) -> None:
        await self.access.send("DELETE", f"/api/v1/namespaces/{self.name}")

    def path(self, plural: str, name: str = "", root: str = "/api/v1") -> str:
        return f"{root}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    async def post(self, path: str, document: dict[str, Any], *, is_there: bool = False) -> dict[str, Any]:
        from tulle.kube.errors import Refused

        try:
            answer = await self.access.send("POST", path, body=json.dumps(document).encode())
        except Refused as refused:
            if not is_there or refused.status != 409:
                raise
            return {}
        return dict(json.loads(answer.body))

    async def merge(self, path: str, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        await self.access.send("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def service(self, name: str, port: int = 80) -> None:
        await self.post(self.path("services"), {"metadata": {"name": name}, "spec": {"ports": [{"port": port}]}})

    async def pod(self, name: str) -> str:
        """A pod that nobody schedules; its uid."""
        spec = {"schedulerName": "nobody", "containers": [{"name": "a", "image": "none"}]}
        made = await self.post(self.path("pods"), {"metadata": {"name": name}, "spec": spec})
        return str(made["metadata"]["uid"])

    async def token(self, audience: str, pod: tuple[str, str] | None, account: str = "default") -> str:
        """A service account token, bound to a pod (name, uid) or to none."""
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod[0], "uid": pod[1]} if pod else None
        request = {"spec": {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound}}
        made = await self.post(self.path("serviceaccounts", f"{account}/token"), request)
        return str(made["status"]["token"])


@contextlib.asynccontextmanager
async def place_in(access: Access, **labels: str) -> AsyncIterator[Place]:
    """A namespace that goes away."""
    place = Place(access)
    await place.make(**labels)
    try:
        yield place
    finally:
        await place.end()
