"""An event loop that gRPC wakes once for all it has ready, not once for each.

gRPC's own thread writes a byte into a pair of sockets per event; the reader takes one byte and handles every event there is, so the bytes
left over wake the loop for nothing: a twelfth of the time of a push to 500 sidecars (docs/decisions/0010). Where grpcio does it in another
way, nothing is different from asyncio's loop.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from socket import MSG_PEEK, socket
from typing import Any, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")
_READER = "_handle_events"
"""What grpcio calls its reader; it reads one byte, and then handles events until there are none."""
_MOST_BYTES = 1 << 16


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own, but for gRPC's reader."""

    def add_reader(self, fd: Any, callback: Callable[[*_Args], Any], *args: *_Args) -> None:
        """As asyncio's."""
        if isinstance(fd, socket) and isinstance(callback, partial) and _name(callback.func) == _READER:
            reader: Any = partial(_once_for_all, fd, callback)
            super().add_reader(fd, reader, *args)
        else:
            super().add_reader(fd, callback, *args)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """As `asyncio.run`, in such a loop."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


def _once_for_all(pair: socket, callback: Callable[..., object], *args: Any) -> None:
    waiting = len(pair.recv(_MOST_BYTES, MSG_PEEK))
    if waiting > 1:  # their events were there before they were written: the callback meets them
        pair.recv(waiting - 1)
    callback(*args)


def _name(function: object) -> str:
    return str(getattr(function, "__name__", ""))
