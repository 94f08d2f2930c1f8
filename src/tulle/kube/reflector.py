"""One kind, followed: performs the actions of `following.step`, and delivers what is there and what changed.

Adapter. Knows no kinds: the caller decodes objects, as cheaply as it likes, and is told keys that are gone. Holds keys only, never
objects. Its task lives until it is cancelled: no answer of the API ends it, and no fault of ours ends `keep`.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from time import monotonic
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from tulle.kube.access import Access, refusal_of
from tulle.kube.discovery import Resource
from tulle.kube.errors import KubeError, Refused
from tulle.kube.following import (
    Action,
    Begun,
    Collect,
    Ended,
    Event,
    Failed,
    Failure,
    Following,
    LinesRead,
    ListPage,
    PageRead,
    Settle,
    Sleep,
    Watch,
    Woken,
    step,
)

PAGE = 500
"""Objects in a page of a list (kubectl's number)."""
WATCH_S = (300, 600)
"""A watch is opened anew after a time between these, so that connections spread over API servers."""
AGAIN_S = 5.0
"""A kind that we failed to follow, by a fault of our own, is followed again after this."""
MAX_LINE_BYTES = 32 * 1024 * 1024
"""etcd takes objects of 1.5 MiB; anything this long is not one."""

_FAILURES = {
    400: Failure.UNSUITED,
    401: Failure.DENIED,
    403: Failure.DENIED,
    404: Failure.ABSENT,
    405: Failure.ABSENT,
    410: Failure.GONE,
    422: Failure.UNSUITED,
    429: Failure.BUSY,
}


class Name(NamedTuple):
    """An object of the kind."""

    namespace: str
    name: str


class Item(Struct):
    """A decoded object."""

    name: Name
    version: str
    """Its resourceVersion."""
    value: Any
    """The caller's; None: the caller passes it over."""


class Batch(Struct):
    """What was read in one go."""

    sets: list[Item]
    deletes: list[Name]
    is_synced: bool = False
    """Everything there was has been delivered with this batch."""


class Trouble(Struct, frozen=True):
    """What keeps a kind from being followed."""

    failure: Failure
    error: KubeError


class Selection(Struct, frozen=True):
    """Which objects of a kind."""

    namespace: str = ""
    """Empty: all."""
    labels: str = ""
    """A label selector as in a URL."""
    fields: str = ""
    """A field selector, such as `status.phase!=Failed` or `metadata.name=x`."""

    def query(self) -> dict[str, str]:
        """As parameters of a list or watch."""
        found = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: value for name, value in found.items() if value}


class _Event(Struct):
    type: str
    object: Raw


class _Metadata(Struct):
    name: str = ""
    namespace: str = ""
    version: str = msgspec.field(name="resourceVersion", default="")


class _Bare(Struct):
    metadata: _Metadata


class _ListMetadata(Struct):
    version: str = msgspec.field(name="resourceVersion", default="")
    more: str = msgspec.field(name="continue", default="")


class _List(Struct):
    metadata: _ListMetadata
    items: list[Raw] | None = None


_EVENT = msgspec.json.Decoder(_Event)
_BARE = msgspec.json.Decoder(_Bare)
_LIST = msgspec.json.Decoder(_List)


class Reflector:
    """Follows one selection of one kind while `run` or `keep` runs."""

    def __init__(
        self,
        access: Access,
        resource: Resource,
        decode: Callable[[Raw], Item],
        deliver: Callable[[Batch], None],
        on_trouble: Callable[[Trouble | None], None],
        *,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        known: Iterable[Name] = (),
    ) -> None:
        """`known`: what the caller holds already. `decode` raises MsgspecError for what is no object at all; `on_trouble` gets None once the trouble is over."""
        self.resource = resource
        self.selection = selection
        self._access = access
        self._decode = decode
        self._deliver = deliver
        self._on_trouble = on_trouble
        self._is_troubled = False
        self._known: set[Name] = set(known)
        self._seen: set[Name] | None = None
        self.undecodable = 0
        """Lines that were no objects: a fault of the API server or of ours."""

    async def run(self) -> None:
        """Follow until cancelled; called again, it reads everything again and knows what is gone."""
        state = Following()
        state, actions = step(state, Begun())
        task = self._local(actions)
        while task is not None:
            current, task = task, None
            async with aclosing(self._performed(current)) as events:
                async for event in events:
                    state, actions = step(state, event)
                    task = self._local(actions)
                    if task is not None:
                        break

    async def keep(self, on_fault: Callable[[Exception], None]) -> None:
        """`run` again and again until cancelled; `on_fault` is told what we did wrong ourselves."""
        while True:
            try:
                await self.run()
            except Exception as error:  # noqa: BLE001 - a fault of ours on one object must not end the watch of its kind
                self._is_troubled = True
                on_fault(error)
                await asyncio.sleep(AGAIN_S)

    @property
    def known(self) -> frozenset[Name]:
        """What was delivered and is not gone."""
        return frozenset(self._known)

    def _local(self, actions: tuple[Action, ...]) -> ListPage | Watch | Sleep | None:
        for action in actions:
            match action:
                case Collect():
                    self._seen = set()
                case Settle():
                    self._settle()
                case _:
                    return action
        return None

    def _settle(self) -> None:
        seen = self._seen if self._seen is not None else set(self._known)
        gone = sorted(self._known - seen)
        self._known, self._seen = seen, None
        self._deliver(Batch([], gone, is_synced=True))

    async def _performed(self, action: ListPage | Watch | Sleep) -> AsyncGenerator[Event]:
        try:
            match action:
                case Sleep(seconds=seconds):
                    await asyncio.sleep(seconds)
                    yield Woken()
                case ListPage(more=more):
                    yield await self._listed(more)
                case Watch():
                    async with aclosing(self._watched(action)) as events:
                        async for event in events:
                            yield event
        except KubeError as error:
            yield self._failure(error)

    async def _listed(self, more: str) -> Event:
        query = {"limit": str(PAGE), **self.selection.query(), **({"continue": more} if more else {})}
        body = await self._access.get(self._path, query)
        try:
            page = _LIST.decode(body)
        except msgspec.MsgspecError:
            self.undecodable += 1
            return Failed(Failure.BROKEN, _jitter())
        sets = [item for raw in page.items or () if (item := self._decoded(raw)) is not None]
        self._hand_over(sets, [])
        self._recovered()
        return PageRead(page.metadata.version, page.metadata.more)

    async def _watched(self, watch: Watch) -> AsyncGenerator[Event]:
        query = {"watch": "true", "allowWatchBookmarks": "true", **self.selection.query()}
        query["timeoutSeconds"] = str(random.randint(*WATCH_S))  # noqa: S311 - spreads load
        query["resourceVersion"] = watch.version
        begun = monotonic()
        async with self._access.stream(self._path, query) as pieces:
            self._recovered()
            async for lines in _lines(pieces):
                yield self._taken(lines)
        yield Ended(monotonic() - begun, _jitter())

    def _taken(self, lines: list[bytes]) -> Event:
        sets: dict[Name, Item] = {}
        deletes: dict[Name, None] = {}
        version, ended = "", None
        for line in lines:
            try:
                event = _EVENT.decode(line)
                if event.type in ("ADDED", "MODIFIED"):
                    item = self._decode(event.object)
                    sets[item.name], version = item, item.version
                    deletes.pop(item.name, None)
                    continue
                if event.type == "ERROR":
                    ended = self._failure(refusal_of(self._path, bytes(event.object)))
                    break
                metadata = _BARE.decode(event.object).metadata
            except msgspec.MsgspecError:
                self.undecodable += 1
                continue
            version = metadata.version
            if event.type == "DELETED":
                name = Name(metadata.namespace, metadata.name)
                sets.pop(name, None)
                deletes[name] = None
        self._hand_over(list(sets.values()), list(deletes))
        return ended or LinesRead(version)

    def _hand_over(self, sets: list[Item], deletes: list[Name]) -> None:
        for held in (self._known, self._seen):
            if held is not None:
                held.update(item.name for item in sets)
                held.difference_update(deletes)
        if sets or deletes:
            self._deliver(Batch(sets, deletes))

    def _decoded(self, raw: Raw) -> Item | None:
        try:
            return self._decode(raw)
        except msgspec.MsgspecError:
            self.undecodable += 1
            return None

    def _failure(self, error: KubeError) -> Failed:
        failure, after_s = Failure.BROKEN, 0.0
        if isinstance(error, Refused):
            failure, after_s = _FAILURES.get(error.status, Failure.BROKEN), error.retry_after_s
        if failure is not Failure.GONE:
            self._is_troubled = True
            self._on_trouble(Trouble(failure, error))
        return Failed(failure, _jitter(), after_s)

    def _recovered(self) -> None:
        if self._is_troubled:
            self._is_troubled = False
            self._on_trouble(None)

    @property
    def _path(self) -> str:
        return self.resource.path(self.selection.namespace)


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """The whole lines of each piece. What is left at the end is half a line, and dropped."""
    tail: list[bytes] = []
    held = 0
    async for piece in pieces:
        first, *rest = piece.split(b"\n")
        tail.append(first)
        held += len(first)
        if not rest:
            if held > MAX_LINE_BYTES:
                return
            continue
        last = rest.pop()
        whole = [line for line in (b"".join(tail), *rest) if line]
        tail, held = [last], len(last)
        if whole:
            yield whole


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads load
