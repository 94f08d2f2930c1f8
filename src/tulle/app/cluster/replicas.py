"""What replicas say to each other: how many proxies each serves, and which bundle of roots all of them trust. Kept in Leases.

Adapter. Who waits for it, and why: `identity.moves`.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

from tulle.app.cluster.duties import OURS
from tulle.kube.access import Access
from tulle.kube.errors import KubeError
from tulle.kube.leases import LEASES
from tulle.serve import logs

REPLICA_LABEL = "tulle.dev/replica"
FRESH = timedelta(seconds=30)
_BUNDLE, _STREAMS = "tulle.dev/bundle", "tulle.dev/streams"


class _Meta(Struct, frozen=True):
    name: str = ""
    annotations: dict[str, str] = {}


class _LeaseSpec(Struct, rename="camel", frozen=True):
    renew_time: datetime | None = None


class _Lease(Struct, frozen=True):
    metadata: _Meta = _Meta()
    spec: _LeaseSpec = _LeaseSpec()


class _Leases(Struct):
    items: tuple[_Lease, ...] = ()


class Replicas:
    """One replica's voice, and its ear."""

    def __init__(self, access: Access, namespace: str, name: str) -> None:
        self._access = access
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
            document = msgspec.json.encode(self._document(bundle, streams, now))
            await self._access.apply(LEASES.path(self._namespace, self._lease), document)
            self._said, self._said_at = (bundle, streams), now
        body = await self._access.get(LEASES.path(self._namespace), {"labelSelector": f"{REPLICA_LABEL}=true"})
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
            await self._access.send("DELETE", LEASES.path(self._namespace, self._lease))
        except KubeError as error:
            logs.event(logging.INFO, "replica's lease stays until it is old", error=str(error))

    def _document(self, bundle: str, streams: int, now: datetime) -> Mapping[str, object]:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
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
