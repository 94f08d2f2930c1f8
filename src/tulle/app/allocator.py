"""Memory that is not in use goes back to the system: glibc keeps what hundreds of starting proxies needed for a moment.

Knows glibc alone; elsewhere nothing happens. When to ask for it is `control_plane`'s.
"""

import ctypes
import sys
from collections.abc import Callable

_ARENA_MAX = -8
"""M_ARENA_MAX of mallopt(3)."""
ARENAS = 2
"""gRPC's threads would get one each, up to eight per core, and each keeps what it once needed."""


def few_arenas() -> None:
    """Call it before threads are started. Source: mallopt(3)."""
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_ARENA_MAX, ARENAS)


def trim() -> None:
    """Give back what is free: 20 to 50 ms of CPU for half a GiB in small pieces. Source: malloc_trim(3)."""
    if (malloc_trim := _function("malloc_trim")) is not None:
        malloc_trim(0)


def _function(name: str) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return found
