"""The faults: each does one thing to the mesh in the cluster inside a window and returns the proof that it was done."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from fault_cluster import FRONT, NS, SYSTEM, FaultCluster
from fault_window import Window
from kube_shapes import IMAGE

API_AWAY_S = 62
CANARY = "canary"
TAG = "stable"


def control_plane_killed(mesh: FaultCluster, window: Window) -> str:
    """kill -9 of the leader's process; the kubelet starts it again."""
    victim = mesh.lead()
    before = mesh.process(victim)
    held = _connected(mesh, victim)
    window.sleep_until(0.15)
    window.mark()
    os.kill(before, signal.SIGKILL)
    after = mesh.until("not started again", lambda: (pid := mesh.process(victim)) != before and pid, 60)
    mesh.until("not everybody is served again", lambda: _all_served(mesh), 60)
    back = time.time() - window.begin - window.when[-1]
    lead = mesh.until("nobody leads", mesh.lead, 30)
    return f"the leader's pid {before} → {after}; {held} of its proxies connected again, all served after {back:.0f} s; {_end(lead)} leads"


def control_plane_deleted(mesh: FaultCluster, window: Window) -> str:
    """The replica that serves most proxies taken away without notice."""
    victim = max(_names(mesh.replicas()), key=lambda name: _connected(mesh, name))
    held = _connected(mesh, victim)
    window.sleep_until(0.15)
    window.mark()
    mesh.cluster.kubectl("delete", "pod", victim, "-n", SYSTEM, "--grace-period=0", "--force")
    mesh.until("no other pod", lambda: mesh.is_available("tulled", SYSTEM) and len(mesh.replicas()) == 2, 90)
    mesh.until("not everybody is served again", lambda: _all_served(mesh), 60)
    back = time.time() - window.begin - window.when[-1]
    now = [str(pod["metadata"]["name"]) for pod in mesh.replicas()]
    assert victim not in now
    lead = mesh.until("nobody leads", lambda: (name := mesh.lead()) != victim and name, 60)
    assert held
    return f"{_end(victim)} is gone, there are {_ends(now)}; {held} of its proxies connected again, all served after {back:.0f} s; {_end(lead)} leads"


def api_away(mesh: FaultCluster, window: Window) -> str:
    """etcd and the API server dead for a minute: certificates are renewed, a proxy that starts anew is proven.

    A replica dies meanwhile, too: its proxies go to the other one, which has never seen their tokens.
    """
    pods = {
        str(pod["metadata"]["name"]): str(pod["metadata"]["uid"])
        for app in ("crowd", "steady")
        for pod in mesh.pods(app)
    }
    spare = mesh.pods("spare")[0]
    replicas = [str(pod["metadata"]["name"]) for pod in mesh.replicas()]
    victim = max(replicas, key=lambda name: _connected(mesh, name))
    (other,) = (name for name in replicas if name != victim)
    before = {name: mesh.certificates(uid)["leaf"] for name, uid in pods.items()}
    envoy = mesh.envoy(str(spare["metadata"]["uid"]))
    pid = mesh.cluster.pid("server")
    window.sleep_until(0.05)
    window.mark()
    mesh.cluster.stop("server")
    # The lab's controllers elect no leader. Those that do end when they lose their lease; these would come out of the minute with old times of
    # every node's last word and call all nodes lost, and all pods with them.
    mesh.cluster.stop("controllers")
    began = time.time()
    try:
        assert not Path(f"/proc/{pid}").exists()
        time.sleep(8)
        os.kill(envoy, signal.SIGKILL)
        again = mesh.until(
            "the proxy did not start again",
            lambda: (now := mesh.envoy(str(spare["metadata"]["uid"]))) != envoy and now,
            30,
        )
        served = mesh.until(
            "the proxy that started anew has no certificate",
            lambda: mesh.certificates(str(spare["metadata"]["uid"]))["leaf"],
            30,
        )
        proven_after = time.time() - began - 8
        moved = _connected(mesh, victim)
        os.kill(mesh.process(victim), signal.SIGKILL)
        mesh.until("proxies did not come to the other replica", lambda: _all_connected(mesh, other, pods), 30)
        time.sleep(max(0.0, began + API_AWAY_S - time.time()))
        assert not _api_answers(mesh)
        renewed = [name for name, uid in pods.items() if not mesh.certificates(uid)["leaf"] & before[name]]
        assert len(renewed) == len(pods), f"not renewed: {set(pods) - set(renewed)}"
        away = time.time() - began
    finally:
        mesh.cluster.start("server")
        window.mark()
        mesh.until("the API does not come back", lambda: _api_answers(mesh), 60)
        mesh.cluster.start("controllers")
    mesh.until("nobody leads again", lambda: _all_served(mesh), 60)
    return (
        f"API server's pid {pid} dead for {away:.0f} s; certificates of {len(renewed)} of {len(pods)} pods renewed meanwhile; Envoy {envoy} → "
        f"{again} proven after {proven_after:.0f} s (serial {_end(min(served))}); {moved} proxies of a replica that was killed proven by the other; pid {mesh.cluster.pid('server')} now"
    )


def rolled(mesh: FaultCluster, window: Window) -> str:
    """kubectl rollout restart of the service that the load calls; its streams lead to it, too."""
    before = _names(mesh.pods("crowd"))
    window.sleep_until(0.1)
    window.mark()
    mesh.cluster.kubectl("rollout", "restart", "deploy/crowd-v1", "-n", NS)
    mesh.until("not rolled", lambda: mesh.is_available("crowd-v1"), 120)
    mesh.until("old pods stay", lambda: not before & _names_of_all(mesh, "crowd"), 60)
    window.mark()
    after = _names(mesh.pods("crowd"))
    assert not before & after
    return f"pods {_ends(before)} → {_ends(after)}"


def gateway_rolled(mesh: FaultCluster, window: Window) -> str:
    """The same of the ingress gateway, called from outside."""
    before = _names(mesh.pods("istio-ingressgateway", FRONT))
    window.sleep_until(0.1)
    window.mark()
    mesh.cluster.kubectl("rollout", "restart", "deploy/istio-ingressgateway", "-n", FRONT)
    mesh.until("not rolled", lambda: mesh.is_available("istio-ingressgateway", FRONT), 120)
    mesh.until("old pods stay", lambda: not before & _names_of_all(mesh, "istio-ingressgateway", FRONT), 60)
    window.mark()
    after = _names(mesh.pods("istio-ingressgateway", FRONT))
    assert not before & after
    return f"gateways {_ends(before)} → {_ends(after)}"


def drained(mesh: FaultCluster, window: Window) -> str:
    """kubectl drain of the second node, and back."""
    for app, deployment, space in DRAINED:
        _bring_to_node2(mesh, app, deployment, space)
    gone = [one for one in _living(mesh) if one[1] == "node2"]
    assert {app for app, _, _ in DRAINED} <= {app for app, _, _ in gone}, gone
    window.mark()
    mesh.cluster.kubectl(
        "drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s", limit_s=160
    )
    try:
        window.mark()
        left = [name for _, node, name in _living(mesh) if node == "node2"]
        assert not left, left
        for _, name, space in DRAINED:
            mesh.until(
                f"{name} is not whole on one node", lambda name=name, space=space: mesh.is_available(name, space), 90
            )
        mesh.until("not everybody is served", lambda: _all_served(mesh), 60)
    finally:
        mesh.cluster.kubectl("uncordon", "node2")
    return f"{len(gone)} pods evicted from node2 ({_ends(name for _, _, name in gone)}); all Deployments whole on node1 after {time.time() - window.begin - window.when[0]:.0f} s"


DRAINED = (("crowd", "crowd-v1", NS), ("tulled", "tulled", SYSTEM), ("istio-ingressgateway",) * 2 + (FRONT,))
"""App, Deployment and namespace of what has two replicas."""


def _bring_to_node2(mesh: FaultCluster, app: str, deployment: str, space: str) -> None:
    """Where earlier rows left all replicas on the other node."""
    if any(pod["spec"]["nodeName"] == "node2" for pod in mesh.pods(app, space)):
        return
    mesh.cluster.kubectl("cordon", "node1")
    try:
        victim = min(_names(mesh.pods(app, space)))
        mesh.cluster.kubectl("delete", "pod", victim, "-n", space, "--wait=false")
        mesh.until(f"{app} is not on node 2", lambda: victim not in _names(mesh.pods_of_all(app, space)), 60)
        mesh.until(f"{app} is not whole", lambda: mesh.is_available(deployment, space), 60)
    finally:
        mesh.cluster.kubectl("uncordon", "node1")


# --- revisions --------------------------------------------------------------------------------------------------------


def upgraded(mesh: FaultCluster, window: Window, install: tuple[str, ...]) -> str:
    """A second control plane under a revision, a tag at it, namespace and gateway moved, the first one uninstalled; and back."""
    window.sleep_until(0.02)
    pods = [_names(mesh.pods("crowd"))]
    gateways = [_names(mesh.pods("istio-ingressgateway", FRONT))]
    serial = _roots_of(mesh)
    for revision, words in ((CANARY, [f"--revision={CANARY}"]), ("default", [])):
        before = CANARY if revision == "default" else "default"
        window.mark()
        mesh.tulle("install", *install, *words, "--wait=120s", "--yes")
        mesh.tulle("tag", "set", TAG, f"--revision={revision}", "--overwrite")
        _move_namespace(mesh, {"istio-injection": None, "istio.io/rev": TAG})
        pods.append(_names(mesh.pods("crowd")))
        window.mark()
        # The gateway is that of all revisions: this one takes it over.
        mesh.tulle("install", *install, *words, "--set=ingress.enabled=true", "--wait=120s", "--yes")
        mesh.until("the gateway is not moved", lambda: mesh.is_available("istio-ingressgateway", FRONT), 120)
        gateways.append(_names(mesh.pods("istio-ingressgateway", FRONT)))
        moved = {f"{name}.{NS}" for name in pods[-1]} | {f"{name}.{FRONT}" for name in gateways[-1]}
        mesh.until(
            "not all are at the new one",
            lambda moved=moved, revision=revision: moved <= set(mesh.proxies(revision)),
            60,
        )
        window.mark()
        mesh.tulle("uninstall", f"--revision={before}", "--yes")
        mesh.until("the old one stays", lambda before=before: not _names_of_all(mesh, "tulled", SYSTEM, before), 90)
        assert len(mesh.pods("istio-ingressgateway", FRONT)) == 2, "the gateway went with the old revision"
        time.sleep(5)
    _move_namespace(mesh, {"istio-injection": "enabled", "istio.io/rev": None}, restarts=False)
    mesh.tulle("tag", "remove", TAG)
    assert _roots_of(mesh) == serial
    assert len(set.union(*pods)) == sum(map(len, pods)), pods
    told = " → ".join(f"{_ends(one)} at {name}" for one, name in zip(pods, ("default", CANARY, "default"), strict=True))
    return f"pods {told}; gateways {' → '.join(map(_ends, gateways))}; each control plane was uninstalled while the other served; root {_end(serial[0])} throughout"


def _move_namespace(mesh: FaultCluster, labels: dict[str, str | None], *, restarts: bool = True) -> None:
    words = [f"{name}-" if value is None else f"{name}={value}" for name, value in labels.items()]
    mesh.cluster.kubectl("label", "ns", NS, "--overwrite", *words)
    if restarts:
        _restart(mesh)


def _restart(mesh: FaultCluster) -> None:
    """Every server; the load goes on."""
    before = _names_of_all(mesh, "crowd") | _names_of_all(mesh, "steady")
    for name in ("crowd-v1", "steady-v1"):
        mesh.cluster.kubectl("rollout", "restart", f"deploy/{name}", "-n", NS)
    for name in ("crowd-v1", "steady-v1"):
        mesh.until(f"{name} is not rolled", lambda name=name: mesh.is_available(name), 120)
    mesh.until("old pods stay", lambda: not before & (_names_of_all(mesh, "crowd") | _names_of_all(mesh, "steady")), 60)


# --- certificates and tokens ------------------------------------------------------------------------------------------


def root_rotated(mesh: FaultCluster, window: Window) -> str:
    """A → A+B → B at every proxy of two replicas, in what sidecars trust, in what the webhook shows; pods are admitted throughout."""
    uids = [str(pod["metadata"]["uid"]) for app in ("crowd", "steady") for pod in mesh.pods(app)]

    def trusted() -> list[set[str]]:
        return [mesh.certificates(uid)["roots"] for uid in uids]

    (first,) = {frozenset(roots) for roots in trusted()}
    assert len(first) == 1
    shown = [_webhook_issuer(mesh)]
    window.sleep_until(0.02)
    with _admitting(mesh) as admitted:
        window.mark()
        with mesh.admin(mesh.lead()) as ask:
            ask("/v1/ca/rotate", "POST")
        mesh.until("the second root did not arrive everywhere", lambda: all(roots > first for roots in trusted()), 30)
        window.mark()
        both = trusted()[0]
        second = both - first
        shown.append(
            mesh.until(
                "the webhook's certificate stays", lambda: (one := _webhook_issuer(mesh)) != shown[0] and one, 240
            )
        )
        window.mark()
        # The sidecars' mounts must have learned the root by now: a control plane of the new root is met.
        victim = max(_names(mesh.replicas()), key=lambda name: _connected(mesh, name))
        moved = _connected(mesh, victim)
        os.kill(mesh.process(victim), signal.SIGKILL)
        mesh.until("proxies refuse the new certificate", lambda: _all_served(mesh), 30)
        mesh.until("the first root never left", lambda: all(roots == second for roots in trusted()), 240)
        window.mark()
        shown.append(_webhook_issuer(mesh))
    assert admitted.failed == [], admitted.failed[:3]
    assert admitted.count > 10
    (a,), (b,) = first, second
    names = " → ".join((_end(a), f"{_end(a)}+{_end(b)}", _end(b)))
    return f"root {names} at {len(uids)} sidecars of 2 replicas; {moved} streams were cut and met the new certificate; webhook's signer {_end(shown[0])} → {_end(shown[1])}, {admitted.count} pods admitted, 0 refused"


def token_renewed(mesh: FaultCluster, window: Window) -> str:
    """Tokens of ten minutes (the least there is): the streams that the first ones opened end with them, the next have the second."""
    window.sleep_until(0.02)
    pods = [pod for app in ("steady", "load", "spare") for pod in mesh.pods(app)]
    before = {one["id"]: one["connectedAt"] for one in mesh.proxies().values()}
    ids = [f"{pod['metadata']['name']}.{NS}" for pod in pods]
    window.mark()

    def renewed() -> bool:
        now = {one["id"]: one["connectedAt"] for one in mesh.proxies().values()}
        return all(now.get(name, 0) > before[name] for name in ids)

    mesh.until("no stream ended with its token", renewed, 660)
    window.mark()
    said = mesh.cluster.kubectl("logs", "-n", SYSTEM, "-l", "app=tulled", "--tail=-1", "--prefix", limit_s=30)
    ends = [line for line in said.splitlines() if "disconnected" in line and "token" in line]
    assert len(ends) >= len(ids), ends
    names = _ends(name.partition(".")[0] for name in ids)
    return f"{len(ends)} streams ended with their tokens and came back with others, among them those of {names}"


class Admitted:
    """Pods that were asked to be made, without being made."""

    def __init__(self) -> None:
        self.count = 0
        self.failed: list[str] = []


@contextmanager
def _admitting(mesh: FaultCluster) -> Iterator[Admitted]:
    """A pod per second, dry: it must come back with its proxy."""
    found, over = Admitted(), threading.Event()
    pod = f"{{apiVersion: v1, kind: Pod, metadata: {{generateName: asks-, namespace: {NS}}}, spec: {{containers: [{{name: a, image: '{IMAGE}'}}]}}}}"

    def ask() -> None:
        while not over.wait(1.0):
            try:
                said = mesh.cluster.kubectl("create", "-f", "-", "--dry-run=server", "-o", "json", text=pod, limit_s=20)
            except subprocess.SubprocessError as error:
                found.failed.append(str(getattr(error, "stderr", error)))
                continue
            found.count += 1
            if '"istio-proxy"' not in said:
                found.failed.append("no proxy")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join(30)


def _webhook_issuer(mesh: FaultCluster) -> str:
    """Key of the root that signed what the first replica's webhook shows (every replica's must be the same, soon)."""
    found = set()
    for pod in mesh.replicas():
        pem = ssl.get_server_certificate((pod["status"]["podIP"], 15017), timeout=5)
        extension = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
            x509.AuthorityKeyIdentifier
        )
        found.add((extension.value.key_identifier or b"").hex())
    if len(found) != 1:
        raise LookupError("replicas differ")
    return found.pop()


# --- what is there ----------------------------------------------------------------------------------------------------


def _roots_of(mesh: FaultCluster) -> list[str]:
    return sorted(mesh.certificates(str(mesh.pods("steady")[0]["metadata"]["uid"]))["roots"])


def _living(mesh: FaultCluster) -> list[tuple[str, str, str]]:
    """(app, node, name) of pods that run and are not of the system's."""
    return [
        (str(one["metadata"]["labels"].get("app", "")), str(one["spec"]["nodeName"]), str(one["metadata"]["name"]))
        for space in (NS, SYSTEM, FRONT)
        for one in mesh.read(f"/api/v1/namespaces/{space}/pods?fieldSelector=status.phase%3DRunning")["items"]
        if "deletionTimestamp" not in one["metadata"]
    ]


def _names(pods: list[dict[str, Any]]) -> set[str]:
    return {str(pod["metadata"]["name"]) for pod in pods}


def _names_of_all(mesh: FaultCluster, app: str, space: str = NS, revision: str = "") -> set[str]:
    """Those that are leaving included."""
    found = mesh.pods_of_all(app, space)
    return _names([one for one in found if not revision or one["metadata"]["labels"].get("istio.io/rev") == revision])


def _connected(mesh: FaultCluster, pod: str) -> int:
    with mesh.admin(pod) as ask:
        return sum(bool(one["connectedAt"]) for one in ask("/v1/proxies")["proxies"])


def _all_served(mesh: FaultCluster) -> bool:
    """Every pod that has a running proxy is connected to some replica and has everything."""
    wanted = {f"{name}.{NS}" for app in ("crowd", "steady", "load") for name in _names(mesh.pods(app))}
    wanted |= {f"{name}.{FRONT}" for name in _names(mesh.pods("istio-ingressgateway", FRONT))}
    found = mesh.proxies()
    return all(name in found and found[name]["isSynced"] for name in wanted)


def _all_connected(mesh: FaultCluster, replica: str, pods: dict[str, str]) -> bool:
    """Without the API: asked of the replica by its process."""
    with mesh.admin(replica) as ask:
        found = {str(one["id"]) for one in ask("/v1/proxies")["proxies"] if one["connectedAt"] and one["isSynced"]}
    return {f"{name}.{NS}" for name in pods} <= found


def _api_answers(mesh: FaultCluster) -> bool:
    try:
        return bool(mesh.read("/api/v1/namespaces"))
    except ConnectionError:
        return False


def _end(name: str) -> str:
    return name[-6:]


def _ends(names: Any) -> str:
    return ", ".join(sorted(str(name).rpartition("-")[2][-6:] for name in names))
