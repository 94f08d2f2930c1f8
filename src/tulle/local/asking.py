"""The smallest HTTP/1.1 there is: one request on one connection, for admin sockets, probes and our own API.

Client libraries cost a quarter of a second to import, which is a tenth of what starting a mesh may take. Every
message has a length or ends with its connection; bodies are bounded.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

_BODY_LIMIT: Final = 64 * 1024 * 1024
_HEAD_LIMIT: Final = 64 * 1024
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 409: "Conflict", 500: "Internal Server Error"}


class Reply(NamedTuple):
    """A response."""

    status: int
    body: bytes
    fields: Mapping[str, str]
    """Header fields, names in lower case."""


async def ask(path: Path | str, method: str, target: str, body: bytes = b"", timeout: float = 5.0) -> Reply:  # noqa: ASYNC109 - one deadline for connect and answer
    """One request over a Unix socket. Raises `OSError` (which a timeout is, too)."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_unix_connection(str(path))
        return await _exchange(reader, writer, method, target, "localhost", body)


async def ask_on(
    connected: socket.socket,
    method: str,
    target: str,
    host: str,
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """One request over a connected socket, which is closed."""
    reader, writer = await asyncio.open_connection(sock=connected)
    return await _exchange(reader, writer, method, target, host, b"", headers)


async def _exchange(  # noqa: PLR0917 - a request has this many parts
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    target: str,
    host: str,
    body: bytes,
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    try:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        return await _response(reader)
    finally:
        writer.close()


async def _response(reader: asyncio.StreamReader) -> Reply:
    start = await reader.readline()
    parts = start.split(None, 2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise ConnectionError(f"not an HTTP response: {start[:60]!r}")
    fields = await _fields(reader)
    if fields.get("transfer-encoding", "").lower() == "chunked":
        return Reply(int(parts[1]), await _chunks(reader), fields)
    length = fields.get("content-length")
    if length is None:
        return Reply(int(parts[1]), await reader.read(_BODY_LIMIT), fields)
    return Reply(int(parts[1]), await reader.readexactly(min(int(length), _BODY_LIMIT)), fields)


async def _fields(reader: asyncio.StreamReader) -> dict[str, str]:
    fields: dict[str, str] = {}
    size = 0
    while (line := await reader.readline()) not in (b"\r\n", b"\n", b""):
        size += len(line)
        if size > _HEAD_LIMIT:
            raise ConnectionError("a message head that does not end")
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
        total += size
        if total > _BODY_LIMIT:
            raise ConnectionError("a body that does not end")
        pieces.append(await reader.readexactly(size))
        await reader.readline()
    return b"".join(pieces)


Handler = Callable[[str, str, dict[str, Any]], Awaitable[tuple[int, Any]]]
"""(method, path, JSON of the body) -> (status, JSON)."""


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Answer requests on a Unix socket, one per connection, JSON in and out."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _serve_one(reader, writer, handler)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass  # a client that broke off or spoke something else: its connection ends, nobody else's
        finally:
            writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - a run directory is local
    return await asyncio.start_unix_server(connected, str(path))


async def _serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    start = (await reader.readline()).decode("latin-1").split()
    if len(start) < 2:
        return
    fields = await _fields(reader)
    body = await reader.readexactly(min(int(fields.get("content-length", "0")), _BODY_LIMIT))
    given = json.loads(body) if body else {}
    status, answer = await handler(start[0], start[1], given)
    content = json.dumps(answer).encode()
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Other')}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
    await writer.drain()
