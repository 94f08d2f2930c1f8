"""productpage: the shop window. HTTP on PORT: `/productpage`, `/api/v1/products/0`, `/login`, `/logout`, `/live`, `/health`.

Asks details and reviews by their plain names (DETAILS_URL, REVIEWS_URL) and joins `/live` to ratings (RATINGS_URL) byte
by byte. When a neighbour does not answer, the page says so and its status is 502: a load test must be able to see it.
"""

import json
import os
import select
import sys
import threading
import time
from typing import NamedTuple

from . import page, shelf
from .client import Client, Reply
from .http1 import Headers, Link
from .pod import Pod, handed_on, here
from .server import Request, Response, Upgrade, serve

_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_UPGRADE_FIELDS = ("sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol")
_FAREWELL = 0.3


class Answer(NamedTuple):
    """What a neighbour said: its document, or the error that took its place."""

    document: dict[str, object]
    error: str


class ProductPage:
    """The pages, made of two answers each."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self._details = Client(os.environ.get("DETAILS_URL", "http://details:9080"))
        self._reviews = Client(os.environ.get("REVIEWS_URL", "http://reviews:9080"))
        self._ratings = Client(os.environ.get("RATINGS_URL", "http://ratings:9080"))

    def answer(self, request: Request) -> Response | Upgrade:
        """Everything a browser asks for."""
        if request.path == "/live":
            return self._live(request)
        if request.path == "/login" and request.method == "POST":
            return _signed_in(request.body.decode("latin-1"))
        if request.path == "/logout" and request.method == "POST":
            return _back("session=; Path=/; Max-Age=0")
        if request.path == "/health":
            return shelf.document({"ok": True})
        if request.method not in {"GET", "HEAD"}:
            return shelf.document({"error": f"{request.method} is not served here"}, 405)
        if request.path in {"/", "/productpage"}:
            return self._page(request)
        if request.path == "/api/v1/products/0":
            details, reviews = self._asked(request.fields)
            whole = {"pod": self.pod.name, "details": _shown(details), "reviews": _shown(reviews)}
            return shelf.document(whole, _status(details, reviews), _authors(details, reviews))
        return shelf.missing(request)

    def _page(self, request: Request) -> Response:
        details, reviews = self._asked(request.fields)
        html = page.render(
            pod=self.pod,
            user=_user(request.fields),
            details=details.document,
            reviews=reviews.document,
            errors={"details": details.error, "reviews": reviews.error},
        )
        status, authors = _status(details, reviews), _authors(details, reviews)
        return Response(status, html.encode(), "text/html; charset=utf-8", (*authors, ("cache-control", "no-store")))

    def _asked(self, fields: Headers) -> tuple[Answer, Answer]:
        user = _user(fields)
        onward = [(name, value) for name, value in handed_on(fields) if name != "end-user"]
        if user:
            onward.append(("end-user", user))
        return (
            _understood(self._details.get("/details/0", onward)),
            _understood(self._reviews.get("/reviews/0", onward)),
        )

    def _live(self, request: Request) -> Response | Upgrade:
        if "websocket" not in request.fields.get("upgrade", "").lower():
            return Response(426, b"speak WebSocket here\n", "text/plain", (("upgrade", "websocket"),))
        asked = [(name, request.fields[name]) for name in _UPGRADE_FIELDS if name in request.fields]
        fields = [("connection", "Upgrade"), ("upgrade", "websocket"), *asked, *handed_on(request.fields)]
        reply, upstream = self._ratings.upgraded("/live", fields)
        if upstream is None:
            return shelf.document({"error": f"ratings: {_why(reply)}"}, 502)
        given = tuple((name, reply.fields[name]) for name in ("sec-websocket-accept",) if name in reply.fields)
        fields_back = (("upgrade", "websocket"), ("connection", "Upgrade"), *given)
        return Upgrade(fields_back, lambda link, stopping: splice(link, upstream, stopping))


def splice(left: Link, right: Link, stopping: threading.Event) -> None:
    """Carry bytes both ways until one side ends, or until shortly after `stopping`; closes `right`."""
    other = {left.sock.fileno(): (left, right), right.sock.fileno(): (right, left)}
    poll = select.poll()
    for number in other:
        poll.register(number, select.POLLIN)
    stop_at = float("inf")
    try:
        left.send(right.taken())
        right.send(left.taken())
        while time.monotonic() < stop_at:
            if stopping.is_set():
                stop_at = min(stop_at, time.monotonic() + _FAREWELL)
            for ready, _ in poll.poll(100):
                source, sink = other[ready]
                received = source.sock.recv(65536)
                if not received:
                    return
                sink.send(received)
    finally:
        right.close()


def _understood(reply: Reply) -> Answer:
    if reply.status != 200:
        return Answer({}, _why(reply))
    try:
        document = json.loads(reply.body)
    except ValueError as error:
        return Answer({}, f"not JSON: {error}")
    return Answer(document, "") if isinstance(document, dict) else Answer({}, "not a JSON object")


def _why(reply: Reply) -> str:
    said = reply.body.decode("utf-8", "replace").strip()[:200]
    return f"{reply.status} {said}".strip() if reply.status else said


def _shown(answer: Answer) -> dict[str, object]:
    return {"error": answer.error} if answer.error else answer.document


def _status(*answers: Answer) -> int:
    return 502 if any(answer.error for answer in answers) else 200


def _authors(details: Answer, reviews: Answer) -> tuple[tuple[str, str], ...]:
    """Which pods made this page, and whether stars are missing that should be there."""
    ratings = reviews.document.get("ratings", {})
    given = {
        "x-details-pod": details.document.get("pod"),
        "x-reviews-pod": reviews.document.get("pod"),
        "x-reviews-version": reviews.document.get("version"),
        "x-ratings-pod": ratings.get("pod") if isinstance(ratings, dict) else None,
        "x-ratings-error": ratings.get("error") if isinstance(ratings, dict) else None,
    }
    return tuple((name, " ".join(str(value).split())) for name, value in given.items() if value)


def _user(fields: Headers) -> str:
    """Who asks: the `end-user` header, else the cookie of `/login`. A demo's sign-in: it proves nothing."""
    if named := fields.get("end-user"):
        return _plain(named)
    for crumb in fields.get("cookie", "").split(";"):
        name, _, value = crumb.strip().partition("=")
        if name == "session":
            return _plain(value)
    return ""


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter in _NAME_LETTERS)[:32]


def _signed_in(form: str) -> Response:
    for pair in form.split("&"):
        name, _, value = pair.partition("=")
        if name == "user" and (user := _plain(value)):
            return _back(f"session={user}; Path=/; HttpOnly; SameSite=Lax")
    return _back()


def _back(cookie: str = "") -> Response:
    fields = (("location", "/productpage"),) + ((("set-cookie", cookie),) if cookie else ())
    return Response(303, b"", "text/plain", fields)


def main() -> int:
    """Run the service."""
    pages = ProductPage(here("productpage"))
    return serve(pages.pod, pages.answer)


if __name__ == "__main__":
    sys.exit(main())
