"""The one book of the shop, and the answer for every other. Plain values; no I/O."""

import json

from .server import Request, Response

DETAILS = {
    "title": "Light Nets",
    "subtitle": "A Field Guide to Weaving Things Together",
    "author": "Ada Bobbin",
    "publisher": "Selvedge & Daughters",
    "year": 2026,
    "pages": 218,
    "language": "English",
    "binding": "paperback, lies flat",
    "about": "Hexagons, a little air, and no knots where none are needed. Twelve patterns that hold more than they weigh.",
}

REVIEWS = (
    ("Mina Warp", "I opened it on a train and missed my stop. The chapter on untangling is worth the price alone."),
    (
        "Otto Weft",
        "Charming, sometimes sheer. My cat prefers the companion volume on yarn, but I have given away two copies.",
    ),
)

STARS = {"Mina Warp": 5, "Otto Weft": 4}


def asked(request: Request, prefix: str) -> bool:
    """Whether this is a GET of the one product under `prefix`."""
    return request.method in {"GET", "HEAD"} and request.path == f"/{prefix}/0"


def document(value: object, status: int = 200, fields: tuple[tuple[str, str], ...] = ()) -> Response:
    """`value` as a JSON response."""
    return Response(status, json.dumps(value).encode() + b"\n", fields=fields)


def missing(request: Request) -> Response:
    """The answer for a path nobody serves."""
    return document({"error": f"nothing at {request.path}"}, 404)
