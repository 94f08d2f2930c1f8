"""Which pods of a workload to make and which to end: the controllers of Deployments, StatefulSets and Jobs.

Pure. One new pod more than asked for at most (maxSurge 1), none of the ready ones less (maxUnavailable 0): a pod of
the old template goes only when one of the new is ready, and live on every proxy (`is_settled`). A StatefulSet has
stable names, so its pods are replaced one by one, last first. Source: Kubernetes, "Deployments", "StatefulSets".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from tulle.local.desired import Workload
from tulle.model.keys import ObjectKey


class Present(Struct, frozen=True):
    """A pod that exists."""

    uid: str
    name: str
    owner: ObjectKey
    index: int
    template_hash: str
    is_ready: bool
    """Ready, and every proxy knows it."""
    is_terminating: bool
    is_over: bool = False
    """Ended by itself, for good."""


class Make(Struct, frozen=True):
    """Make one pod."""

    workload: Workload
    index: int


class End(Struct, frozen=True):
    """End one pod."""

    uid: str


Order = Make | End


def orders(desired: Mapping[ObjectKey, Workload], present: Sequence[Present]) -> tuple[Order, ...]:
    """What to do now; asked again whenever a pod changes, it comes to rest."""
    found: list[Order] = []
    of: dict[ObjectKey, list[Present]] = {}
    for pod in present:
        of.setdefault(pod.owner, []).append(pod)
    for key, pods in of.items():
        if key not in desired:
            found += [End(pod.uid) for pod in pods if not pod.is_terminating]
    names = {pod.name for pod in present}
    for key, workload in desired.items():
        pods = of.get(key, [])
        ordered = workload.is_ordered or workload.key.kind == "Pod"
        found += _replace_in_place(workload, pods, names) if ordered else _roll(workload, pods, names)
    return tuple(found)


def _roll(workload: Workload, pods: Sequence[Present], names: set[str]) -> list[Order]:
    alive = [pod for pod in pods if not pod.is_terminating]
    fresh = [pod for pod in alive if pod.template_hash == workload.template_hash]
    stale = sorted((pod for pod in alive if pod not in fresh), key=lambda pod: (pod.is_ready, pod.index))
    found: list[Order] = [End(pod.uid) for pod in fresh if pod.index >= workload.replicas]
    fresh = [pod for pod in fresh if pod.index < workload.replicas]
    missing = [index for index in range(workload.replicas) if index not in {pod.index for pod in fresh}]
    room = workload.replicas + 1 - len(fresh) - len(stale) if stale else len(missing)
    found += [Make(workload, index) for index in missing[: max(room, 0)] if workload.pod_name(index) not in names]
    spare = sum(pod.is_ready or pod.is_over for pod in fresh) + sum(pod.is_ready for pod in stale) - workload.replicas
    for pod in stale:
        if not pod.is_ready or spare > 0:
            found.append(End(pod.uid))
            spare -= pod.is_ready
    return found


def _replace_in_place(workload: Workload, pods: Sequence[Present], names: set[str]) -> list[Order]:
    alive = {pod.index: pod for pod in pods if not pod.is_terminating}
    surplus = [pod for index, pod in sorted(alive.items(), reverse=True) if index >= workload.replicas]
    if surplus:
        return [End(surplus[0].uid)]
    for index in range(workload.replicas):
        pod = alive.get(index)
        if pod is None:
            return [] if workload.pod_name(index) in names else [Make(workload, index)]
        if not pod.is_ready and pod.template_hash == workload.template_hash and not pod.is_over:
            return []
    stale = [pod for _, pod in sorted(alive.items(), reverse=True) if pod.template_hash != workload.template_hash]
    return [End(stale[0].uid)] if stale else []
