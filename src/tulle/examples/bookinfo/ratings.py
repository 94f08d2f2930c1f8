"""ratings: how many stars. gRPC on GRPC_PORT for reviews; HTTP on PORT: `/ratings/0`, `/live` (WebSocket), `/health`.

`/live` and the gRPC method `Watch` tick once per LIVE_INTERVAL seconds with what has been served so far.
"""

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from . import rpc, shelf, websocket
from .pod import Pod, here, number
from .server import Request, Response, Upgrade, serve

if TYPE_CHECKING:
    import grpc

_WATCHERS = 16
_WORKERS = 32


class Ratings:
    """The stars, and counts of who asked for them."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.interval = max(0.01, number("LIVE_INTERVAL", 1.0))
        self.leaving = threading.Event()
        self._served = itertools.count(1)
        self._last = 0
        self._watchers = threading.Semaphore(_WATCHERS)

    def stars(self) -> rpc.Message:
        """The current stars; counted."""
        self._last = next(self._served)
        return {"stars": shelf.STARS, "version": self.pod.version, "pod": self.pod.name}

    def tick(self, number: int) -> rpc.Message:
        """One line of the live ticker."""
        return {"tick": number, "served": self._last, "pod": self.pod.name, "at": round(time.time(), 3)}

    def answer(self, request: Request) -> Response | Upgrade:
        """The HTTP side."""
        if shelf.asked(request, "ratings"):
            return shelf.document({"id": 0, **self.stars()})
        if request.path == "/live":
            ticks = itertools.count(1)
            return websocket.accept(
                request,
                tick=lambda: json.dumps(self.tick(next(ticks))),
                reply=lambda text: json.dumps({"heard": text[:200], "pod": self.pod.name}),
                interval=self.interval,
            )
        if request.path == "/health":
            return shelf.document({"ok": True})
        return shelf.missing(request)

    def get(self, request: rpc.Message, context: "grpc.ServicerContext") -> rpc.Message:
        """`bookinfo.v1.Ratings/Get`."""
        import grpc  # noqa: PLC0415 - loaded long ago by `listen`

        if request.get("product") != 0:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is one product, and its number is 0")
        context.set_trailing_metadata((("x-pod", self.pod.name), ("x-version", self.pod.version)))
        return self.stars()

    def watch(self, _request: rpc.Message, context: "grpc.ServicerContext") -> Iterator[rpc.Message]:
        """`bookinfo.v1.Ratings/Watch`: each stream holds a worker, so their number is bounded."""
        import grpc  # noqa: PLC0415 - loaded long ago by `listen`

        if not self._watchers.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_WATCHERS} are watching already")
        try:
            for number in itertools.count(1):
                if self.leaving.wait(self.interval) or not context.is_active():
                    return
                yield self.tick(number)
        finally:
            self._watchers.release()

    def listen(self) -> Callable[[], None]:
        """Start the gRPC side; returns what stops it."""
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - HTTP listens before these load

        import grpc  # noqa: PLC0415

        methods: dict[str, grpc.RpcMethodHandler[rpc.Message, rpc.Message]] = {
            "Get": grpc.unary_unary_rpc_method_handler(self.get, rpc.decode, rpc.encode),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, rpc.decode, rpc.encode),
        }
        server = grpc.server(ThreadPoolExecutor(_WORKERS))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc.SERVICE, methods),))
        bind = os.environ.get("BIND_ADDRESS", "0.0.0.0")
        port = server.add_insecure_port(f"{bind}:{int(number('GRPC_PORT', 9081))}")
        server.start()
        self.pod.say(f"listening grpc={port}")

        def finish() -> None:
            self.leaving.set()
            server.stop(grace=1.0).wait(1.0)

        return finish


def main() -> int:
    """Run the service."""
    ratings = Ratings(here("ratings"))
    return serve(ratings.pod, ratings.answer, load=ratings.listen)


if __name__ == "__main__":
    sys.exit(main())
