"""The gRPC contract between reviews and ratings: names and codecs of `bookinfo.v1.Ratings`. Messages are JSON.

No descriptors and no generated code: gRPC itself only needs bytes. The import of grpc is not here, because it costs more
than a whole service: both ends do it once they listen.
"""

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

Message = dict[str, object]

SERVICE = "bookinfo.v1.Ratings"
GET = f"/{SERVICE}/Get"
"""Unary: {"product": 0} -> {"stars": {reviewer: 0..5}, "pod": str, "version": str}."""
WATCH = f"/{SERVICE}/Watch"
"""Server stream: {} -> the ticks of `/live`, until the caller leaves."""


def encode(value: Message) -> bytes:
    """A message as bytes."""
    return json.dumps(value).encode()


def decode(payload: bytes) -> Message:
    """Bytes as a message; raises ValueError for anything but a JSON object."""
    value = json.loads(payload)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def channel(target: str) -> "grpc.Channel":
    """A channel to `target` (`ratings:9081`) that looks the name up as every other program here does."""
    # The C library's own resolver ignores nsswitch and search domains; a mesh answers plain names through both.
    os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
    import grpc  # noqa: PLC0415 - late on purpose, see above

    options = (
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.dns_min_time_between_resolutions_ms", 500),
        ("grpc.enable_http_proxy", int(bool(os.environ.get("http_proxy")))),
    )
    return grpc.insecure_channel(target, options=options)
