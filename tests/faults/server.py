"""The servers of the fault mesh: HTTP on PORT; with TCP_PORT and GRPC_PORT, echoes for long streams beside it.

As small as it may be, so that 500 requests a second leave the machine to the mesh. Ends on SIGTERM as a well-behaved
application does: no new connections, answers in work are finished.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

ME = os.environ.get("POD_NAME", "server")
GRACE_S = 2.0
open_connections: set[Http] = set()


class Http(asyncio.Protocol):
    """Answers every request by the pod's name and the query."""

    is_leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.received = b""
        open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        open_connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head, self.received = self.received[:end], self.received[end + 4 :]
            _method, uri, _ = head.split(b" ", 2)
            body = ME.encode() + b" " + uri.partition(b"?")[2] + b"\n"
            closing = b"connection: close\r\n" if Http.is_leaving else b""
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n%scontent-length: %d\r\n\r\n%s"
                % (closing, len(body), body)
            )
            if Http.is_leaving:
                self.transport.close()


class Echo(asyncio.Protocol):
    """Says what it hears."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def talk(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    """The gRPC echo."""
    async for one in requests:
        yield one


async def grpc_server(port: int) -> Any:
    import grpc

    handler = grpc.stream_stream_rpc_method_handler(talk)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tulle.tests.Echo", {"Talk": handler}),))
    server.add_insecure_port(f"0.0.0.0:{port}")
    await server.start()
    return server


async def main() -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    beside = []
    if os.environ.get("TCP_PORT"):
        beside.append(await loop.create_server(Echo, "0.0.0.0", int(os.environ["TCP_PORT"]), backlog=512))
    rpc = await grpc_server(int(os.environ["GRPC_PORT"])) if os.environ.get("GRPC_PORT") else None
    http = await loop.create_server(Http, "0.0.0.0", int(os.environ.get("PORT", "8080")), backlog=1024)
    print(f"{ME} listens", flush=True)
    await stopping.wait()
    Http.is_leaving = True
    http.close()
    # Connections in use close with their next answer; those at rest are closed when the grace is over.
    async with asyncio.timeout(GRACE_S + 1):
        for _ in range(int(GRACE_S * 100)):
            if not open_connections:
                break
            await asyncio.sleep(0.01)
    for connection in tuple(open_connections):
        connection.transport.close()
    if rpc is not None:
        await rpc.stop(1.0)
    print(f"{ME} ends", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
