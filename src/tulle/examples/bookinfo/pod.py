"""Who this process is, and what it hands on from a request it serves to the requests it makes.

Everything comes from the environment a container gets; nothing here opens a socket.
"""

import os
from typing import NamedTuple

from .http1 import Headers

HANDED_ON = (
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "baggage",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "end-user",
)
"""Trace context (B3, W3C, OpenCensus) and the user: a proxy cannot join a trace that its application cuts."""


class Pod(NamedTuple):
    """The name this process answers with."""

    service: str
    version: str
    name: str

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What every response says about its author."""
        return (("x-service", self.service), ("x-version", self.version), ("x-pod", self.name))

    def say(self, words: str) -> None:
        """Print one line of this process's log, at once."""
        print(f"[{self.service} {self.version}] {words}", flush=True)


def here(service: str) -> Pod:
    """This process as `service`, with VERSION and POD_NAME (or HOSTNAME) from the environment."""
    name = os.environ.get("POD_NAME") or os.environ.get("HOSTNAME") or f"{service}-{os.getpid()}"
    return Pod(service, os.environ.get("VERSION", "v1"), name)


def number(variable: str, default: float) -> float:
    """A number from the environment; exits with a message when it is none."""
    written = os.environ.get(variable, "")
    try:
        return float(written) if written else default
    except ValueError:
        raise SystemExit(f"{variable}={written!r} is not a number") from None


def handed_on(fields: Headers) -> list[tuple[str, str]]:
    """The fields of a request that belong on the requests made for it."""
    return [(name, fields[name]) for name in HANDED_ON if name in fields]
