"""Cross-origin resource sharing."""

from msgspec import Struct

from tulle.model.intent import StringMatch
from tulle.model.origin import Origin


class Cors(Struct, frozen=True):
    """Istio's CorsPolicy."""

    allow_origins: tuple[StringMatch, ...]
    allow_methods: tuple[str, ...]
    allow_headers: tuple[str, ...]
    expose_headers: tuple[str, ...]
    max_age_s: int | None
    allow_credentials: bool | None
    origin: Origin
    forward_unmatched_preflights: bool = True
