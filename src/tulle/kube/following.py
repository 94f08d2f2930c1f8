"""How one kind is followed: read everything, then watch, and what to do when that breaks. Pure: a step without clock or socket.

Everything is read by a watch that begins with what there is (`sendInitialEvents`, Kubernetes 1.32 and later), which neither side has
to hold in memory as a whole; where the API does not know that, by a list in pages. `reflector.py` performs the actions and keeps
the objects. At most one action of a step does I/O (`ListPage`, `Watch`, `Sleep`), and it is the last.
Source: Kubernetes API concepts, "Efficient detection of changes", "Streaming lists", "410 Gone".
"""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

FIRST_S = 0.2
MOST_S = 5.0
"""Longest wait after a broken connection: an API server that is back is noticed within it."""
DENIED_S = 30.0
"""Wait where a right is missing; it may be granted."""
QUICK_S = 1.0
"""A watch that ends sooner, having said nothing, counts as a failure: some proxy between us and the API closes it."""
_DOUBLINGS = 8


class Failure(StrEnum):
    """Why a request or a watch ended badly."""

    GONE = "gone"
    """410: the version is too old to watch from."""
    ABSENT = "absent"
    """404: the kind is not served (any more, or not yet)."""
    DENIED = "denied"
    """401, 403."""
    BUSY = "busy"
    """429: too many requests."""
    UNSUITED = "unsuited"
    """400, 422: the API does not know the way we ask."""
    BROKEN = "broken"
    """No answer, a broken connection, 5xx."""


class Following(Struct, frozen=True):
    """Where we are."""

    version: str = ""
    """resourceVersion to watch from."""
    is_reading: bool = True
    """Whether everything is still to be read, for the first time or again."""
    can_stream: bool = True
    failures: int = 0
    """In a row."""


# --- events ---------------------------------------------------------------------------------------------------------


class Begun(Struct, frozen=True):
    """Start."""


class PageRead(Struct, frozen=True):
    """A page of a list was read."""

    version: str
    more: str
    """The token of the next page; empty: this was the last."""


class LinesRead(Struct, frozen=True):
    """Events of a watch were read."""

    version: str
    """The newest; empty: none of them had one."""
    is_complete: bool = False
    """Whether one of them said that everything there is has been sent."""


class Ended(Struct, frozen=True):
    """A watch ended in good order."""

    lived_s: float
    jitter: float


class Failed(Struct, frozen=True):
    """A request or a watch ended badly."""

    failure: Failure
    jitter: float
    """Of [0, 1): thrown by the adapter."""
    after_s: float = 0.0
    """What the API asked us to wait."""


class Woken(Struct, frozen=True):
    """A Sleep is over."""


Event = Begun | PageRead | LinesRead | Ended | Failed | Woken


# --- actions --------------------------------------------------------------------------------------------------------


class Collect(Struct, frozen=True):
    """From now on everything there is comes: note what comes."""


class Settle(Struct, frozen=True):
    """Everything there is has come: what did not come is gone."""


class ListPage(Struct, frozen=True):
    """Read a page of a list."""

    more: str


class Watch(Struct, frozen=True):
    """Open a watch."""

    version: str
    is_initial: bool
    """Whether it is to begin with everything there is."""


class Sleep(Struct, frozen=True):
    """Wait."""

    seconds: float


Action = Collect | Settle | ListPage | Watch | Sleep
Stepped = tuple[Following, tuple[Action, ...]]


def step(state: Following, event: Event) -> Stepped:
    """What follows from an event."""
    match event:
        case Begun() | Woken():
            return _resumed(state)
        case PageRead(version=version, more=more):
            return _page(state, version, more)
        case LinesRead(version=version, is_complete=is_complete):
            return _lines(state, version, is_complete=is_complete)
        case Ended(lived_s=lived_s, jitter=jitter):
            if state.is_reading or lived_s < QUICK_S:
                return _failed(state, Failed(Failure.BROKEN, jitter))
            return _resumed(state)
        case Failed():
            return _failed(state, event)


def _resumed(state: Following) -> Stepped:
    if not state.is_reading:
        return state, (Watch(state.version, is_initial=False),)
    begin: Action = Watch("", is_initial=True) if state.can_stream else ListPage("")
    return replace(state, version=""), (Collect(), begin)


def _page(state: Following, version: str, more: str) -> Stepped:
    if more:
        return state, (ListPage(more),)
    state = replace(state, version=version, is_reading=False, failures=0)
    return state, (Settle(), Watch(version, is_initial=False))


def _lines(state: Following, version: str, *, is_complete: bool) -> Stepped:
    state = replace(state, version=version or state.version, failures=0)
    if is_complete and state.is_reading:
        return replace(state, is_reading=False), (Settle(),)
    return state, ()


def _failed(state: Following, event: Failed) -> Stepped:
    if event.failure is Failure.UNSUITED and state.is_reading and state.can_stream:
        return _resumed(replace(state, can_stream=False))
    is_first = state.failures == 0
    state = replace(state, failures=min(state.failures + 1, _DOUBLINGS))
    if event.failure in (Failure.GONE, Failure.UNSUITED):
        state = replace(state, is_reading=True, version="")
        if is_first:
            return _resumed(state)
    if event.failure is Failure.DENIED:
        return state, (Sleep(DENIED_S * (0.5 + event.jitter / 2)),)
    wait_s = min(FIRST_S * 2 ** (state.failures - 1), MOST_S) * (0.5 + event.jitter / 2)
    return state, (Sleep(max(wait_s, event.after_s)),)
