"""Shadow traffic."""

from msgspec import Struct

from tulle.model.origin import Origin


class Mirror(Struct, frozen=True):
    """A share of requests is also sent elsewhere; its answers are dropped."""

    host: str
    """Fully qualified."""
    port: int | None
    subset: str
    percent: float
    origin: Origin
    cluster: str = ""
    """Cluster name; the compiler fills it in."""
