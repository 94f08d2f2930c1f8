"""A cluster for the commands that install: reached as kubectl reaches it, asked for objects of any kind, changed by server-side apply.

Adapter over `kube`. Knows no object of the mesh. Every answer of the API that is an error ends the command with its code.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from tulle.cli.output import Exit, refuse
from tulle.kube.access import Access
from tulle.kube.discovery import Discovery, Resource, Table, chosen
from tulle.kube.errors import KubeError, NoCluster, Refused, Unreachable
from tulle.model.problems import NOWHERE, problem

OWNER: Final = "tulle-install"
"""Field manager of what is installed; the control plane's own is another, so its fields stay."""
_AT_ONCE: Final = 12
_BUSY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_PATIENCE: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits when the API is busy, or the storage of a new kind is not there yet."""
T = TypeVar("T")
Json = dict[str, Any]


class Review(NamedTuple):
    """A right to ask about."""

    verb: str
    group: str
    resource: str
    namespace: str = ""


class Cluster:
    """One cluster. Its methods raise Refused and Unreachable, which `in_cluster` turns into the end of the command."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._discovery = Discovery(access)
        self.table: Table = {}

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """An answer; asks again where the API says that it cannot answer just now."""
        for wait_s in _PATIENCE:
            try:
                return await ask()
            except Refused as refused:
                if refused.status not in _BUSY:
                    raise
                await asyncio.sleep(max(wait_s, min(refused.retry_after_s, _PATIENCE[-1])))
        return await ask()

    async def _send(self, verb: str, path: str, **more: Any) -> bytes:
        return (await self._patiently(lambda: self.access.send(verb, path, **more))).body

    async def look(self) -> None:
        """Learn (again) which kinds are served."""
        await self._discovery.refresh()
        self.table = self._discovery.table

    async def version(self) -> tuple[int, int]:
        """Major and minor."""
        found = json.loads(await self._send("GET", "/version"))
        return int(found["major"]), int("".join(digit for digit in found["minor"] if digit.isdigit()))

    def resource(self, document: Mapping[str, Any]) -> Resource | None:
        """How the kind of an object is served; None: it is not."""
        group, _, version = str(document["apiVersion"]).rpartition("/")
        return chosen(self.table, group, document["kind"], (version,))

    def kind(self, group: str, kind: str) -> Resource | None:
        """A kind in the version that the API prefers; None: not served."""
        return next(iter(self.table.get((group, kind), ())), None)

    async def read(self, resource: Resource, name: str, namespace: str = "") -> Json | None:
        """One object; None: there is none."""
        body = await self._patiently(lambda: self.access.read(resource.path(namespace, name)))
        return json.loads(body) if body is not None else None

    async def listed(self, resource: Resource, selector: str = "", namespace: str = "") -> list[Json]:
        """All objects with these labels; kind and version are filled in. None if the kind is not there any more."""
        query = {"labelSelector": selector} if selector else {}
        try:
            body = await self._send("GET", resource.path(namespace), query=query)
        except Refused as refused:
            if refused.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
                return []
            raise
        envelope = {"apiVersion": resource.api_version, "kind": resource.kind}
        return [{**one, **envelope} for one in json.loads(body)["items"]]

    async def applied(self, document: Mapping[str, Any], *, dry_run: bool = False) -> str:
        """Apply an object: `created`, `configured` or `unchanged`. Raises Refused also where its kind is not served."""
        resource = self.resource(document)
        meta = document["metadata"]
        if resource is None:
            raise Refused("PATCH", document["kind"], HTTPStatus.NOT_FOUND, "NotFound", "the kind is not served")
        before = await self.read(resource, meta["name"], meta.get("namespace", ""))
        path, said = resource.path(meta.get("namespace", ""), meta["name"]), json.dumps(document).encode()
        body = await self._patiently(lambda: self.access.apply(path, said, OWNER, is_trial=dry_run))
        if before is None:
            return "created"
        after = json.loads(body)
        return "unchanged" if _content(before) == _content(after) else "configured"

    async def deleted(self, one: Mapping[str, Any]) -> None:
        """Delete an object as it was read; gone already is well."""
        resource = self.resource(one)
        if resource is None:
            return
        meta = one["metadata"]
        options = {"propagationPolicy": "Background", "preconditions": {"uid": meta["uid"]}}
        path = resource.path(meta.get("namespace", ""), meta["name"])
        try:
            await self._send("DELETE", path, body=json.dumps(options).encode())
        except Refused as refused:
            if refused.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def may(self, review: Review) -> bool:
        """Whether we hold a right (SelfSubjectAccessReview)."""
        attributes = {
            "verb": review.verb,
            "group": review.group,
            "resource": review.resource,
            "namespace": review.namespace,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = json.loads(await self._send("POST", path, body=json.dumps(body).encode()))
        return bool(answer["status"].get("allowed"))


def _content(one: Mapping[str, Any]) -> Json:
    meta = {key: value for key, value in one["metadata"].items() if key not in ("managedFields", "resourceVersion")}
    return {**one, "metadata": {**meta, "generation": 0}, "status": None}


def true_conditions(one: Mapping[str, Any]) -> dict[str, Json]:
    """The conditions in an object's status that are True, by type."""
    conditions = (one.get("status") or {}).get("conditions") or ()
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}


async def together(works: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """The answers of many questions, a dozen at a time, in order."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await work()

    return list(await asyncio.gather(*(one(work) for work in works)))


def in_cluster(kubeconfig: Path | None, context: str | None, work: Callable[[Cluster], Awaitable[T]]) -> T:
    """Do something with a cluster; refusals of the API end the command."""

    async def connected() -> T:
        async with Access.from_kubeconfig(kubeconfig, context) as access:
            cluster = Cluster(access)
            await cluster.look()
            return await work(cluster)

    try:
        return asyncio.run(connected())
    except KubeError as error:
        found = error.problem()
        refuse(found.text, exit_of(error), advice=found.advice, code=found.code)


def exit_of(error: KubeError) -> Exit:
    """The exit code of what went wrong with the API."""
    if isinstance(error, Refused) and error.is_denied:
        return Exit.FORBIDDEN
    return Exit.UNREACHABLE if isinstance(error, NoCluster | Unreachable) else Exit.FAILED


def refuse_with(code: str, exit_code: Exit = Exit.FAILED, **arguments: object) -> NoReturn:
    """End the command with a code of the catalogue."""
    found = problem(code, NOWHERE, **arguments)
    refuse(found.text, exit_code, advice=found.advice, code=code)
