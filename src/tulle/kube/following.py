"""How one kind is followed: read everything, then watch, and what to do when that breaks. Pure: a step without clock or socket.

Everything is read as a list in pages, not as a watch that begins with what there is (`sendInitialEvents`): pages come compressed and
many objects at a time, events one by one and as they are, which costs both sides many times as much. `reflector.py` performs the
actions and keeps the keys. At most one action of a step does I/O (`ListPage`, `Watch`, `Sleep`), and it is the last.
Source: Kubernetes API concepts, "Efficient detection of changes", "Retrieving large results sets in chunks", "410 Gone".
"""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

FIRST_S = 0.2
MOST_S = 5.0
"""Longest wait after a broken connection: an API server that is back is noticed within it."""
DENIED_S = (1.0, 30.0)
"""Wait where a right is missing, at first and at most: it may be granted in a moment, as ours to a gateway's Secrets is."""
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
    """400, 422: the API makes nothing of the version or the page we name."""
    BROKEN = "broken"
    """No answer, a broken connection, 5xx."""


class Following(Struct, frozen=True):
    """Where we are."""

    version: str = ""
    """resourceVersion to watch from."""
    is_reading: bool = True
    """Whether everything is still to be read, for the first time or again."""
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
    """Open a watch from a version on."""

    version: str


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
        case LinesRead(version=version):
            return replace(state, version=version or state.version, failures=0), ()
        case Ended(lived_s=lived_s, jitter=jitter):
            if lived_s < QUICK_S:
                return _failed(state, Failed(Failure.BROKEN, jitter))
            return _resumed(replace(state, failures=0))
        case Failed():
            return _failed(state, event)


def _resumed(state: Following) -> Stepped:
    if not state.is_reading:
        return state, (Watch(state.version),)
    return replace(state, version=""), (Collect(), ListPage(""))


def _page(state: Following, version: str, more: str) -> Stepped:
    if more:
        return state, (ListPage(more),)
    # Failures count on: a list that works and a watch that never does must not follow each other without a pause.
    return replace(state, version=version, is_reading=False), (Settle(), Watch(version))


def _failed(state: Following, event: Failed) -> Stepped:
    is_first = state.failures == 0
    state = replace(state, failures=min(state.failures + 1, _DOUBLINGS))
    if event.failure in (Failure.GONE, Failure.UNSUITED):
        state = replace(state, is_reading=True, version="")
        if is_first:
            return _resumed(state)
    first_s, most_s = DENIED_S if event.failure is Failure.DENIED else (FIRST_S, MOST_S)
    wait_s = min(first_s * 2 ** (state.failures - 1), most_s) * (0.5 + event.jitter / 2)
    return state, (Sleep(max(wait_s, event.after_s)),)
