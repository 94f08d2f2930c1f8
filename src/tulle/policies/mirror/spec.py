"""Shadow traffic."""

from msgspec import Struct

from tulle.model.intent import Target
from tulle.model.origin import Origin


class Mirror(Struct, frozen=True):
    """A share of requests is also sent elsewhere; its answers are dropped."""

    target: Target
    percent: float
    origin: Origin
