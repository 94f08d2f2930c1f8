"""A workload that says who it is: HTTP, WebSocket, TCP, server-first TCP, TLS, HTTP/2 and gRPC, each on ports of choice.

    python echo.py --http 3030 --version v1 --tcp 9000 --banner 9001 --tls 9443:/path/cert.pem:/path/key.pem --h2c 9002

Every HTTP answer is JSON: pod, version, what arrived, and on which connection. `/status/CODE` answers so, `/delay/SECONDS`
waits first, `/ws` echoes WebSocket frames.
"""

import argparse
import asyncio
import base64
import hashlib
import itertools
import os
import signal
import ssl
from functools import partial
from typing import Any

import wire_http as wire

_WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_connections = itertools.count(1)


def who(version: str) -> dict[str, str]:
    """This pod."""
    return {"pod": os.environ.get("POD_NAME") or os.environ.get("HOSTNAME", ""), "version": version}


async def serve_http(version: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One HTTP/1.1 connection."""
    connection, number = next(_connections), 0
    while message := await wire.read_message(reader):
        number += 1
        method, path, _ = message.first.split(" ", 2)
        if message.headers.get("upgrade", "").lower() == "websocket":
            await _websocket(version, message, reader, writer)
            return
        status = int(path.split("/")[2]) if path.startswith("/status/") else 200
        if path.startswith("/delay/"):
            await asyncio.sleep(float(path.split("/")[2]))
        answer = {
            **who(version),
            "method": method,
            "path": path,
            "protocol": message.first.rsplit(" ", 1)[1],
            "headers": message.headers,
            "size": len(message.body),
            "port": writer.get_extra_info("sockname")[1],
            "caller": writer.get_extra_info("peername")[0],
            "connection": connection,
            "request": number,
        }
        writer.write(wire.response(status, answer, {"x-version": version}))
        await writer.drain()
        if message.is_last:
            return


async def _websocket(
    version: str, message: wire.Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    digest = hashlib.sha1((message.headers["sec-websocket-key"] + _WEBSOCKET_GUID).encode()).digest()
    accept = base64.b64encode(digest).decode()
    lines = ("HTTP/1.1 101 x", "upgrade: websocket", "connection: Upgrade", f"sec-websocket-accept: {accept}")
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    while True:
        text = await wire.read_frame(reader)
        writer.write(wire.frame(f"{version}:{text}", masked=False))
        await writer.drain()


async def serve_tcp(version: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every line comes back with the pod's version before it."""
    while line := await reader.readline():
        writer.write(f"{version}:".encode() + line)
        await writer.drain()


async def serve_banner(version: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks first, as SMTP and MySQL do, then echoes."""
    writer.write(f"220 {version} ready\n".encode())
    await serve_tcp(version, reader, writer)


async def serve_h2c(version: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/2 with prior knowledge and nothing else."""
    await wire.h2_answer(reader, writer, f"{version} over HTTP/2".encode())


async def guarded(serve: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A connection to its end; how the other side ends it is its business."""
    try:
        await serve(reader, writer)
    except (EOFError, ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def serve_grpc(port: int, version: str) -> Any:
    """`/echo.Echo/Say`: bytes in, bytes out; `/echo.Echo/Follow`: one answer per message, until the caller ends."""
    import grpc

    async def say(request: bytes, context: Any) -> bytes:
        return f"{version}:".encode() + request

    async def follow(requests: Any, context: Any) -> Any:
        async for request in requests:
            yield f"{version}:".encode() + request

    server = grpc.aio.server()
    methods = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Follow": grpc.stream_stream_rpc_method_handler(follow),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", methods),))
    assert server.add_insecure_port(f"0.0.0.0:{port}") == port
    await server.start()
    return server


async def main() -> None:
    """Serve until SIGTERM, then end what is open."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default="v1")
    for name in ("http", "tcp", "banner", "h2c", "grpc"):
        parser.add_argument(f"--{name}", type=int, action="append", default=[])
    parser.add_argument("--tls", action="append", default=[], metavar="PORT:CERTIFICATE:KEY")
    chosen = parser.parse_args()
    kinds = {"http": serve_http, "tcp": serve_tcp, "banner": serve_banner, "h2c": serve_h2c}
    servers: list[Any] = []
    for name, serve in kinds.items():
        for port in getattr(chosen, name):
            handler = partial(guarded, partial(serve, chosen.version))
            servers.append(await asyncio.start_server(handler, "0.0.0.0", port, limit=wire.LIMIT))
    for text in chosen.tls:
        port, certificate, key = text.split(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        handler = partial(guarded, partial(serve_http, chosen.version))
        servers.append(await asyncio.start_server(handler, "0.0.0.0", int(port), ssl=context))
    grpc_servers = [await serve_grpc(port, chosen.version) for port in chosen.grpc]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print(f"{chosen.version} serves", flush=True)
    await ended.wait()
    for server in servers:
        server.close()
    for server in grpc_servers:
        await server.stop(1)
    await asyncio.sleep(0.3)


if __name__ == "__main__":
    asyncio.run(main())
