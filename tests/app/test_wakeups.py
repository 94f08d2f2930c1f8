"""One wake-up for all of gRPC's events that are there."""

import asyncio
from collections.abc import Iterator
from functools import partial
from socket import socket, socketpair

import pytest
from grpc import aio

from tulle.app.wakeups import Loop, run


@pytest.fixture
def pair() -> Iterator[tuple[socket, socket]]:
    ours, theirs = socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Reader:
    """Reads as grpcio's does."""

    def __init__(self, pair: socket) -> None:
        self.pair, self.read = pair, 0

    def _handle_events(self, _loop: asyncio.AbstractEventLoop) -> None:
        self.read += len(self.pair.recv(1))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_bytes_that_wait_together_are_one_wake_up(pair):
    ours, theirs = pair
    reader = Reader(ours)

    async def watch() -> list[int]:
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, partial(reader._handle_events, loop))
        found = []
        for count in (100, 1, 70_000):
            for start in range(0, count, 1_000):
                theirs.send(b"x" * min(1_000, count - start))
            await turns()
            found.append(reader.read)
        loop.remove_reader(ours)
        return found

    assert run(watch()) == [1, 2, 4], "the last are more than are taken at once"
    with pytest.raises(BlockingIOError):
        ours.recv(1)


class Nameless:
    """To be called, but no function."""

    def __init__(self, pair: socket, calls: list[int]) -> None:
        self.pair, self.calls = pair, calls

    def __call__(self) -> None:
        self.calls.append(len(self.pair.recv(1)))


@pytest.mark.parametrize("wrap", [lambda reader: reader, partial, lambda reader: reader.__call__])
def test_other_readers_are_called_as_ever(pair, wrap):
    ours, theirs = pair
    calls: list[int] = []

    async def watch() -> None:
        asyncio.get_running_loop().add_reader(ours, wrap(Nameless(ours, calls)))
        theirs.send(b"abc")
        await turns()
        asyncio.get_running_loop().remove_reader(ours)

    run(watch())
    assert calls == [1, 1, 1]


def test_grpcio_still_reads_the_way_that_is_meant():
    async def serve() -> list[str]:
        server = aio.server()
        server.add_insecure_port("127.0.0.1:0")
        await server.start()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        readers = [key.data[0] for key in loop._selector.get_map().values()]
        await server.stop(None)
        return [getattr(handle._callback, "func", handle._callback).__name__ for handle in readers if handle]

    assert "_once_for_all" in run(serve())
