"""The Aggregated Discovery Service over grpcio's asyncio: bytes in, bytes out, one server per pod's Unix socket.

Rule 1: CancelledError propagates, and nothing cancels a read: grpcio leaks what was under way (grpc/grpc#43360).
Rule 2: who is calling is decided by the door (`Door`), never by what the caller says.
Knows no views and no secrets: `Lobby` admits, `client.py` talks.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from msgspec import Struct, structs

from tulle.serve.client import Client, Ending
from tulle.serve.valve import Valve
from tulle.xds.events import DeltaRequest, SotwRequest
from tulle.xds.wire import DELTA, SERVICE, STATE_OF_THE_WORLD, ClientNode, read_delta, read_sotw

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""A reconnecting client lists everything it holds, with versions."""
_MOST_METADATA = 64 * 1024
_LONGEST_TOKEN = 16 * 1024
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", _MOST_METADATA),
    # Clients keep connections alive with pings; gRPC's default calls that abuse and hangs up.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A peer that vanished without a word (a suspended machine) is noticed after a minute.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Requests are small: probing for bandwidth is a ping and a pong for every one of them.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.so_reuseport", 0),
)
Read = Callable[[bytes], tuple[DeltaRequest | SotwRequest, ClientNode | None]]
Context = Any
"""grpc.aio.ServicerContext; its typing does not know `read` and `write` of bytes."""


class PodDoor(Struct, frozen=True):
    """A pod's own socket: whoever can open it is that pod."""

    uid: str


class CertificateDoor(Struct, frozen=True):
    """TLS with client certificates; which identity is read from each connection."""


class TokenDoor(Struct, frozen=True):
    """TLS, and a token that Kubernetes gave to one pod; whose it is says the API."""


class OpenDoor(Struct, frozen=True):
    """Plaintext: nobody is anybody."""


Door = PodDoor | CertificateDoor | TokenDoor | OpenDoor


class Proven(Protocol):
    """Whose a token is: a pod that lives, as the API says (`kube.reviewing.Proven`)."""

    @property
    def uid(self) -> str:
        """Of the pod."""

    @property
    def pod(self) -> str:
        """Its name."""

    @property
    def namespace(self) -> str:
        """Its namespace."""

    @property
    def service_account(self) -> str:
        """What it runs as."""

    @property
    def expires_at(self) -> float:
        """Unix seconds: the stream ends then."""


class Reviewer(Protocol):
    """Who tells whose a token is (`kube.reviewing`)."""

    async def review(self, token: str) -> Proven:
        """The pod of a token; raises TokenRefusedError, or whatever says that it cannot be known now."""


class TokenRefusedError(Exception):
    """Not a token of this cluster's, of another audience, over, or of no pod."""


class Guest(Struct, frozen=True):
    """Who comes through a door, as far as it is proven."""

    door: Door
    peer: str
    """For logs."""
    uris: tuple[str, ...] = ()
    """URI names of the verified client certificate."""
    certificate: bytes = b""
    """PEM of it."""
    proven: Proven | None = None
    """By a token."""
    can_ask: bool = True
    """It speaks the delta variant, in which names are asked for one by one; state of the world gets everything there is."""


class NotAdmittedError(Exception):
    """This guest gets no configuration now."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


class Lobby(Protocol):
    """Who decides what a guest gets."""

    def admit(self, guest: Guest, node: ClientNode | None) -> Client:
        """A client for a new stream; raises NotAdmittedError."""

    def left(self, client: Client) -> None:
        """The stream is over."""


class Service(grpc.GenericRpcHandler):
    """Both methods of the discovery service behind one door."""

    def __init__(self, lobby: Lobby, door: Door, valve: Valve, reviewer: Reviewer | None = None) -> None:
        self._lobby = lobby
        self._door = door
        self._valve = valve
        self._reviewer = reviewer
        self._listening: set[asyncio.Task[None]] = set()
        methods: dict[str, Read] = {DELTA: read_delta, STATE_OF_THE_WORLD: read_sotw}
        self._methods: dict[str, Any] = {
            f"/{SERVICE}/{name}": grpc.stream_stream_rpc_method_handler(self._talker(read))
            for name, read in methods.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, None for methods we do not have."""
        return self._methods.get(handler_call_details.method)

    def _talker(self, read: Read) -> Callable[[Any, Context], Any]:
        async def talk(_: Any, context: Context) -> None:
            first = await context.read()
            if first is aio.EOF:
                return
            try:
                request, node = read(first)
                guest = self._guest(context) if self._reviewer is None else await self._holder(context, self._reviewer)
                client = self._lobby.admit(structs.replace(guest, can_ask=read is read_delta), node)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a discovery request")
            except NotAdmittedError as refused:
                await context.abort(grpc.StatusCode[refused.ending.status], refused.ending.reason)
            try:
                client.hear(request)
                listening = asyncio.ensure_future(_listen(client, context, read))
                self._listening.add(listening)  # it ends with the stream; the set keeps it from being collected
                listening.add_done_callback(self._heard_out)
                while (parts := await client.outgoing()) is not None:
                    await self._valve.write(parts, context.write)
            finally:
                self._lobby.left(client)
            if client.ending is not None:
                await context.abort(grpc.StatusCode[client.ending.status], client.ending.reason)

        return talk

    def _heard_out(self, task: asyncio.Task[None]) -> None:
        self._listening.discard(task)
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "reading a discovery stream failed", "exception": task.exception(), "task": task}
            )

    def _guest(self, context: Context) -> Guest:
        peer = context.peer() or "unix:"
        if not isinstance(self._door, CertificateDoor):
            return Guest(self._door, peer)
        facts = context.auth_context()
        uris = tuple(uri.decode("utf-8", "replace") for uri in facts.get("peer_uri", ()))
        pem = next(iter(facts.get("x509_pem_cert", ())), b"")
        return Guest(self._door, peer, uris, pem)

    async def _holder(self, context: Context, reviewer: Reviewer) -> Guest:
        peer = context.peer() or ""
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        scheme, _, token = str(given).partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            raise NotAdmittedError(Ending("UNAUTHENTICATED", "a token is needed: `authorization: Bearer`"))
        try:
            return Guest(self._door, peer, proven=await reviewer.review(token))
        except TokenRefusedError as refused:
            raise NotAdmittedError(Ending("UNAUTHENTICATED", str(refused))) from refused
        except Exception as error:
            # Who cannot be told apart is not let in, and comes again soon.
            raise NotAdmittedError(Ending("UNAVAILABLE", "tokens cannot be reviewed now")) from error


async def _listen(client: Client, context: Context, read: Read) -> None:
    while True:
        try:
            message = await context.read()
        except (asyncio.CancelledError, aio.InternalError, aio.UsageError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            message = aio.EOF  # how grpcio says that the call is over
        if message is aio.EOF:
            client.end(None)
            return
        try:
            request, _ = read(message)
        except DecodeError:
            client.end(Ending("INVALID_ARGUMENT", "not a discovery request"))
            return
        client.hear(request)


class Doors:
    """All listening sockets. Opening and closing are idempotent by name."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby
        self._valve = Valve()
        self._servers: dict[str, aio.Server] = {}
        self._sockets: dict[str, Path] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._servers)

    @property
    def pods(self) -> frozenset[str]:
        """Uids whose sockets are open."""
        return frozenset(self._sockets)

    async def open_pod(self, uid: str, socket: Path) -> None:
        """Serve one pod on its own socket, made anew where a former process left one. Raises OSError."""
        if uid in self._sockets:
            return
        if (
            uid in self._closing
        ):  # the former server takes its path's socket away when it ends, whosever that is by then
            await self._closing[uid]
        self._sockets[uid] = socket
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._start(uid, PodDoor(uid), f"unix:{socket}", None)

    async def open_plaintext(self, address: str) -> int:
        """Serve anybody; the port."""
        return await self._start("plaintext", OpenDoor(), address, None)

    async def open_tls(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Serve holders of certificates of the mesh; the port."""
        return await self._start("tls", CertificateDoor(), address, credentials)

    async def open_tokens(self, address: str, credentials: grpc.ServerCredentials, reviewer: Reviewer) -> int:
        """Serve pods that show a token of theirs; the port."""
        return await self._start("tokens", TokenDoor(), address, credentials, reviewer)

    def close_pod(self, uid: str) -> None:
        """The pod is gone: its socket goes at once, its streams end soon."""
        socket = self._sockets.pop(uid, None)
        server = self._servers.pop(uid, None)
        if socket is not None:
            with contextlib.suppress(FileNotFoundError):
                socket.unlink()
        if server is not None:
            task = self._closing[uid] = asyncio.ensure_future(_stop(server, 1.0))
            task.add_done_callback(lambda _: self._closing.pop(uid, None))

    async def close(self) -> None:
        """Stop everything; clients keep what they have."""
        servers, self._servers = list(self._servers.values()), {}
        await asyncio.gather(*self._closing.values(), *(_stop(server, 0.2) for server in servers))
        for socket in self._sockets.values():
            with contextlib.suppress(FileNotFoundError):
                socket.unlink()
        self._sockets.clear()

    async def _start(
        self, name: str, door: Door, address: str, credentials: Any, reviewer: Reviewer | None = None
    ) -> int:
        server = aio.server(handlers=(Service(self._lobby, door, self._valve, reviewer),), options=OPTIONS)
        try:
            port = (
                server.add_insecure_port(address)
                if credentials is None
                else server.add_secure_port(address, credentials)
            )
            await server.start()
        except RuntimeError as error:
            self._sockets.pop(name, None)
            raise OSError(f"cannot listen on {address}: {error}") from error
        self._servers[name] = server
        return int(port)


async def _stop(server: aio.Server, grace: float) -> None:
    await server.stop(grace)
