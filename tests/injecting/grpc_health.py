"""A gRPC server with grpc.health.v1.Health: the whole server and `well` serve, `ill` does not. Argument: the port."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
ANSWERS = {b"": SERVING, b"\n\x04well": SERVING, b"\n\x03ill": NOT_SERVING}


def check(request: bytes, _: grpc.ServicerContext) -> bytes:
    return ANSWERS[request]


server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers(
    (
        grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
        ),
    )
)
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
