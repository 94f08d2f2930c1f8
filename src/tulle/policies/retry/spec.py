"""Trying again."""

from msgspec import Struct

from tulle.model.origin import Origin


class Retry(Struct, frozen=True):
    """Istio's HTTPRetry."""

    attempts: int
    """Further attempts after the first; 0: none."""
    per_try_timeout_ms: int | None
    retry_on: str
    """Envoy's x-envoy-retry-on words, comma separated; status codes allowed."""
    origin: Origin
    ignore_previous_hosts: bool = True
    backoff_ms: int | None = None
    repeats_lost: bool = False
    """Also where the connection broke after the request was sent, if its method may be repeated."""
