"""The admin API: HTTP on a socket that only its owner can reach, in the loop that serves proxies.

Routes only: what is answered is `showing.py`'s, what is done is the plane's. Types are `wire.py`'s.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tulle.identity.errors import IdentityError
from tulle.serve import logs, metrics, wire
from tulle.serve.client import Client
from tulle.serve.shelves import our_bug
from tulle.serve.showing import Showing, problem, type_named

T = TypeVar("T")


class Plane(Protocol):
    """What the API asks of the control plane."""

    showing: Showing
    metrics: metrics.Metrics

    def version(self) -> wire.Version:
        """Who is answering."""

    def is_ready(self) -> bool:
        """Whether everything was loaded and sockets are open."""

    def problems(self) -> tuple[wire.Problem, ...]:
        """Every problem there is now."""

    def client(self, name: str) -> Client | None:
        """The newest stream of a proxy."""

    def document(self, shown: wire.ObjectShown) -> Any:
        """An object as it is written; None for what is in no file."""

    async def apply(self, request: wire.ApplyRequest) -> wire.Applied:
        """Read, push, wait."""

    async def settle(self, request: wire.SettleRequest) -> wire.Settled:
        """Wait until everybody has everything."""

    def rotate_root(self) -> None:
        """Begin a rotation. Raises IdentityError."""

    def authority(self) -> wire.Authority:
        """Certificates."""

    def workloads(self) -> tuple[wire.WorkloadShown, ...]:
        """Running instances."""


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, failure: wire.Failure) -> None:
        super().__init__(failure.message)
        self.status = status
        self.failure = failure


def application(plane: Plane) -> Starlette:
    """Every route of the API."""

    def get(path: str, answer: Callable[[Request], Any]) -> Route:
        return Route(path, _answering(answer), methods=["GET"])

    def post(path: str, answer: Callable[[Request], Any]) -> Route:
        return Route(path, _answering(answer), methods=["POST"])

    async def applied(request: Request) -> wire.Applied:
        return await plane.apply(await _body(request, wire.ApplyRequest))

    async def settled(request: Request) -> wire.Settled:
        return await plane.settle(await _body(request, wire.SettleRequest))

    def rotated(_: Request) -> wire.Authority:
        plane.rotate_root()
        return plane.authority()

    showing = plane.showing
    return Starlette(
        routes=[
            *_probes(plane, "/healthz", "/readyz"),
            _metrics(plane),
            get("/v1/version", lambda _: plane.version()),
            get("/v1/proxies", lambda _: wire.Proxies(revision=plane.version().revision, proxies=showing.proxies())),
            get("/v1/proxies/{id}/held", lambda request: _held(plane, request)),
            get("/v1/objects", lambda request: _objects(plane, request)),
            get("/v1/problems", lambda _: wire.Problems(problems=plane.problems())),
            get("/v1/services", lambda _: wire.Services(services=showing.services())),
            get("/v1/workloads", lambda _: wire.Workloads(workloads=plane.workloads())),
            get("/v1/explain", lambda request: _explained(plane, request)),
            get("/v1/plan", lambda request: _plan(plane, request)),
            get("/v1/intent", lambda request: showing.intent(request.query_params.get("namespace", ""))),
            get("/v1/ca", lambda _: plane.authority()),
            post("/v1/ca/rotate", rotated),
            post("/v1/apply", applied),
            post("/v1/settle", settled),
        ]
    )


def metrics_of(plane: Plane) -> Starlette:
    """What a Prometheus in the cluster may see."""
    return Starlette(routes=[_metrics(plane)])


def probes_of(plane: Plane) -> Starlette:
    """What a kubelet asks."""
    return Starlette(routes=[*_probes(plane, "/live", "/ready")])


def _metrics(plane: Plane) -> Route:
    answer = _answering(lambda _: Response(plane.metrics.text(), media_type=metrics.CONTENT_TYPE))
    return Route("/metrics", answer, methods=["GET"])


def _probes(plane: Plane, live: str, ready: str) -> Iterator[Route]:
    def is_ready(_: Request) -> Response:
        holds = plane.is_ready()
        return Response("ready" if holds else "starting", 200 if holds else 503, media_type="text/plain")

    yield Route(live, _answering(lambda _: Response("ok", media_type="text/plain")), methods=["GET"])
    yield Route(ready, _answering(is_ready), methods=["GET"])


def _answering(answer: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            found = answer(request)
            if isinstance(found, Awaitable):
                found = await found
        except RefusedError as refused:
            return _json(refused.failure, refused.status)
        except IdentityError as error:
            return _json(wire.Failure(error=problem(error.problem(), None)), 409)
        except Exception as error:  # noqa: BLE001 - a question that fails is answered, and proxies are served on
            logs.LOGGER.exception("the admin API failed at %s", request.url.path)
            return _json(wire.Failure(error=problem(our_bug(request.url.path, error), None)), 500)
        return found if isinstance(found, Response) else _json(found)

    return respond


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value, enc_hook=str), status, media_type="application/json")


def refusal(status: int, message: str) -> RefusedError:
    """An error with a sentence."""
    return RefusedError(status, wire.Failure(message=message))


async def _body(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise refusal(400, str(error)) from error


def _client(plane: Plane, name: str) -> Client:
    client = plane.client(name)
    if client is None:
        raise refusal(404, f"no connected proxy is called {name}")
    return client


def _held(plane: Plane, request: Request) -> wire.HeldAll:
    client = _client(plane, request.path_params["id"])
    name, word = request.query_params.get("name", ""), request.query_params.get("type", "")
    if not word:
        return wire.HeldAll(proxy=client.id, resources=plane.showing.held(client, name=name))
    return wire.HeldAll(proxy=client.id, resources=plane.showing.held(client, (_type(word),), name))


def _type(word: str) -> Any:
    found = type_named(word)
    if found is None:
        raise refusal(400, f"no resource type is called {word}")
    return found


def _plan(plane: Plane, request: Request) -> wire.Plan:
    words = request.query_params
    return plane.showing.plan(_client(plane, words.get("proxy", "")), is_whole=words.get("whole") == "true")


def _explained(plane: Plane, request: Request) -> wire.Explained:
    client = _client(plane, request.query_params.get("proxy", ""))
    return plane.showing.explained(
        client, _type(request.query_params.get("type", "")), request.query_params.get("name", "")
    )


def _objects(plane: Plane, request: Request) -> wire.Objects:
    words = {word: request.query_params.get(word, "") for word in ("kind", "namespace", "name")}
    found = plane.showing.objects(**words)
    if request.query_params.get("document", "") in ("true", "1") or words["name"]:
        found = tuple(msgspec.structs.replace(one, document=plane.document(one)) for one in found)
    return wire.Objects(objects=found)


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own affair."""
        yield


class AdminServer:
    """Serves an application on one socket until closed."""

    def __init__(self, serves: Starlette) -> None:
        config = uvicorn.Config(
            serves,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = _Quiet(config)
        self._serving: asyncio.Task[None] | None = None
        self._path: Path | None = None

    async def open_unix(self, path: Path) -> None:
        """Listen; the socket of a former process is replaced. Raises OSError."""
        fresh = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(fresh))
        fresh.chmod(0o600)
        listening.listen(256)
        os.replace(fresh, path)  # noqa: PTH105 - a socket appears under its name only when it listens
        self._path = path
        self._serving = asyncio.ensure_future(self._server.serve([listening]))

    async def open_tcp(self, host: str, port: int) -> int:
        """Listen; the port. Raises OSError."""
        listening = socket.create_server((host, port), family=socket.AF_INET, backlog=256)
        self._serving = asyncio.ensure_future(self._server.serve([listening]))
        return int(listening.getsockname()[1])

    async def close(self) -> None:
        """Stop, after the requests under way, for a second at most."""
        if self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait((self._serving,), timeout=3)
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
