"""A kind goes on being followed, whatever we do wrong with one of its objects."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from tulle.kube import reflector
from tulle.kube.discovery import Resource
from tulle.kube.reflector import Batch, Item, Name, Reflector, Trouble

PODS = Resource("", "v1", "pods", "Pod")


class Serving:
    """An API with these pods; a watch says one line per push."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.lists = 0
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def get(self, path: str, query: Mapping[str, str]) -> bytes:
        del path, query
        self.lists += 1
        return json.dumps({"metadata": {"resourceVersion": "1"}, "items": [pod(name) for name in self.names]}).encode()

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        del path, query

        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield await self._lines.get()

        yield pieces()

    def push(self, name: str) -> None:
        self.names.append(name)
        self._lines.put_nowait(json.dumps({"type": "ADDED", "object": pod(name)}).encode() + b"\n")


class Follower:
    """Decodes with faults, as many as are left, and notes what comes."""

    def __init__(self, api: Any, *, faults: int) -> None:
        self.faults = faults
        self.told: list[Exception] = []
        self.there: set[str] = set()
        self.is_synced = asyncio.Event()
        self.over = 0
        self.reflector = Reflector(api, PODS, self._decode, self._deliver, self._troubled)

    def _troubled(self, trouble: Trouble | None) -> None:
        assert trouble is None
        self.over += 1

    def _decode(self, raw: Raw) -> Item:
        name = msgspec.json.decode(raw)["metadata"]["name"]
        if name == "odd" and self.faults:
            self.faults -= 1
            raise ZeroDivisionError(name)
        return Item(Name("shop", name), "1", name)

    def _deliver(self, batch: Batch) -> None:
        self.there |= {item.value for item in batch.sets}
        if batch.is_synced:
            self.is_synced.set()

    async def kept(self) -> "asyncio.Task[None]":
        """Followed and read once."""
        task = asyncio.create_task(self.reflector.keep(self.told.append))
        await self.synced()
        return task

    async def synced(self) -> None:
        async with asyncio.timeout(10):
            await self.is_synced.wait()


def pod(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "AGAIN_S", 0.01)


async def test_a_fault_while_listing_is_told_and_everything_is_listed_again() -> None:
    api = Serving("even", "odd")
    follower = Follower(api, faults=2)
    task = await follower.kept()
    assert [type(one) for one in follower.told] == [ZeroDivisionError, ZeroDivisionError]
    assert (api.lists, follower.over) == (3, 1), "and it is said that the trouble is over"
    assert follower.there == {"even", "odd"}
    task.cancel()


async def test_a_fault_while_watching_is_told_and_everything_is_listed_again() -> None:
    api = Serving("even")
    follower = Follower(api, faults=1)
    task = await follower.kept()
    assert (follower.there, follower.told) == ({"even"}, [])
    follower.is_synced.clear()
    api.push("odd")
    await follower.synced()
    assert [type(one) for one in follower.told] == [ZeroDivisionError]
    assert api.lists == 2
    assert follower.there == {"even", "odd"}
    task.cancel()


async def test_who_is_cancelled_follows_no_more() -> None:
    follower = Follower(Serving("even"), faults=0)
    task = await follower.kept()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert follower.told == []
