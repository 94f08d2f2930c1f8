"""Writes to the API: what should stand there, one wish per object, only on change, at a bounded rate, and by the leader alone.

Adapter. The queue holds the newest wish of each object; who wishes again replaces what waits. A wish carries a fingerprint of what is
wanted: the same one, once written, costs nothing. Status is read, judged by the caller's function and written with the version
that was read, so that what other controllers say there stays. Knows no mesh: documents are the caller's.
Source: server-side apply; API conventions on status and on conflicts; events.k8s.io/v1.
"""

import asyncio
import hashlib
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from tulle.kube.access import FIELD_OWNER, Access
from tulle.kube.discovery import Resource
from tulle.kube.errors import KubeError, Refused, Unreachable

PER_SECOND = 20.0
BURST = 50.0
CONFLICTS = 5
"""Times a status is read again because somebody else wrote between."""
AGAIN_S = (0.5, 30.0)
"""Wait after a write that the API could not take: first and longest."""
REQUEST_S = 10.0
_EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
_GONE, _CONFLICT, _BUSY, _FAULT = 404, 409, 429, 500
NOTE_MOST = 1024
"""Characters of an Event's note."""


class Ref(NamedTuple):
    """An object, or a part of one."""

    resource: Resource
    namespace: str
    name: str
    subresource: str = ""

    @property
    def path(self) -> str:
        """In the API."""
        return self.resource.path(self.namespace, self.name, self.subresource)


Build = Callable[[dict[str, Any]], Mapping[str, Any] | None]
"""From the object as it stands to the status it should have; None: as it stands."""


class Bucket(Struct, frozen=True):
    """A token bucket. Pure."""

    per_second: float
    burst: float
    tokens: float
    at: float

    def taken(self, now: float) -> tuple["Bucket", float]:
        """The bucket after one token was taken, and how long to wait before using it."""
        tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.per_second) - 1.0
        after = Bucket(self.per_second, self.burst, tokens, max(now, self.at))
        return after, max(0.0, -tokens / self.per_second)


class _Wish(Struct):
    ref: Ref
    fingerprint: Hashable
    document: bytes | None = None
    build: Build | None = None
    failures: int = 0
    not_before: float = 0.0


class Writer:
    """A queue of writes, worked off while `run` runs and `may_write` says so."""

    def __init__(
        self,
        access: Access,
        may_write: Callable[[], bool],
        on_refused: Callable[[Ref, KubeError], None],
        *,
        per_second: float = PER_SECOND,
        burst: float = BURST,
        owner: str = FIELD_OWNER,
    ) -> None:
        """`on_refused` is told once per wish. What lacks a right is tried again, rarely; what is wrong in itself is not."""
        self._access = access
        self._may_write = may_write
        self._on_refused = on_refused
        self._owner = owner
        self._bucket = Bucket(per_second, burst, burst, monotonic())
        self._waiting: dict[Ref, _Wish] = {}
        self._written: dict[Ref, Hashable] = {}
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.writes = 0
        """Requests that wrote."""

    # --- wishes ------------------------------------------------------------------------------------------------------

    def apply(self, resource: Resource, document: Mapping[str, Any]) -> None:
        """Server-side apply of a whole object; fields of ours that it no longer names go. Conflicts are won."""
        metadata = document["metadata"]
        ref = Ref(resource, metadata.get("namespace", ""), metadata["name"])
        body = msgspec.json.encode({"apiVersion": resource.api_version, "kind": resource.kind, **document})
        self._wish(_Wish(ref, hashlib.sha256(body).digest(), document=body))

    def status(self, resource: Resource, namespace: str, name: str, fingerprint: Hashable, build: Build) -> None:
        """The status of an object. `fingerprint` stands for what is wanted; `build` must be pure, and may run several times."""
        self._wish(_Wish(Ref(resource, namespace, name, "status"), ("status", fingerprint), build=build))

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """The object should not be there; what it owns goes with it."""
        self._wish(_Wish(Ref(resource, namespace, name), "gone"))

    def event(
        self, regarding: Mapping[str, str], *, reason: str, note: str, action: str, is_warning: bool = True
    ) -> None:
        """An Event about an object (apiVersion, kind, namespace, name, uid). The same words about it are said once an hour at most."""
        words = "\n".join((regarding.get("uid", ""), regarding["kind"], regarding["name"], reason, note))
        digest = hashlib.sha256(words.encode()).hexdigest()[:16]
        namespace = regarding.get("namespace") or "default"
        document = {
            "apiVersion": _EVENTS.api_version,
            "kind": _EVENTS.kind,
            "metadata": {"name": f"{regarding['name'][:200]}.{digest}", "namespace": namespace},
            "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "reportingController": f"{self._owner}.dev/control-plane",
            "reportingInstance": self._owner,
            "regarding": dict(regarding),
            "reason": reason[:128],
            "note": note[:NOTE_MOST],
            "action": action[:128],
            "type": "Warning" if is_warning else "Normal",
        }
        ref = Ref(_EVENTS, namespace, document["metadata"]["name"])  # type: ignore[index]
        self._wish(_Wish(ref, digest, document=msgspec.json.encode(document)))

    def forget(self, resource: Resource, namespace: str, name: str) -> None:
        """The object is gone: nothing waits for it, and what was written to it is no longer known."""
        for subresource in ("", "status"):
            ref = Ref(resource, namespace, name, subresource)
            self._waiting.pop(ref, None)
            self._written.pop(ref, None)

    def forget_written(self) -> None:
        """Somebody else may have written: every wish that comes is written again. For when we begin to lead."""
        self._written.clear()
        self._woken.set()

    @property
    def backlog(self) -> int:
        """Wishes that wait."""
        return len(self._waiting)

    async def idle(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    def _wish(self, wish: _Wish) -> None:
        if self._written.get(wish.ref) == wish.fingerprint:
            self._waiting.pop(wish.ref, None)
            return
        before = self._waiting.get(wish.ref)
        if before is not None and before.fingerprint == wish.fingerprint:
            return
        if wish.ref.resource is _EVENTS and len(self._waiting) >= 1000:
            return  # Events are hints; they must not push status out
        self._waiting[wish.ref] = wish
        self._idle.clear()
        self._woken.set()

    # --- work --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work the queue off until cancelled."""
        while True:
            wish = self._next()
            if wish is None:
                await self._rest()
                continue
            self._bucket, wait_s = self._bucket.taken(monotonic())
            if wait_s:
                await asyncio.sleep(wait_s)
            # While we slept the wish may have been replaced, or our lead lost.
            if self._waiting.get(wish.ref) is wish and self._may_write():
                await self._fulfil(wish)

    def _next(self) -> _Wish | None:
        if not self._may_write():
            return None
        now = monotonic()
        return next((wish for wish in self._waiting.values() if wish.not_before <= now), None)

    async def _rest(self) -> None:
        self._woken.clear()
        if not self._waiting:
            self._idle.set()
        try:
            # Wishes that are to be tried again, and a lead that begins, do not wake us.
            async with asyncio.timeout(0.5 if self._waiting else None):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _fulfil(self, wish: _Wish) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._write(wish)
        except Refused as refused:
            if refused.status < _FAULT and refused.status not in (_BUSY, _CONFLICT, _GONE) and not wish.failures:
                self._on_refused(wish.ref, refused)
            # A right may be granted, a rival may be done.
            if refused.status >= _FAULT or refused.is_denied or refused.status in (_CONFLICT, _BUSY):
                self._later(wish, refused.retry_after_s)
                return
        except (Unreachable, TimeoutError):
            self._later(wish, 0.0)
            return
        if self._waiting.get(wish.ref) is wish:
            del self._waiting[wish.ref]
        self._written[wish.ref] = wish.fingerprint
        if len(self._written) > 100_000:
            self._written.pop(next(iter(self._written)))

    def _later(self, wish: _Wish, after_s: float) -> None:
        first, longest = AGAIN_S
        wish.not_before = monotonic() + max(after_s, min(first * 2**wish.failures, longest))
        wish.failures = min(wish.failures + 1, 10)

    async def _write(self, wish: _Wish) -> None:
        ref = wish.ref
        if wish.build is not None:
            await self._write_status(ref, wish.build)
        elif wish.document is None:
            self.writes += 1
            await self._access.send("DELETE", ref.path, query={"propagationPolicy": "Background"})
        elif ref.resource is _EVENTS:
            self.writes += 1
            await self._create(ref, wish.document)
        else:
            self.writes += 1
            await self._access.apply(ref.path, wish.document, self._owner)

    async def _create(self, ref: Ref, document: bytes) -> None:
        try:
            await self._access.send("POST", ref.resource.path(ref.namespace), body=document)
        except Refused as refused:
            if refused.status != _CONFLICT:  # it was said before
                raise

    async def _write_status(self, ref: Ref, build: Build) -> None:
        whole = ref._replace(subresource="")
        for left in reversed(range(CONFLICTS)):
            current: dict[str, Any] = msgspec.json.decode(await self._access.get(whole.path))
            wanted = build(current)
            if wanted is None or wanted == current.get("status"):
                return
            body = msgspec.json.encode({**current, "status": wanted})
            self.writes += 1
            try:
                await self._access.send("PUT", ref.path, query={"fieldManager": self._owner}, body=body)
            except Refused as refused:
                if refused.status != _CONFLICT or not left:
                    raise
                continue
            return


async def delete_labelled(access: Access, resource: Resource, selector: str, namespace: str = "") -> int:
    """Delete every object with these labels, one by one, as it was read; how many. Raises as `Access.send`.

    Needs the rights to list and delete, not to delete collections. An empty selector is refused: it would mean everything.
    """
    if not selector:
        raise ValueError("a selector is needed")
    body = await access.get(resource.path(namespace), {"labelSelector": selector})
    found = msgspec.json.decode(body, type=_Listed).items or []
    for one in found:
        options = {"propagationPolicy": "Background", "preconditions": {"uid": one.metadata.uid}}
        try:
            path = resource.path(one.metadata.namespace, one.metadata.name)
            await access.send("DELETE", path, body=msgspec.json.encode(options))
        except Refused as refused:
            if refused.status not in (_GONE, _CONFLICT):  # gone, or another of that name
                raise
    return len(found)


class _Meta(Struct):
    name: str
    uid: str
    namespace: str = ""


class _Named(Struct):
    metadata: _Meta


class _Listed(Struct):
    items: list[_Named] | None = None
