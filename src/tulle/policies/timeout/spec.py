"""A bound on the whole request."""

from msgspec import Struct

from tulle.model.origin import Origin


class Timeout(Struct, frozen=True):
    """Time from the last byte of the request to the last byte of the response, retries included."""

    after_ms: int
    """0: no bound (Envoy route.timeout)."""
    origin: Origin
