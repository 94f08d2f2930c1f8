"""What a control plane in a cluster does beside serving: the trust root of every namespace, and telling other replicas how far it is.

Adapters with a `settle` each, called again and again; each writes only what changed. Who calls them, and when, is `cluster.py`'s.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import msgspec
from msgspec import Struct

from tulle.kube.access import Access
from tulle.kube.errors import KubeError, Refused
from tulle.serve import logs

ROOT_MAP = "tulle-ca-root-cert"
ROOT_FILE = "root-cert.pem"
MANAGER = "tulle"
OURS: Mapping[str, str] = {"app.kubernetes.io/managed-by": "tulle", "app.kubernetes.io/part-of": "tulle"}
NO_ROOTS_IN = frozenset(("kube-system", "kube-public", "kube-node-lease"))
"""Nothing is injected there."""
REPLICA_LABEL = "tulle.dev/replica"
FRESH = timedelta(seconds=30)
_BUNDLE, _STREAMS = "tulle.dev/bundle", "tulle.dev/streams"
_APPLY = "application/apply-patch+yaml"
_AGAIN_S = 600.0
"""What was written is written again after this, for those who deleted it."""


async def applied(access: Access, path: str, document: Mapping[str, object]) -> None:
    """Server-side apply: what we say stands, whatever stood there. Raises Refused and Unreachable."""
    query = {"fieldManager": MANAGER, "force": "true"}
    await access.send("PATCH", path, query=query, body=msgspec.json.encode(document), content_type=_APPLY)


class TrustRoots:
    """The ConfigMap from which sidecars read whom to trust before they have met us."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._written: dict[tuple[str, str], tuple[bytes, float]] = {}
        """By name and uid of the namespace: one of the same name may come again."""

    async def settle(self, namespaces: Mapping[str, str], pem: bytes, now: float) -> int:
        """Bring every namespace (name -> uid) up to date; how many were written. A refusal is told and tried again."""
        wanted = {(name, uid) for name, uid in namespaces.items() if name not in NO_ROOTS_IN}
        self._written = {one: what for one, what in self._written.items() if one in wanted}
        written = 0
        for one in sorted(wanted):
            last, at = self._written.get(one, (b"", 0.0))
            if last == pem and now < at + _AGAIN_S:
                continue
            try:
                await self._write(one[0], pem)
            except Refused as refused:
                # A namespace that is being deleted takes nothing new.
                if refused.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
                    raise
                logs.event(logging.WARNING, "trust root not written", namespace=one[0], error=str(refused))
            self._written[one] = (pem, now)
            written += 1
        return written

    async def _write(self, namespace: str, pem: bytes) -> None:
        path = f"/api/v1/namespaces/{namespace}/configmaps/{ROOT_MAP}"
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ROOT_MAP, "namespace": namespace, "labels": OURS},
            "data": {ROOT_FILE: pem.decode()},
        }
        await applied(self._access, path, document)


class _Meta(Struct):
    name: str = ""
    annotations: dict[str, str] = {}


class _LeaseSpec(Struct, rename="camel"):
    renew_time: datetime | None = None


class _Lease(Struct):
    metadata: _Meta = _Meta()
    spec: _LeaseSpec = _LeaseSpec()


class _Leases(Struct):
    items: tuple[_Lease, ...] = ()


class Replicas:
    """What each replica says of its own proxies: how many they are and which bundle all of them trust. Kept in Leases."""

    def __init__(self, access: Access, namespace: str, name: str) -> None:
        self._access = access
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._lease = f"tulled-replica-{name}"
        self._namespace = namespace
        self._said: tuple[str, int] | None = None
        self._said_at = datetime.fromtimestamp(0, UTC)
        self._others: tuple[tuple[str, int], ...] = ()

    def trusting(self, version: str) -> int:
        """How many proxies of other replicas trust this bundle; -1 while one of them does not, or is not known to."""
        if any(bundle != version for bundle, _ in self._others):
            return -1
        return sum(streams for _, streams in self._others)

    async def settle(self, bundle: str, streams: int) -> None:
        """Say how far we are, if that changed or was said long ago, and hear the others. Raises Refused and Unreachable."""
        now = datetime.now(UTC)
        if (bundle, streams) != self._said or now > self._said_at + FRESH / 3:
            await applied(self._access, f"{self._path}/{self._lease}", self._document(bundle, streams, now))
            self._said, self._said_at = (bundle, streams), now
        body = await self._access.get(self._path, {"labelSelector": f"{REPLICA_LABEL}=true"})
        self._others = tuple(
            (lease.metadata.annotations.get(_BUNDLE, ""), int(lease.metadata.annotations.get(_STREAMS, "0")))
            for lease in msgspec.json.decode(body, type=_Leases).items
            if lease.metadata.name != self._lease
            and lease.spec.renew_time is not None
            and lease.spec.renew_time > now - FRESH
        )

    async def leave(self) -> None:
        """We end: nobody shall wait for us."""
        try:
            await self._access.send("DELETE", f"{self._path}/{self._lease}")
        except KubeError as error:
            logs.event(logging.INFO, "replica's lease stays until it is old", error=str(error))

    def _document(self, bundle: str, streams: int, now: datetime) -> Mapping[str, object]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._lease,
                "namespace": self._namespace,
                "labels": {**OURS, REPLICA_LABEL: "true"},
                "annotations": {_BUNDLE: bundle, _STREAMS: str(streams)},
            },
            "spec": {
                "holderIdentity": self._lease,
                "leaseDurationSeconds": int(FRESH.total_seconds()),
                "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
