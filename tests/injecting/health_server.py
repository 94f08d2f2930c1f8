"""A gRPC server with grpc.health.v1.Health: the whole server and `well` serve, `ill` does not. Argument: the port."""

import asyncio
import sys

import grpc
import grpc.aio

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
ANSWERS = {b"": SERVING, b"\n\x04well": SERVING, b"\n\x03ill": NOT_SERVING}


async def check(request: bytes, _: object) -> bytes:
    return ANSWERS[request]


async def serve(port: str) -> None:
    server = grpc.aio.server()
    health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(serve(sys.argv[1]))
