"""Header operations."""

from msgspec import Struct

from tulle.model.keys import Labels
from tulle.model.origin import Origin


class Headers(Struct, frozen=True):
    """Istio's Headers, on a rule or on one target of it."""

    request_set: Labels
    request_add: Labels
    request_remove: tuple[str, ...]
    response_set: Labels
    response_add: Labels
    response_remove: tuple[str, ...]
    origin: Origin
