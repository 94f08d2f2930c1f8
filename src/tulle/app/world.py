"""Objects of the manifests and of the running pods, laid over each other, as edits of the engine and of the vault.

The manifests say what should be; `runtime.json` says what is: Pods exist only there, and Services have the addresses that
were given to them there. Knows no proxies: what an edit does to them is `serve.pushing`'s.
"""

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from tulle.dialects.inputs import objects, settings
from tulle.dialects.kubernetes.secret import SecretMaterial
from tulle.engine import Database
from tulle.model.keys import ObjectKey
from tulle.model.objects import MeshSettings, Object
from tulle.model.origin import Origin
from tulle.serve.vault import Vault
from tulle.sources.files import Change, FileSource, Reloaded
from tulle.sources.places import Place, Reported
from tulle.sources.watching import changes

UNKNOWN = Path()
"""Of a change that was found without having been told which file to look at."""


class Source(Protocol):
    """Where objects come from: files, or the API of a cluster."""

    @property
    def pending(self) -> deque[Reloaded]:
        """What was found and is not applied yet, in order."""

    @property
    def reported(self) -> tuple[Reported, ...]:
        """Every problem of what was read, as it is now."""

    @property
    def objects(self) -> Mapping[ObjectKey, Object]:
        """Every object that counts now."""

    def get(self, key: ObjectKey) -> Object | None:
        """One object that counts now."""

    def locate(self, origin: Origin) -> Place | None:
        """Where a field is written."""

    def reload(self, touched: Iterable[Path] = ()) -> Change:
        """Look now; what was found is in `pending` too."""

    def changes(self) -> AsyncIterator[Change]:
        """Every change from now on, already in `pending`."""

    def has_seen(self, key: ObjectKey, version: str) -> bool:
        """Whether what was written to an object's place, in this version of it, was found; empty: that it was deleted."""


class QueuedSource(FileSource):
    """A file source whose reloads, from whatever thread, queue up in order until they are applied."""

    def __init__(self, paths: Sequence[Path], *, cluster: str, namespace: str) -> None:
        super().__init__(paths, cluster=cluster, namespace=namespace)
        self._lock = threading.Lock()
        self.pending: deque[Reloaded] = deque()
        self.reported: tuple[Reported, ...] = ()
        """Every problem, as of the last reload: unlike `problems` safe to read while another thread reloads."""

    def reload(self, touched: Iterable[Path] = ()) -> Change:
        """As FileSource; what it found is in `pending` too."""
        with self._lock:
            paths = tuple(path.resolve() for path in touched)
            change = super().reload(paths)
            self.reported = change.problems
            self.pending.append(Reloaded(paths, change))
            return change

    def changes(self) -> AsyncIterator[Change]:
        """As files change."""
        return changes(self)

    def has_seen(self, key: ObjectKey, version: str) -> bool:  # noqa: ARG002 - the shape of Source
        """Files have no versions: what is there is read when it is asked for."""
        return True


class Edited(Struct, frozen=True):
    """What one round of edits touched."""

    paths: frozenset[Path]
    """Files whose change caused it, or UNKNOWN."""
    secrets_changed: bool


class World:
    """Both sources and the database they feed."""

    def __init__(self, db: Database, vault: Vault, config: Source, runtime: Source | None) -> None:
        """Without `runtime` (a control plane alone) Pods of the manifests count."""
        self.config = config
        self.runtime = runtime
        self._db = db
        self._vault = vault

    def load(self, mesh: MeshSettings) -> None:
        """Everything, for the first time. Reads files: call it before serving."""
        with self._db.edit() as tx:
            tx.set(settings, mesh)
        for source in self._sources:
            source.reload()
        self.take()

    def take(self) -> Edited | None:
        """Apply every reload that waits, as one revision; None where none of them changed an object."""
        keys: set[ObjectKey] = set()
        private: dict[ObjectKey, Any] = {}
        paths: set[Path] = set()
        for source in self._sources:
            while source.pending:
                reloaded = source.pending.popleft()
                if not reloaded.change.is_empty:
                    paths.update(reloaded.touched or (UNKNOWN,))
                keys.update(found.key for found in reloaded.change.sets)
                keys.update(reloaded.change.deletes)
                private.update(reloaded.change.private)
        return Edited(frozenset(paths), self._edit(keys, private)) if keys else None

    def _edit(self, keys: set[ObjectKey], private: Mapping[ObjectKey, Any]) -> bool:
        secrets_changed = False
        with self._db.edit() as tx:
            for key in sorted(keys):
                found = self._laid(self.config.get(key), self.runtime.get(key) if self.runtime else None)
                if found is None:
                    tx.delete(objects, key)
                else:
                    tx.set(objects, key, found)
                if key.kind == "Secret" and not key.group:
                    secrets_changed = True
                    self._keep(key, private.get(key), is_there=found is not None)
        return secrets_changed

    def _laid(self, config: Object | None, runtime: Object | None) -> Object | None:
        if config is not None and config.key.kind == "Pod" and not config.key.group and self.runtime is not None:
            config = None  # a manifest's Pod is a wish; the pod that runs is in runtime.json
        if config is None or runtime is None:
            return runtime or config
        if config.key.kind != "Service" or config.key.group:
            return runtime
        if config.spec.cluster_ip:
            return config
        # The manifest is newer than runtime.json in everything but the address that was given.
        return replace(config, spec=replace(config.spec, cluster_ip=runtime.spec.cluster_ip))

    def _keep(self, key: ObjectKey, material: Any, *, is_there: bool) -> None:
        if not is_there:
            self._vault.drop(key.namespace, key.name)
        elif isinstance(material, SecretMaterial):
            self._vault.put(key.namespace, key.name, material)

    # --- questions ---------------------------------------------------------------------------------------------------

    @property
    def _sources(self) -> tuple[Source, ...]:
        return (self.config,) if self.runtime is None else (self.config, self.runtime)

    @property
    def reported(self) -> tuple[Reported, ...]:
        """Of the text of all files, as it is now."""
        of_runtime = self.runtime.reported if self.runtime else ()
        # Before the supervisor has written it there is no runtime.json, which is no fault of the user's.
        return (*self.config.reported, *(found for found in of_runtime if found.problem.code != "TUL0001"))

    def locate(self, origin: Origin) -> Place | None:
        """Where a field is written: in a manifest if there is one."""
        places = (source.locate(origin) for source in self._sources)
        return next((place for place in places if place is not None), None)
