"""Pods of a cluster in kubectl's words: what is meant by a name, what runs in them, how they are."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tulle.cli.apply_cluster import combined
from tulle.cli.cluster_connection import Replica, Said
from tulle.cli.cluster_logs import logs_of
from tulle.cli.cluster_pods import (
    containers,
    described,
    has_proxy,
    is_gateway,
    is_meant,
    of_the_mesh,
    owner,
    status_word,
)
from tulle.cli.connection import in_cluster, mesh_word

Json = dict[str, Any]
NOW = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)


def pod(name: str = "web-5f-x", *, proxy: str = "beside", namespace: str = "shop", **more: Any) -> Json:
    """`proxy`: beside (a native sidecar), alone (a gateway), none."""
    capture = {"name": "tulle-capture"}
    sidecar = {"name": "istio-proxy", "restartPolicy": "Always"}
    first = {"beside": [capture, sidecar]}.get(proxy, [])
    own = [{"name": "istio-proxy"}] if proxy == "alone" else [{"name": "app"}, {"name": "more"}]
    metadata = {"name": name, "namespace": namespace, "uid": "u", "creationTimestamp": "2026-11-21T12:00:00Z"}
    status = {"phase": "Running", "podIP": "10.0.0.1", **more.pop("status", {})}
    return {"metadata": metadata | more, "spec": {"initContainers": first, "containers": own}, "status": status}


def owned(kind: str, name: str) -> Json:
    return {"ownerReferences": [{"kind": kind, "name": name, "controller": True}]}


@pytest.mark.parametrize(
    ("kind", "name", "workload"),
    [
        ("ReplicaSet", "web-6dfcd5b9c", "web"),
        ("ReplicaSet", "web-v1-6dfcd5b9c", "web-v1"),
        ("StatefulSet", "db", "db"),
        ("Job", "once-28394", "once-28394"),
    ],
)
def test_the_workload_of_a_pod(kind: str, name: str, workload: str) -> None:
    assert owner(pod(**owned(kind, name))) == workload
    assert owner(pod()) == ""


@pytest.mark.parametrize("word", ["", "web-5f-x", "pod/web-5f-x", "web", "deploy/web", "shop-front", "other"])
def test_words_that_mean_a_pod(word: str) -> None:
    labels = {"app": "shop-front", "app.kubernetes.io/name": "other"}
    assert is_meant(pod(labels=labels, **owned("ReplicaSet", "web-6dfcd5b9c")), word)


@pytest.mark.parametrize("word", ["we", "web-5f", "app", "shop", "deploy/db"])
def test_words_that_mean_another(word: str) -> None:
    assert not is_meant(pod(**owned("ReplicaSet", "web-6dfcd5b9c")), word)


def test_what_goes_on_running() -> None:
    assert containers(pod()) == ["app", "more"]
    assert containers(pod(), with_proxy=True) == ["app", "more", "istio-proxy"]
    assert (has_proxy(pod()), is_gateway(pod())) == (True, False)
    assert (has_proxy(pod(proxy="alone")), is_gateway(pod(proxy="alone"))) == (True, True)
    assert not has_proxy(pod(proxy="none"))


def test_whose_log_is_printed() -> None:
    def names(one: Json, container: str = "") -> list[str]:
        return [log.container for log in logs_of(one, container)]

    assert names(pod()) == ["app", "more"]
    assert names(pod(), "istio-proxy") == ["istio-proxy"]
    assert names(pod(), "tulle-capture") == ["tulle-capture"]
    assert names(pod(proxy="alone")) == ["istio-proxy"]
    assert names(pod(proxy="none"), "istio-proxy") == []
    assert logs_of(pod(), "app")[0].path == "/api/v1/namespaces/shop/pods/web-5f-x/log"


def test_namespaces_without_a_proxy_are_left_out() -> None:
    found = [pod("a"), pod("b", proxy="none"), pod("c", proxy="none", namespace="kube-system")]
    assert [one["metadata"]["name"] for one in of_the_mesh(found)] == ["a", "b"]


def state(name: str, *, ready: bool = False, restarts: int = 0, **now: Any) -> Json:
    return {"name": name, "ready": ready, "restartCount": restarts, "state": now}


def test_a_pod_as_ps_prints_it() -> None:
    status = {
        "initContainerStatuses": [
            state("tulle-capture", terminated={"reason": "Completed"}),
            state("istio-proxy", ready=True, restarts=1, running={}),
        ],
        "containerStatuses": [state("app", ready=True, running={}), state("more", restarts=2, running={})],
    }
    found = described(pod(status=status), NOW, frozenset(("web-5f-x.shop",)))
    assert (found["ready"], found["total"], found["restarts"], found["ageSeconds"]) == (2, 3, 3, 30.0)
    assert (found["status"], found["sidecar"], found["role"]) == ("Running", "connected", "sidecar")
    assert described(pod(status=status), NOW, frozenset())["sidecar"] == "not connected"
    assert described(pod(status=status), NOW, None)["sidecar"] == "unknown"
    assert described(pod(proxy="none"), NOW, None)["sidecar"] == "none"


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({}, "Running"),
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        ({"containerStatuses": [state("app", waiting={"reason": "CrashLoopBackOff"})]}, "CrashLoopBackOff"),
        ({"containerStatuses": [state("app", waiting={"reason": "PodInitializing"})], "phase": "Pending"}, "Pending"),
        ({"containerStatuses": [state("app", terminated={"exitCode": 1})]}, "Error"),
        ({"initContainerStatuses": [state("istio-proxy", waiting={"reason": "ErrImagePull"})]}, "Init:ErrImagePull"),
        ({"initContainerStatuses": [state("tulle-capture", terminated={"reason": "Error"})]}, "Init:Error"),
    ],
)
def test_status_is_kubectls_word(status: Json, word: str) -> None:
    assert status_word(pod(status=status)) == word


def test_a_pod_that_ends_says_so() -> None:
    assert status_word(pod(deletionTimestamp="2026-11-21T12:00:10Z")) == "Terminating"


def test_the_word_for_a_mesh_in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TULLE_MESH", raising=False)
    assert [in_cluster(word) for word in ("kube", "kube:other", "kubernetes", None, "demo")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    monkeypatch.setenv("TULLE_MESH", "kube:other")
    assert (mesh_word(None), mesh_word("kube"), mesh_word("kube:third"), mesh_word("demo")) == (
        *("kube:other", "kube:other", "kube:third"),
        "demo",
    )


def test_answers_of_replicas_are_one() -> None:
    from tulle.cli.cluster_connection import _leafs, _proxies, _workloads

    away, here = (
        {"uid": "u", "id": "a.shop", "namespace": "shop", "stream": 0},
        {"uid": "u", "id": "a.shop", "namespace": "shop", "stream": 7},
    )
    for order in ([away, here], [here, away]):
        answers = [{"revision": number, "proxies": [one]} for number, one in enumerate(order)]
        assert _proxies(answers) == {"revision": 1, "proxies": [here]}
    without, connected = ({"namespace": "shop", "name": "a", "isConnected": word} for word in (False, True))
    assert _workloads([{"workloads": [without]}, {"workloads": [connected]}])["workloads"] == [connected]
    old, new = ({"proxy": "a.shop", "remainingSeconds": left} for left in (5.0, 50.0))
    assert _leafs([{"leafs": [new], "trustDomain": "t"}, {"leafs": [old]}]) == {"leafs": [new], "trustDomain": "t"}


def test_a_secret_is_shown_without_its_values() -> None:
    from tulle.cli.cluster_connection import _shown

    annotations = {"kubectl.kubernetes.io/last-applied-configuration": '{"data": "c2VjcmV0"}', "mine": "1"}
    raw = {
        "kind": "Secret",
        "metadata": {"name": "s", "annotations": annotations, "managedFields": [1]},
        "data": {"k": "c2VjcmV0"},
    }
    assert "c2VjcmV0" not in str(_shown(raw))
    assert _shown(raw)["metadata"] == {"name": "s", "annotations": {"mine": "1"}}


def applied(**more: Any) -> Json:
    made: Json = {
        "revision": 3,
        "milliseconds": 5,
        "affected": 2,
        "live": 2,
        "refused": [],
        "waiting": [],
        "disconnected": [],
    }
    return made | {"problems": []} | more


def test_an_apply_over_replicas_counts_each_proxy_once() -> None:
    """Each calls those of the other disconnected."""
    one = Said(Replica("one"), applied(affected=3, live=3, disconnected=["b.shop", "gone.shop"], milliseconds=9))
    other = Said(
        Replica("other"), applied(affected=1, live=0, waiting=["b.shop"], disconnected=["a.shop", "gone.shop"])
    )
    found = combined([one, other], [])
    assert (found["affected"], found["live"], found["milliseconds"]) == (4, 3, 9)
    assert (found["waiting"], found["disconnected"]) == (["b.shop"], ["gone.shop"])


@pytest.mark.parametrize("is_unready", [True, False])
def test_a_silent_replica_is_waited_for_if_a_proxy_may_be_at_it(is_unready: bool) -> None:
    silent = [] if is_unready else [Said(Replica("other"), None, "timed out")]
    unready = ["other: it is not ready"] if is_unready else []
    whole = combined([Said(Replica("one"), applied()), *silent], unready)
    assert (whole["waiting"], whole["disconnected"]) == ([], [])
    found = combined([Said(Replica("one"), applied(disconnected=["b.shop"])), *silent], unready)
    assert found["disconnected"] == []
    (words,) = found["waiting"]
    assert words.startswith("b.shop (perhaps connected to other: ")
