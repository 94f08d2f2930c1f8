"""reviews: what readers say. HTTP on PORT: `/reviews/0`, `/health`. VERSION decides how stars look.

v1 shows none and calls nobody; v2 (black) and v3 (red) ask ratings over gRPC at RATINGS_GRPC.
"""

import os
import sys
from collections.abc import Callable

from . import rpc, shelf
from .http1 import Headers
from .pod import Pod, handed_on, here
from .server import Request, Response, serve

COLOURS = {"v1": None, "v2": "black", "v3": "red"}
_PATIENCE = 2.0


class Stars:
    """The stars from ratings, or the reason why there are none."""

    def __init__(self, target: str) -> None:
        import grpc  # noqa: PLC0415 - v1 never needs it

        self._call = rpc.channel(target).unary_unary(
            rpc.GET, request_serializer=rpc.encode, response_deserializer=rpc.decode
        )
        self._error = grpc.RpcError

    def ask(self, fields: Headers) -> rpc.Message:
        """{"stars": …, "pod": …} or {"error": …}; waits at most two seconds, also for a connection."""
        try:
            return self._call({"product": 0}, timeout=_PATIENCE, metadata=tuple(handed_on(fields)), wait_for_ready=True)
        except self._error as error:
            return {"error": f"{error.code().name}: {error.details()}"}


class Reviews:
    """One version of the service."""

    def __init__(self, pod: Pod) -> None:
        if pod.version not in COLOURS:
            raise SystemExit(f"VERSION={pod.version!r}: reviews come as {', '.join(COLOURS)}")
        self.pod = pod
        self._colour = COLOURS[pod.version]
        self._stars: Stars | None = None

    def connect(self) -> Callable[[], None]:
        """Load gRPC where this version has stars; there is nothing to undo."""
        if self._colour:
            self._stars = Stars(os.environ.get("RATINGS_GRPC", "ratings:9081"))
        return lambda: None

    def answer(self, request: Request) -> Response:
        """The HTTP side."""
        if shelf.asked(request, "reviews"):
            return shelf.document(self._written(self._stars.ask(request.fields) if self._stars else {}))
        if request.path == "/health":
            return shelf.document({"ok": True})
        return shelf.missing(request)

    def _written(self, given: rpc.Message) -> rpc.Message:
        stars = given.get("stars", {})
        reviews = []
        for reviewer, text in shelf.REVIEWS:
            review: rpc.Message = {"reviewer": reviewer, "text": text}
            if self._colour and isinstance(stars, dict) and reviewer in stars:
                review["rating"] = {"stars": stars[reviewer], "colour": self._colour}
            reviews.append(review)
        document: rpc.Message = {"id": 0, "version": self.pod.version, "pod": self.pod.name, "reviews": reviews}
        if self._colour:
            document["ratings"] = {name: given[name] for name in ("pod", "version", "error") if name in given}
        return document


def main() -> int:
    """Run the service."""
    reviews = Reviews(here("reviews"))
    return serve(reviews.pod, reviews.answer, load=reviews.connect)


if __name__ == "__main__":
    sys.exit(main())
