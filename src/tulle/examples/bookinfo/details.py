"""details: what the book is. HTTP on PORT: `/details/0`, `/health`."""

import sys

from . import shelf
from .pod import here
from .server import Request, Response, serve


def main() -> int:
    """Run the service."""
    pod = here("details")

    def answer(request: Request) -> Response:
        if shelf.asked(request, "details"):
            return shelf.document({"id": 0, **shelf.DETAILS, "version": pod.version, "pod": pod.name})
        if request.path == "/health":
            return shelf.document({"ok": True})
        return shelf.missing(request)

    return serve(pod, answer)


if __name__ == "__main__":
    sys.exit(main())
