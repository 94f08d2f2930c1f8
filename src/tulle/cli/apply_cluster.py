"""`tulle apply` and `tulle delete` in a cluster: objects go to its API, and the wait is for all replicas' proxies.

The rights are the user's own. What was written is known by its resourceVersion, so each replica can tell when it has it.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import click

from tulle.cli.answers import verdict
from tulle.cli.cluster_connection import ClusterConnection, Said
from tulle.cli.kinds import slashed
from tulle.cli.manifests import Document
from tulle.cli.output import Exit, say
from tulle.cli.reaching import Cluster, Json, in_cluster
from tulle.kube.discovery import Resource
from tulle.kube.errors import Refused
from tulle.model.keys import ObjectKey
from tulle.model.objects import MeshSettings
from tulle.sources.documents import objects_in

SLACK_S = 5.0
T = TypeVar("T")
Written = dict[str, str]
"""serve/wire.py, WrittenObject."""


def apply_objects(
    connection: ClusterConnection,
    documents: Sequence[Document],
    namespace: str,
    timeout_s: float,
    *,
    wait: bool,
    dry_run: bool,
) -> int:
    """Write the objects, say what became of each, and wait."""
    revisions = _revisions(connection)

    async def write(cluster: Cluster) -> list[Written]:
        return [await _applied(cluster, raw, namespace, dry_run=dry_run) for raw in _raws(documents)]

    written = _in(connection, write)
    if dry_run or not wait:
        return Exit.OK
    return verdict(_settled(connection, written, timeout_s, revisions))


def delete_objects(
    connection: ClusterConnection,
    keys: Sequence[ObjectKey],
    timeout_s: float,
    *,
    wait: bool,
    dry_run: bool,
    ignore_not_found: bool,
) -> int:
    """Delete the objects, and wait until they are gone from all proxies."""
    revisions = _revisions(connection)

    async def remove(cluster: Cluster) -> list[Written | None]:
        return [await _deleted(cluster, key, dry_run=dry_run) for key in keys]

    found = _in(connection, remove)
    missing = [key for key, one in zip(keys, found, strict=True) if one is None]
    for key in missing:
        say(f"{slashed(key)} is not there")
    if missing and not ignore_not_found:
        return Exit.FAILED
    gone = [one for one in found if one is not None]
    if dry_run or not wait or not gone:
        return Exit.OK
    return verdict(_settled(connection, gone, timeout_s, revisions), "gone from")


def _in(connection: ClusterConnection, work: Callable[[Cluster], Awaitable[T]]) -> T:
    return in_cluster(None, connection.context or None, work)


async def _applied(cluster: Cluster, raw: Json, namespace: str, *, dry_run: bool) -> Written:
    resource = cluster.resource(raw)
    metadata = dict(raw.get("metadata") or {})
    if resource is not None and resource.is_namespaced:
        metadata.setdefault("namespace", namespace)
    document = {**raw, "metadata": metadata}
    what = await cluster.applied(document, dry_run=dry_run)
    key = _key(document)
    click.echo(f"{slashed(key)} {what}{' (dry run)' if dry_run else ''}")
    found = None if resource is None else await cluster.read(resource, key.name, key.namespace)
    return _written(key, found["metadata"]["resourceVersion"] if found else "0")


async def _deleted(cluster: Cluster, key: ObjectKey, *, dry_run: bool) -> Written | None:
    resource: Resource | None = cluster.kind(key.group, key.kind)
    found = None if resource is None else await cluster.read(resource, key.name, key.namespace)
    if resource is None or found is None:
        return None
    if not dry_run:
        try:
            await cluster.access.send("DELETE", resource.path(key.namespace, key.name))
        except Refused as refused:
            if not refused.is_absent:
                raise
    click.echo(f"{slashed(key)} deleted{' (dry run)' if dry_run else ''}")
    return _written(key, "")


def _written(key: ObjectKey, version: str) -> Written:
    return {"group": key.group, "kind": key.kind, "namespace": key.namespace, "name": key.name, "version": version}


def _key(document: Json) -> ObjectKey:
    group = str(document["apiVersion"]).rpartition("/")[0]
    metadata = document["metadata"]
    return ObjectKey(MeshSettings().cluster, group, document["kind"], metadata.get("namespace", ""), metadata["name"])


def _raws(documents: Iterable[Document]) -> Iterator[Json]:
    """The objects as they are written, each once."""
    seen: set[str] = set()
    for document in documents:
        if document.chunk.text not in seen:
            seen.add(document.chunk.text)
            yield from objects_in(document.chunk)


def _revisions(connection: ClusterConnection) -> list[int]:
    """Of each replica, before anything is written; 0 of one that does not answer. Ends the command where none does."""
    return [0 if one.failure else int(one.answer["revision"]) for one in connection.some_of_each("/v1/version")]


def _settled(
    connection: ClusterConnection, written: Sequence[Written], timeout_s: float, revisions: Sequence[int]
) -> dict[str, Any]:
    """What the replicas say together."""
    bodies = [{"objects": list(written), "timeoutSeconds": timeout_s, "sinceRevision": one} for one in revisions]
    said = connection.each("/v1/apply", bodies, timeout_s + SLACK_S)
    if all(one.failure for one in said):
        connection.nobody(said)
    return combined(said, connection.unready)


def combined(said: Sequence[Said], unready: Sequence[str]) -> dict[str, Any]:
    """One answer: each replica speaks for the proxies that are connected to it. Pure.

    A replica that is silent, or not ready, matters if some proxy is connected to no other: that one is waited for.
    """
    answers = [one.answer for one in said if not one.failure]
    silent = [*(f"{one.replica.pod}: {one.failure}" for one in said if one.failure), *unready]
    absent = sorted(frozenset.intersection(*(frozenset(one["disconnected"]) for one in answers)))
    lost = [f"{one} (perhaps connected to {'; '.join(silent)})" for one in absent] if silent else []
    return {
        **answers[0],
        "milliseconds": max(one["milliseconds"] for one in answers),
        **{word: sum(one[word] for one in answers) for word in ("affected", "live")},
        "refused": [part for one in answers for part in one["refused"]],
        "waiting": [*(part for one in answers for part in one["waiting"]), *lost],
        "disconnected": [] if lost else absent,
    }
