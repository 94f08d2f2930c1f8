"""What workloads are known to call, where all replicas find it: one LearnedNames object per workload, in our own namespace.

Adapter: `serve.learned.Memory` over the API. Every replica follows the objects and adds what its own proxies asked for; names are added and
taken away one by one (JSON merge patch, RFC 7396), so that replicas need not agree. Deciding is `serve.learning`'s.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from time import time

import msgspec
from msgspec import Raw, Struct

from tulle.app.cluster.duties import OURS
from tulle.installing.kinds import LEARNED_NAMES, OWN_GROUP, LearnedNamesSpec
from tulle.kube.access import Access
from tulle.kube.discovery import Resource
from tulle.kube.errors import KubeError, Refused
from tulle.kube.reflector import Batch, Item, Name, Reflector, Selection, Trouble
from tulle.serve import logs
from tulle.serve.learning import KEPT_S, Kept, sound

RESOURCE = Resource(OWN_GROUP, "v1alpha1", LEARNED_NAMES.plural, "LearnedNames")
MOST_AT_ONCE = 20
"""Objects written in one go; there is a next one some seconds later."""
REFRESHED_S = 24 * 3600.0
"""A name that is asked for all the time is written again this often."""
_START_S = 10.0
_MERGE = "application/merge-patch+json"


class _Meta(Struct, rename="camel"):
    name: str
    namespace: str
    resource_version: str = ""


class _Object(Struct):
    metadata: _Meta
    spec: LearnedNamesSpec


class SharedMemory:
    """Of one control plane's namespace. `start` it, `close` it."""

    def __init__(self, access: Access, namespace: str) -> None:
        self._access = access
        self._namespace = namespace
        self._there: dict[Name, LearnedNamesSpec] = {}
        self._is_read = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._adopt: Callable[[Kept], None] | None = None
        self._said = ""

    async def start(self) -> None:
        """Follow the objects; wait until they were read, but not for long: a mesh without this memory is slower, not broken."""
        selection = Selection(namespace=self._namespace)
        reflector = Reflector(self._access, RESOURCE, _decoded, self._take, self._on_trouble, selection=selection)
        self._task = asyncio.create_task(reflector.keep(_on_fault))
        try:
            async with asyncio.timeout(_START_S):
                await self._is_read.wait()
        except TimeoutError:
            logs.event(logging.WARNING, "what workloads call is not known yet")

    async def close(self) -> None:
        """Follow them no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def read(self) -> Kept:
        """As Memory."""
        return {spec.workload: dict(spec.names) for spec in self._there.values()}

    def tell(self, adopt: Callable[[Kept], None]) -> None:
        """Give what other replicas write from now on to somebody."""
        self._adopt = adopt

    async def wrote(self, kept: Kept) -> bool:
        """As Memory: write what differs, a few objects at a time."""
        left = MOST_AT_ONCE
        for name, workload, changes in self._due(kept):
            if not left:
                return False
            left -= 1
            try:
                await self._write(name, workload, changes)
            except KubeError as error:
                self._say(str(error))
                return False
        self._said = ""
        return True

    def _due(self, kept: Kept) -> Iterator[tuple[Name, str, Mapping[str, float | None]]]:
        now = time()
        known = {spec.workload for spec in self._there.values()}
        for workload in sorted(kept.keys() | known):
            name = Name(self._namespace, name_of(workload))
            there = self._there.get(name, LearnedNamesSpec()).names
            if changes := changed(there, kept.get(workload, {}), now):
                yield name, workload, changes

    async def _write(self, name: Name, workload: str, changes: Mapping[str, float | None]) -> None:
        before = self._there.get(name)
        path = RESOURCE.path(*name)
        names = {key: at for key, at in {**(before.names if before else {}), **changes}.items() if at is not None}
        try:
            if not names:
                await self._access.send("DELETE", path)
                return
            body = msgspec.json.encode({"spec": {"workload": workload, "names": changes}})
            await self._access.send("PATCH", path, body=body, content_type=_MERGE)
        except Refused as refused:
            if not refused.is_absent:
                raise
            if names:
                await self._create(name, LearnedNamesSpec(workload, names))
        self._there[name] = LearnedNamesSpec(workload, names)

    async def _create(self, name: Name, spec: LearnedNamesSpec) -> None:
        document = {
            "apiVersion": RESOURCE.api_version,
            "kind": RESOURCE.kind,
            "metadata": {"name": name.name, "namespace": name.namespace, "labels": dict(OURS)},
            "spec": spec,
        }
        await self._access.send("POST", RESOURCE.path(name.namespace), body=msgspec.json.encode(document))

    def _take(self, batch: Batch) -> None:
        for gone in batch.deletes:
            self._there.pop(gone, None)
        fresh = {item.name: item.value for item in batch.sets if item.value.workload}
        self._there.update(fresh)
        if batch.is_synced:
            self._is_read.set()
        if fresh and self._adopt is not None:
            self._adopt(sound({spec.workload: spec.names for spec in fresh.values()}, time()))

    def _on_trouble(self, trouble: Trouble | None) -> None:
        if trouble is not None:
            self._is_read.set()
            self._say(str(trouble.error))

    def _say(self, error: str) -> None:
        if error != self._said:
            self._said = error
            logs.event(logging.WARNING, "what workloads call is not shared", error=error)


def changed(there: Mapping[str, float], kept: Mapping[str, float], now: float) -> Mapping[str, float | None]:
    """What must be written so that the object says what is kept; None takes a name away. Names of other replicas stay until they are old. Pure."""
    fresh = {name: at for name, at in kept.items() if at > there.get(name, 0.0) + REFRESHED_S}
    old = {name: None for name, at in there.items() if name not in kept and at < now - KEPT_S - REFRESHED_S}
    return {**fresh, **old}


def name_of(workload: str) -> str:
    """The object's name: people recognise namespace and account, the digest tells workloads apart."""
    found = re.search(r"/ns/([^/ ]+)/sa/([^/ ]+)", workload)
    words = ".".join(found.groups())[:200] if found else "workload"
    return f"{words}-{hashlib.sha256(workload.encode()).hexdigest()[:10]}"


def _on_fault(fault: Exception) -> None:
    logs.LOGGER.error("what workloads call is not followed", exc_info=fault)


def _decoded(raw: Raw) -> Item:
    found = msgspec.json.decode(raw, type=_Object)
    return Item(Name(found.metadata.namespace, found.metadata.name), found.metadata.resource_version, found.spec)
