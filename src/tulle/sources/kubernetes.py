"""A cluster as a source: reflectors of the kinds in use, their objects as they are now, and what changed.

Adapter, with the face of a file source: whoever feeds an engine from files feeds it from here. What an object means is the dialects';
how a kind is followed is `kube.reflector`'s. One event loop; nothing here is called from another thread.

- A kind that is not served is no fault: discovery is asked every few seconds, and the kind is followed once it is there.
- An object that is refused goes on as it last was, or is absent if it never was good.
- Kinds whose objects are nobody's business but the namespace's own (Secrets) are followed only where `follow` says so.
- Where namespaces are selected by label, objects of others are passed over; once such a namespace is selected, the kinds of which
  something was passed over are read again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from time import monotonic

from msgspec import Raw

from tulle.dialects.kinds import KindRead
from tulle.dialects.reading import KINDS_READ
from tulle.kube.access import Access
from tulle.kube.discovery import Discovery, Resource, chosen
from tulle.kube.errors import KubeError
from tulle.kube.following import Failure
from tulle.kube.reflector import Batch, Item, Name, Reflector, Selection, Trouble
from tulle.model.keys import ObjectKey
from tulle.model.objects import Object
from tulle.model.origin import Origin
from tulle.model.problems import NOWHERE, Problem, problem
from tulle.sources.cluster_namespaces import IsSelected
from tulle.sources.cluster_objects import Decode, Found, decoder_of
from tulle.sources.files import Change, Reloaded
from tulle.sources.places import Place, Reported

POLL_S = 3.0
"""How often discovery is asked; nearly always answered `304`."""
UNSERVED_S = 30.0
"""A kind is gone once discovery has not named it for this long: an API server that starts may name it late."""
NAMESPACE = ("", "Namespace")
BY_PLACE = frozenset((("", "Secret"), ("", "ConfigMap")))
"""Followed only where `follow` says so."""
_WORKLOADS = frozenset(
    (("apps", "Deployment"), ("apps", "ReplicaSet"), ("apps", "StatefulSet"), ("batch", "Job"), ("", "ServiceAccount"))
)
"""What makes pods: in a cluster the pods are there themselves."""
_FIELDS = {("", "Pod"): "status.phase!=Succeeded,status.phase!=Failed"}

KindName = tuple[str, str]
"""(group, kind)."""


def kinds_in_use() -> tuple[KindRead, ...]:
    """Every kind that is followed in all namespaces."""
    return tuple(kind for name, kind in KINDS_READ.items() if name not in BY_PLACE | _WORKLOADS)


class _Followed:
    """One selection of one kind, and the task that follows it."""

    def __init__(self, kind: KindName, resource: Resource, selection: Selection) -> None:
        self.kind = kind
        self.resource = resource
        self.selection = selection
        self.reflector: Reflector | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_settled = False
        """Whether everything was read once, or cannot be."""
        self.passed_over: set[str] = set()
        self.trouble: Problem | None = None
        self.missed_since: float | None = None

    def end(self) -> frozenset[Name]:
        """Stop; what was there."""
        if self.task is not None:
            self.task.cancel()
        return self.reflector.known if self.reflector is not None else frozenset()


class KubernetesSource:
    """Start it, wait until it is `synced`, then take what is `pending`, again whenever `changes` says so. Close it."""

    def __init__(
        self,
        access: Access,
        kinds: Iterable[KindRead] | None = None,
        *,
        cluster: str = "Kubernetes",
        is_selected: IsSelected | None = None,
    ) -> None:
        """`is_selected`: see `cluster_namespaces.selected_by`."""
        self.cluster = cluster
        self.pending: deque[Reloaded] = deque()
        self.changed = asyncio.Event()
        """Set when something is pending; whoever takes it clears it first."""
        self.regenerated: set[ObjectKey] = set()
        """Objects of which another generation came, changed or not: their status has to name it. Whoever reads it empties it."""
        self._access = access
        self._discovery = Discovery(access)
        self._kinds = {(kind.group, kind.kind): kind for kind in (kinds_in_use() if kinds is None else kinds)}
        self._is_selected = is_selected
        self._selected: set[str] = set()
        self._objects: dict[ObjectKey, Object] = {}
        self._generations: dict[ObjectKey, int] = {}
        self._newest: dict[KindName, int] = {}
        """The newest resourceVersion that came, of each kind."""
        self._problems: dict[ObjectKey, tuple[Problem, ...]] = {}
        self._reported: tuple[Reported, ...] | None = None
        self._followed: dict[tuple[KindName, Selection], _Followed] = {}
        self._places: dict[KindName, frozenset[Name]] = {}
        self._settled = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._api_problem: Problem | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to follow. Raises KubeError where the API cannot say what it serves."""
        await self._discovery.refresh()
        if self._is_selected is not None and NAMESPACE in self._kinds:
            self._follow_served({NAMESPACE})
            await self._settled.wait()
        self._follow_served(self._kinds.keys())
        self._polling = asyncio.create_task(self._poll())

    async def synced(self) -> None:
        """Wait until everything that is followed was read once; a kind that may not be read is a problem, not a wait."""
        await self._settled.wait()

    async def close(self) -> None:
        """Stop following; the objects stay."""
        tasks = [one.task for one in self._followed.values() if one.task is not None]
        tasks += [self._polling] if self._polling is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, kind: KindName, places: Iterable[tuple[str, str]]) -> None:
        """Follow objects of a kind in these places only: (namespace, name), or (namespace, "") for all of a namespace.

        Called again with other places, it follows those instead; objects of places left are gone.
        """
        wanted = frozenset(Name(*place) for place in places)
        # All of a namespace holds each of its names.
        self._places[kind] = frozenset(one for one in wanted if not one.name or Name(one.namespace, "") not in wanted)
        self._follow_served({kind})

    # --- what World asks ---------------------------------------------------------------------------------------------

    @property
    def objects(self) -> Mapping[ObjectKey, Object]:
        """Every object that counts now."""
        return self._objects

    def get(self, key: ObjectKey) -> Object | None:
        """One object that counts now."""
        return self._objects.get(key)

    def generation(self, key: ObjectKey) -> int:
        """metadata.generation of an object as it was read last, even if it was refused; 0: not known."""
        return self._generations.get(key, 0)

    def resource(self, group: str, kind: str) -> Resource | None:
        """A kind as the API serves it now, in the version that is read; None where it does not."""
        read = KINDS_READ.get((group, kind))
        return chosen(self._discovery.table, group, kind, read.versions) if read is not None else None

    def told_of(self) -> frozenset[ObjectKey]:
        """Every object that there is, also those that were refused."""
        return frozenset(self._objects) | frozenset(self._problems)

    @property
    def reported(self) -> tuple[Reported, ...]:
        """Every problem of what was read, as it is now, and of kinds that cannot be."""
        if self._reported is None:
            self._reported = tuple(self._report())
        return self._reported

    def problems_of(self, key: ObjectKey) -> tuple[Problem, ...]:
        """What is wrong with one object as it was read last."""
        return self._problems.get(key, ())

    def locate(self, origin: Origin) -> Place | None:
        """The object itself: kind, namespace and name stand where a file would."""
        return _place(origin.object) if origin.object in self._objects or origin.object in self._problems else None

    def reload(self, touched: Iterable[Path] = ()) -> Change:
        """Nothing: what changes is told by the API itself."""
        del touched
        return Change((), (), {}, self.reported)

    def has_seen(self, key: ObjectKey, version: str) -> bool:
        """Whether this version of an object, or a later one of its kind, came; empty: whether it is gone.

        What nobody follows is not waited for. Versions of one kind are ordered numbers (Kubernetes 1.35, KEP-5504).
        """
        kind = (key.group, key.kind)
        if not any(one.kind == kind for one in self._followed.values()):
            return True
        if not version.isdigit():
            return key not in self._objects
        return self._newest.get(kind, 0) >= int(version)

    async def changes(self) -> AsyncIterator[Change]:
        """Every change from now on, already in `pending`: several at once come as one without content."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield Change((), (), {}, self.reported)

    # --- what is followed --------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._discovery.refresh()
            except KubeError as error:
                self._api_trouble(error.problem())
                continue  # what it served, it serves until it says otherwise
            self._api_trouble(None)
            self._follow_served(self._kinds.keys() | self._places.keys())
            self._drop_unserved()

    def _api_trouble(self, found: Problem | None) -> None:
        if found != self._api_problem:
            self._api_problem = found
            self._reported = None

    def _follow_served(self, kinds: Iterable[KindName]) -> None:
        for name in kinds:
            kind = KINDS_READ[name] if name not in self._kinds else self._kinds[name]
            resource = chosen(self._discovery.table, *name, kind.versions)
            wanted = self._selections(name)
            for (of_kind, selection), followed in list(self._followed.items()):
                if of_kind == name and selection not in wanted:
                    self._stop(followed)
            if resource is not None:
                for selection in wanted:
                    self._begin(kind, resource, selection)
        self._check_settled()

    def _selections(self, kind: KindName) -> frozenset[Selection]:
        if kind not in BY_PLACE:
            return frozenset((Selection(fields=_FIELDS.get(kind, "")),))
        return frozenset(
            Selection(namespace=place.namespace, fields=f"metadata.name={place.name}" if place.name else "")
            for place in self._places.get(kind, ())
        )

    def _begin(self, kind: KindRead, resource: Resource, selection: Selection) -> None:
        name = (kind.group, kind.kind)
        before = self._followed.get((name, selection))
        if before is not None and before.resource == resource:
            return
        known = before.end() if before is not None else frozenset[Name]()
        followed = _Followed(name, resource, selection)
        followed.reflector = Reflector(
            self._access,
            resource,
            self._choosing(decoder_of(kind, resource, self.cluster), followed),
            lambda batch: self._take(batch, followed),
            lambda trouble: self._on_trouble(trouble, followed),
            selection=selection,
            known=known,
        )
        self._followed[name, selection] = followed
        followed.task = self._kept(followed, followed.reflector)
        self._settled.clear()

    def _kept(self, followed: _Followed, reflector: Reflector) -> asyncio.Task[None]:
        def on_fault(error: Exception) -> None:
            self._on_trouble(Trouble(Failure.BROKEN, KubeError(_our_fault(followed, error))), followed)

        return asyncio.create_task(reflector.keep(on_fault))

    def _stop(self, followed: _Followed) -> None:
        del self._followed[followed.kind, followed.selection]
        self._reported = None
        self._push((), [ObjectKey(self.cluster, *followed.kind, *name) for name in followed.end()], {})

    def _drop_unserved(self) -> None:
        """Stop following what discovery has not named for long."""
        now = monotonic()
        for followed in list(self._followed.values()):
            if chosen(self._discovery.table, *followed.kind, (followed.resource.version,)) is not None:
                followed.missed_since = None
            elif followed.missed_since is None:
                followed.missed_since = now
            elif now > followed.missed_since + UNSERVED_S:
                self._stop(followed)
        self._check_settled()

    def _check_settled(self) -> None:
        if all(one.is_settled for one in self._followed.values()):
            self._settled.set()

    def _on_trouble(self, trouble: Trouble | None, followed: _Followed) -> None:
        place = followed.selection.namespace or "all namespaces"
        reason = str(trouble.error) if trouble else ""
        followed.trouble = problem("TUL1005", NOWHERE, kind=followed.resource.kind, place=place, reason=reason)
        if trouble is None:
            followed.trouble = None
        elif trouble.failure in (Failure.DENIED, Failure.ABSENT, Failure.UNSUITED):
            followed.is_settled = True
            self._check_settled()
        self._reported = None

    # --- what comes --------------------------------------------------------------------------------------------------

    def _choosing(self, decode: Decode, followed: _Followed) -> Decode:
        if self._is_selected is None or followed.kind == NAMESPACE or not followed.resource.is_namespaced:
            return decode

        def decoded(raw: Raw) -> Item:
            item = decode(raw)
            if item.name.namespace not in self._selected:
                followed.passed_over.add(item.name.namespace)
                item.value = None
            return item

        return decoded

    def _take(self, batch: Batch, followed: _Followed) -> None:
        group, kind = followed.kind
        gone = [ObjectKey(self.cluster, group, kind, *name) for name in batch.deletes]
        found: list[Found] = [item.value for item in batch.sets if item.value is not None]
        newest = max((int(item.version) for item in batch.sets if item.version.isdigit()), default=0)
        self._newest[followed.kind] = max(newest, self._newest.get(followed.kind, 0))
        if followed.kind == NAMESPACE and self._is_selected is not None:
            found = self._select(found, gone)
        sets, private = [], {}
        for one in found:
            self._judge(one)
            if one.object is not None and one.object != self._objects.get(one.key):
                self._objects[one.key] = one.object
                sets.append(one.object)
                if one.private is not None:
                    private[one.key] = one.private
        self._push(tuple(sets), gone, private)
        if batch.is_synced and not followed.is_settled:
            followed.is_settled = True
            self._check_settled()

    def _judge(self, found: Found) -> None:
        if found.problems != self._problems.get(found.key, ()):
            self._reported = None
            if found.problems:
                self._problems[found.key] = found.problems
            else:
                self._problems.pop(found.key, None)
        if found.generation and found.generation != self._generations.get(found.key):
            self._generations[found.key] = found.generation
            self.regenerated.add(found.key)
            self.changed.set()

    def _push(self, sets: tuple[Object, ...], gone: list[ObjectKey], private: Mapping[ObjectKey, object]) -> None:
        deletes = tuple(key for key in gone if self._objects.pop(key, None) is not None)
        for key in gone:
            self._generations.pop(key, None)
            self.regenerated.discard(key)
            if self._problems.pop(key, None) is not None:
                self._reported = None
        if sets or deletes:
            # Its problems are in `reported`: a churn of objects would make the list again and again.
            self.pending.append(Reloaded((), Change(sets, deletes, private, ())))
            self.changed.set()

    # --- namespaces in use -------------------------------------------------------------------------------------------

    def _select(self, found: list[Found], gone: list[ObjectKey]) -> list[Found]:
        """The namespaces that count; `gone` grows by those that counted, and what is in them."""
        assert self._is_selected is not None
        counted: list[Found] = []
        left = {key.name for key in gone}
        for one in found:
            labels = dict(one.object.labels) if one.object is not None else {}
            if self._is_selected(one.key.name, labels):
                counted.append(one)
            else:
                left.add(one.key.name)
        joined = {one.key.name for one in counted} - self._selected
        left &= self._selected
        self._selected = (self._selected | joined) - left
        if left:
            gone.extend(key for key in self._objects.keys() | self._problems.keys() if key.namespace in left)
            gone.extend(ObjectKey(self.cluster, *NAMESPACE, "", name) for name in sorted(left))
        for followed in list(self._followed.values()):
            if followed.passed_over & joined:
                self._read_again(followed)
            elif left:
                followed.passed_over |= left
        return counted

    def _read_again(self, followed: _Followed) -> None:
        assert followed.task is not None
        assert followed.reflector is not None
        followed.task.cancel()
        followed.passed_over.clear()
        followed.task = self._kept(followed, followed.reflector)

    # --- problems ----------------------------------------------------------------------------------------------------

    def _report(self) -> Iterable[Reported]:
        if self._api_problem is not None:
            yield Reported(self._api_problem, Place(self._access.server, 0, 0))
        for followed in self._followed.values():
            if followed.trouble is not None:
                yield Reported(followed.trouble, Place(followed.resource.path(followed.selection.namespace), 0, 0))
        for key in sorted(self._problems):
            for found in self._problems[key]:
                yield Reported(found, _place(key))


def _our_fault(followed: _Followed, error: Exception) -> Problem:
    return problem("TUL1006", NOWHERE, reason=f"{type(error).__name__} while following {followed.resource.plural}")


def _place(key: ObjectKey) -> Place:
    return Place("/".join(part for part in (key.kind, key.namespace, key.name) if part), 0, 0)
