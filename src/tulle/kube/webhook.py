"""The admission server: the API server asks before it stores an object, handlers answer.

HTTPS with a certificate that is renewed in place: connections made from then on see the new one, none is ended for it. Knows the
review's envelope (admission.k8s.io/v1) and nothing of what is judged; which path has which handler is the caller's. A handler that
raises is logged by uvicorn and answers 500: no judgement, the API server's failurePolicy decides.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

MAX_REVIEW_BYTES: Final = 8 << 20
"""An object and its predecessor: etcd takes 1.5 MiB of each."""
_LONGEST_WARNING: Final = 250
_MOST_WARNINGS: Final = 12
"""The API server cuts at 256 characters each and 4096 together."""


class KeyPair(Struct, frozen=True):
    """A server's certificate chain and key, PEM."""

    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return f"KeyPair({len(self.chain)} bytes)"


class ObjectKind(Struct, frozen=True):
    """Group, version and kind of an object."""

    group: str = ""
    version: str = ""
    kind: str = ""


class Asked(Struct, frozen=True, rename="camel"):
    """One question of the API server."""

    uid: str
    kind: ObjectKind = ObjectKind()
    name: str = ""
    namespace: str = ""
    operation: str = ""
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None
    dry_run: bool = False


class Answered(Struct, frozen=True):
    """What a handler says."""

    is_allowed: bool = True
    patch: Sequence[Mapping[str, Any]] = ()
    """JSON patch operations (RFC 6902); empty: the object stays as it is."""
    reason: str = ""
    """Why it is not allowed, for the user."""
    warnings: Sequence[str] = ()
    """Shown by kubectl whether it is allowed or not."""


Handler = Callable[[Asked], Answered]


class _Review(Struct, frozen=True, rename="camel"):
    request: Asked
    api_version: str = ""


class Webhook:
    """Serves handlers by path. `open`, `renew` as often as the certificate is, `close`."""

    def __init__(self, handlers: Mapping[str, Handler], certificate: KeyPair) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.set_alpn_protocols(["http/1.1"])
        self.renew(certificate)
        config = uvicorn.Config(
            _application(handlers),
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            timeout_keep_alive=120,  # longer than the API server keeps idle connections
            timeout_graceful_shutdown=5,
            ssl_context_factory=lambda _config, _default: self._context,
        )
        self._server = _Quiet(config)
        self._serving: asyncio.Task[None] | None = None

    def renew(self, certificate: KeyPair) -> None:
        """Serve another certificate from now on. Raises ssl.SSLError where it does not fit its key; the former stays then."""
        # OpenSSL takes keys from files only; this one is in memory and has no name.
        file = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(file, certificate.chain + b"\n" + certificate.key)
            path = f"/proc/self/fd/{file}"
            # A context that refuses a pair has lost the one it had.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
            self._context.load_cert_chain(path)
        finally:
            os.close(file)

    async def open(self, host: str, port: int) -> int:
        """Listen; the port. Raises OSError."""
        listening = socket.create_server((host, port), family=socket.AF_INET, backlog=256)
        self._serving = asyncio.ensure_future(self._server.serve([listening]))
        return int(listening.getsockname()[1])

    async def close(self) -> None:
        """Stop, after the questions under way."""
        if self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait((self._serving,), timeout=7)


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own affair."""
        yield


def _application(handlers: Mapping[str, Handler]) -> Starlette:
    return Starlette(routes=[Route(path, _answering(handler), methods=["POST"]) for path, handler in handlers.items()])


def _answering(handler: Handler) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return PlainTextResponse(f"more than {MAX_REVIEW_BYTES} bytes", status_code=413)
        try:
            review = msgspec.json.decode(body, type=_Review)
        except msgspec.MsgspecError as error:
            return PlainTextResponse(f"no AdmissionReview: {error}", status_code=400)
        return JSONResponse(_review(review.request.uid, handler(review.request)))

    return answer


async def _body(request: Request) -> bytes | None:
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > MAX_REVIEW_BYTES:
            return None
    return bytes(received)


def _review(uid: str, said: Answered) -> dict[str, Any]:
    response: dict[str, Any] = {"uid": uid, "allowed": said.is_allowed}
    if said.patch:
        text = json.dumps(list(said.patch), separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(text).decode()}
    if not said.is_allowed:
        response["status"] = {"code": 400, "reason": "Invalid", "message": said.reason}
    if said.warnings:
        response["warnings"] = [_short(warning) for warning in said.warnings[:_MOST_WARNINGS]]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _short(warning: str) -> str:
    return warning if len(warning) <= _LONGEST_WARNING else f"{warning[: _LONGEST_WARNING - 1]}…"
