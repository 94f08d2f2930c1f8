"""Pods that have a proxy to serve: each gets a socket of its own, which is its identity. Pure.

Knows no sockets (`ads.py`) and no streams (`fleet.py`).
"""

import re

from msgspec import Struct

from tulle.dialects.inputs import by_kind, objects
from tulle.dialects.kubernetes import workload
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey, WorkloadKey

_UID = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
"""Becomes a directory's name."""


class Seat(Struct, frozen=True, order=True):
    """A pod with a proxy."""

    uid: str
    workload: WorkloadKey
    service_account: str
    is_gateway: bool

    @property
    def id(self) -> str:
        """How people name the proxy: `pod.namespace`, as istioctl does."""
        return f"{self.workload.name}.{self.workload.namespace}"


@query
def seat_of(db: Database, key: ObjectKey) -> Seat | None:
    """The seat of a Pod object; None where no proxy runs in it. A pod that becomes ready has the same seat."""
    found = objects(db, key)
    if found is None or key.group or not _UID.match(found.uid):
        return None
    pod = workload(db, WorkloadKey(key.cluster, key.namespace, key.name))
    if pod is None or not pod.has_sidecar:
        return None
    return Seat(found.uid, pod.key, pod.service_account, pod.is_gateway)


@query
def seats(db: Database, cluster: str) -> tuple[Seat, ...]:
    """Every seat of a cluster, sorted by uid."""
    found = (seat_of(db, key) for key in by_kind(db, (cluster, "Pod")))
    return tuple(sorted(seat for seat in found if seat is not None))
