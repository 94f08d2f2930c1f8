"""Rollouts as a simulation: a workload changes, pods obey, and never too few of them serve."""

from __future__ import annotations

from msgspec.structs import replace

from tulle.dialects.kubernetes.injection import Role
from tulle.local.desired import Workload
from tulle.local.manifests import PodSpec
from tulle.local.rollout import End, Make, Present, orders
from tulle.model.keys import ObjectKey


def workload(replicas: int, template: str, kind: str = "Deployment") -> Workload:
    key = ObjectKey("c", "apps", kind, "shop", "web")
    return Workload(key, replicas, PodSpec(), (), (), template, Role.SIDECAR, "")


class Fleet:
    """Pods that do what they are told, one step at a time."""

    def __init__(self) -> None:
        self.pods: dict[str, Present] = {}
        self.made = 0

    def obey(self, wanted: Workload | None) -> list[str]:
        desired = {wanted.key: wanted} if wanted else {}
        said = []
        for order in orders(desired, list(self.pods.values())):
            if isinstance(order, Make):
                self.made += 1
                uid = f"u{self.made}"
                name = order.workload.pod_name(order.index)
                assert name not in {pod.name for pod in self.pods.values()}
                key, template = order.workload.key, order.workload.template_hash
                self.pods[uid] = Present(uid, name, key, order.index, template, False, False)
                said.append(f"make {template}/{order.index}")
            else:
                assert isinstance(order, End)
                pod = self.pods[order.uid]
                self.pods[order.uid] = replace(pod, is_terminating=True, is_ready=False)
                said.append(f"end {pod.template_hash}/{pod.index}")
        return said

    def become_ready(self) -> None:
        for uid, pod in self.pods.items():
            if not pod.is_terminating:
                self.pods[uid] = replace(pod, is_ready=True)

    def leave(self) -> None:
        self.pods = {uid: pod for uid, pod in self.pods.items() if not pod.is_terminating}

    @property
    def ready(self) -> int:
        return sum(pod.is_ready for pod in self.pods.values())


def running(replicas: int, template: str = "a", kind: str = "Deployment") -> Fleet:
    fleet = Fleet()
    for _ in range(20):
        fleet.obey(workload(replicas, template, kind))
        fleet.become_ready()
    assert fleet.ready == replicas
    return fleet


def test_all_pods_of_a_new_workload_are_made_at_once() -> None:
    assert Fleet().obey(workload(3, "a")) == ["make a/0", "make a/1", "make a/2"]


def test_nothing_is_done_at_rest() -> None:
    assert running(3).obey(workload(3, "a")) == []


def test_scaling_takes_the_last() -> None:
    fleet = running(3)
    assert fleet.obey(workload(1, "a")) == ["end a/1", "end a/2"]
    fleet.leave()
    assert fleet.obey(workload(3, "a")) == ["make a/1", "make a/2"]


def test_a_pod_that_is_still_leaving_is_waited_for() -> None:
    fleet = running(2)
    fleet.obey(workload(1, "a"))
    assert fleet.obey(workload(2, "a")) == []
    fleet.leave()
    assert fleet.obey(workload(2, "a")) == ["make a/1"]


def test_a_roll_never_serves_with_less_and_never_has_two_more() -> None:
    fleet = running(3)
    for _ in range(12):
        fleet.obey(workload(3, "b"))
        assert fleet.ready >= 3
        assert sum(not pod.is_terminating for pod in fleet.pods.values()) <= 4
        fleet.become_ready()
        fleet.leave()
    assert {pod.template_hash for pod in fleet.pods.values()} == {"b"}
    assert fleet.ready == 3


def test_a_template_that_never_becomes_ready_stops_the_roll() -> None:
    fleet = running(2)
    for _ in range(5):
        fleet.obey(workload(2, "broken"))
    assert fleet.ready == 2
    assert sorted(pod.template_hash for pod in fleet.pods.values()) == ["a", "a", "broken"]


def test_a_broken_roll_is_taken_back() -> None:
    fleet = running(2)
    fleet.obey(workload(2, "broken"))
    assert fleet.obey(workload(2, "a")) == ["end broken/0"]


def test_pods_without_a_workload_end() -> None:
    assert running(2).obey(None) == ["end a/0", "end a/1"]


def test_a_stateful_set_goes_one_by_one() -> None:
    fleet = Fleet()
    assert fleet.obey(workload(2, "a", "StatefulSet")) == ["make a/0"]
    assert fleet.obey(workload(2, "a", "StatefulSet")) == []
    fleet.become_ready()
    assert fleet.obey(workload(2, "a", "StatefulSet")) == ["make a/1"]
    fleet.become_ready()
    assert fleet.obey(workload(2, "b", "StatefulSet")) == ["end a/1"]
    assert fleet.obey(workload(2, "b", "StatefulSet")) == []
    fleet.leave()
    assert fleet.obey(workload(2, "b", "StatefulSet")) == ["make b/1"]
    assert fleet.obey(workload(2, "b", "StatefulSet")) == []
    fleet.become_ready()
    assert fleet.obey(workload(2, "b", "StatefulSet")) == ["end a/0"]
