"""How many bytes of responses may be on their way at once: when hundreds of clients start together, they take turns.

A client that does not read keeps its place for a second only, so a frozen one delays nobody. Knows no gRPC.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

ROOM_BYTES = 48 * 1024 * 1024
SMALL_BYTES = 64 * 1024
"""What is smaller never waits: an edit's push must not queue behind somebody's start."""
PATIENCE_S = 1.0
"""A write that takes longer no longer counts."""


class Valve:
    """Shared by all streams of a process."""

    def __init__(self, room: int = ROOM_BYTES) -> None:
        self._room = room
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def write(self, parts: tuple[bytes, ...], write: Callable[[bytes], Awaitable[None]]) -> None:
        """Join the parts when there is room for them, and write them. Raises what `write` raises."""
        size = sum(map(len, parts))
        if size < SMALL_BYTES:
            await write(b"".join(parts))
            return
        while self._room <= 0:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self.give_back(0)  # the turn may have come in the same moment: the next one's, then
                raise
        self._room -= size
        self.give_back(0)  # one was woken: the next may go, too, while there is room
        place = _Place(self, size)
        try:
            await write(b"".join(parts))
        finally:
            place.leave()

    def give_back(self, size: int) -> None:
        """Room for others."""
        self._room += size
        while self._waiting and self._room > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class _Place:
    """Room taken by one write until it is done, or has taken too long."""

    def __init__(self, valve: Valve, size: int) -> None:
        self._valve = valve
        self._size = size
        self._is_held = True
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self.leave)

    def leave(self) -> None:
        """Once; later calls do nothing."""
        if self._is_held:
            self._is_held = False
            self._timer.cancel()
            self._valve.give_back(self._size)
