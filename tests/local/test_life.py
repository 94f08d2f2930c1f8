"""Meshes that live and die: one real mesh for what may happen to its pods, small ones for what ends a mesh."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from clients import Load
from local_mesh import LocalMesh, over_unix
from shapes import PYTHON, client, deployment, echo, ingress, manifest, namespace, port, service

pytestmark = pytest.mark.mesh

ROUTE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec: {hosts: ["*"], gateways: [front], http: [{route: [{destination: {host: echo}}]}]}
"""
SHOW = "import os,json,time; print(json.dumps([dict(os.environ), open('/conf/a').read()]), flush=True); time.sleep(600)"


def kinds() -> list[dict[str, Any]]:
    """A job, an init container, a crash loop, a command nobody has, and a pod of ConfigMap and Secret."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once", "namespace": "shop"},
        "spec": {
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "app", "command": [PYTHON, "-c", "print('done')"]}],
                }
            }
        },
    }
    crash = deployment("crash", "shop", {"app": "crash"}, [PYTHON, "-c", "raise SystemExit(3)"])
    unknown = deployment("unknown", "shop", {"app": "unknown"}, ["/nowhere/server"])
    show = deployment("show", "shop", {"app": "show"}, [PYTHON, "-c", SHOW])
    pod = show["spec"]["template"]["spec"]
    pod["initContainers"] = [{"name": "first", "command": [PYTHON, "-c", "print('first')"]}]
    pod["volumes"] = [{"name": "conf", "configMap": {"name": "cm"}}]
    container = pod["containers"][0]
    container["volumeMounts"] = [{"name": "conf", "mountPath": "/conf"}]
    container["env"] += [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}}]
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cm", "namespace": "shop"},
        "data": {"a": "1"},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "shop"},
        "stringData": {"token": "s3cret"},
    }
    return [job, crash, unknown, show, config, secret]


def shop(replicas: int = 1, version: str = "v1") -> str:
    """An echo service, two callers, and the gateway."""
    return manifest(
        namespace("shop"),
        service("echo", "shop", {"app": "echo"}, port("http", 80, 8080)),
        echo("echo", "shop", version, replicas=replicas, http=8080),
        client("caller", "shop"),
        client("stray", "shop", inject=False),
        *ingress(),
    )


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    with LocalMesh(shop(), ROUTE) as running:
        yield running


def pods(mesh: LocalMesh) -> dict[str, dict[str, Any]]:
    found = json.loads(over_unix(mesh.run / "supervisor.sock", "GET", "/v1/pods"))["pods"]
    return {pod["name"]: pod for pod in found}


def pod(mesh: LocalMesh, workload: str) -> dict[str, Any]:
    return next(one for one in pods(mesh).values() if one["workload"]["name"] == workload)


def edit(mesh: LocalMesh, old: str, new: str) -> None:
    path = mesh.folder / "00-manifest.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def assert_nothing_lost(load: Load) -> None:
    assert load.outcome is not None
    assert load.outcome.only("200 v1"), (load.outcome.counts, load.outcome.failures)


def processes_of(mesh: LocalMesh) -> list[psutil.Process]:
    supervisor = psutil.Process(mesh.supervisor_pid)
    return [supervisor, *supervisor.children(recursive=True)]


def test_every_name_form_reaches_the_service(mesh: LocalMesh) -> None:
    for name in ("echo", "echo.shop", "echo.shop.svc", "echo.shop.svc.cluster.local"):
        outcome = mesh.client("caller").http(name)
        assert outcome.only("200 v1"), (name, outcome.counts, outcome.failures)


def test_a_pod_without_a_sidecar_reaches_it_by_its_service_address(mesh: LocalMesh) -> None:
    mesh.wait_for(lambda: mesh.client("stray").http("echo").only("200 v1"), "the stray pod's request")


def test_the_gateway_is_on_this_machine(mesh: LocalMesh) -> None:
    mesh.wait_for(lambda: mesh.outside.http("127.0.0.1", mesh.gateway()).only("200 v1"), "the gateway's answer")


def test_ps_says_what_runs(mesh: LocalMesh) -> None:
    lines = mesh.tulle("ps").stdout.splitlines()
    assert lines[0].split() == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "SIDECAR", "MEM"]
    by_name = {line.split()[1]: line.split() for line in lines[1:]}
    assert by_name[mesh.pod("echo", "shop")][2:4] == ["2/2", "Running"]
    assert by_name[mesh.pod("stray", "shop")][2:4] == ["1/1", "Running"]
    assert "none" in by_name[mesh.pod("stray", "shop")]


def test_scaling_by_editing_the_file_loses_nothing(mesh: LocalMesh) -> None:
    with mesh.client("caller").load("echo") as load:
        edit(mesh, '"replicas": 1,\n  "selector": {\n   "matchLabels": {\n    "app": "echo"', REPLICAS_3)
        mesh.wait_for(lambda: len(ready(mesh, "echo-v1")) == 3, "three ready pods")
        edit(mesh, REPLICAS_3, '"replicas": 1,\n  "selector": {\n   "matchLabels": {\n    "app": "echo"')
        mesh.wait_for(lambda: len(ready(mesh, "echo-v1")) == 1 and len(all_of(mesh, "echo-v1")) == 1, "one pod")
    assert_nothing_lost(load)


REPLICAS_3 = '"replicas": 3,\n  "selector": {\n   "matchLabels": {\n    "app": "echo"'


def all_of(mesh: LocalMesh, workload: str) -> list[dict[str, Any]]:
    return [one for one in pods(mesh).values() if one["workload"]["name"] == workload]


def ready(mesh: LocalMesh, workload: str) -> list[dict[str, Any]]:
    return [one for one in all_of(mesh, workload) if one["isReady"]]


def test_a_rolling_restart_loses_nothing(mesh: LocalMesh) -> None:
    before = {one["uid"] for one in ready(mesh, "echo-v1")}
    with mesh.client("caller").load("echo") as load:
        mesh.tulle("restart", "workload", "echo-v1")
        mesh.wait_for(lambda: {one["uid"] for one in all_of(mesh, "echo-v1")}.isdisjoint(before), "new pods only")
    assert_nothing_lost(load)


def test_replacing_a_sidecar_loses_nothing(mesh: LocalMesh) -> None:
    before = pod(mesh, "echo-v1")["pids"]["istio-proxy"]
    with mesh.client("caller").load("echo") as load:
        mesh.tulle("restart", "sidecar", "echo-v1")
        mesh.wait_for(lambda: not psutil.pid_exists(before), "the old sidecar's end", 15.0)
    assert pod(mesh, "echo-v1")["pids"]["istio-proxy"] != before
    assert_nothing_lost(load)


def test_a_killed_sidecar_comes_back(mesh: LocalMesh) -> None:
    before = pod(mesh, "echo-v1")["pids"]["istio-proxy"]
    os.kill(before, signal.SIGKILL)
    mesh.wait_for(lambda: pod(mesh, "echo-v1")["pids"].get("istio-proxy", before) != before, "a new sidecar")
    mesh.wait_for(lambda: mesh.client("caller").http("echo").only("200 v1"), "an answer")


def test_a_killed_control_plane_comes_back_and_nobody_notices(mesh: LocalMesh) -> None:
    about = json.loads(over_unix(mesh.run / "supervisor.sock", "GET", "/v1/mesh"))
    before = about["controlPlane"]["pid"]
    os.kill(before, signal.SIGKILL)
    assert mesh.client("caller").http("echo", n=50).only("200 v1")

    def is_back() -> bool:
        now = json.loads(over_unix(mesh.run / "supervisor.sock", "GET", "/v1/mesh"))["controlPlane"]["pid"]
        return now not in (None, before) and (mesh.run / "admin.sock").exists()

    mesh.wait_for(is_back, "a new control plane")


def test_workloads_of_every_kind(mesh: LocalMesh) -> None:
    mesh.installed.file_for_user(mesh.folder / "50-kinds.yaml", manifest(*kinds()))
    mesh.wait_for(lambda: [one["status"] for one in all_of(mesh, "once")] == ["Completed"], "the job's end")
    mesh.wait_for(lambda: [one["status"] for one in all_of(mesh, "crash")] == ["CrashLoopBackOff"], "the crash loop")
    mesh.wait_for(lambda: len(ready(mesh, "show")) == 1, "the pod with volumes")
    lines = mesh.tulle("logs", "show", "-n", "shop").stdout.splitlines()
    env, content = json.loads(lines[-1])
    assert (env["TOKEN"], content) == ("s3cret", "1")
    assert not {name for name in env if name.lower().endswith("_proxy") or name.startswith(("XDG_", "TULLE_"))}
    problems = json.loads(over_unix(mesh.run / "supervisor.sock", "GET", "/v1/mesh"))["problems"]
    (found,) = [one for one in problems if one["code"] == "TUL0901"]
    assert found["name"] == "unknown"
    assert found["file"].endswith("50-kinds.yaml")
    checked = mesh.tulle("check", check=False)
    assert "TUL0901" in checked.stdout
    (mesh.folder / "50-kinds.yaml").unlink()
    mesh.wait_for(lambda: not all_of(mesh, "show") and not all_of(mesh, "once"), "the end of what is gone")


def test_logs_of_the_last_second_and_of_the_proxy(mesh: LocalMesh) -> None:
    time.sleep(2.5)
    assert mesh.client("caller").http("echo").only("200 v1")
    time.sleep(1.2)
    proxy = mesh.tulle("logs", "--proxy", "echo-v1", "-n", "shop", "--tail", "1").stdout
    assert json.loads(proxy)["reporter"] == "destination"
    recent = mesh.tulle("logs", "--proxy", "echo-v1", "-n", "shop", "--since", "4s").stdout.splitlines()
    everything = mesh.tulle("logs", "--proxy", "echo-v1", "-n", "shop").stdout.splitlines()
    assert 0 < len(recent) < len(everything)


def test_two_meshes_share_a_machine_and_one_leaves_nothing(mesh: LocalMesh) -> None:
    with LocalMesh(shop(), ROUTE) as other:
        assert other.gateway() != mesh.gateway()
        here, there = (json.loads((one.run / "mesh.json").read_text()) for one in (mesh, other))
        assert here["podCidr"] != there["podCidr"]
        assert mesh.client("caller").http("echo").only("200 v1")
        assert other.client("caller").http("echo").only("200 v1")
        left = processes_of(other)
        assert len(left) > 10
        other.tulle("down", "--name", other.name)
        gone(left)
        assert not other.run.exists()
        assert not open_sockets(other.run)
    assert mesh.client("caller").http("echo").only("200 v1")


def test_nothing_survives_the_supervisors_death() -> None:
    with LocalMesh(shop(), ROUTE) as doomed:
        left = processes_of(doomed)
        os.kill(doomed.supervisor_pid, signal.SIGKILL)
        gone(left)
        assert "was killed" in doomed.tulle("check").stdout
        doomed.tulle("down", "--name", doomed.name)
        assert not doomed.run.exists()
        assert not open_sockets(doomed.run)


def gone(left: list[psutil.Process]) -> None:
    _ended, alive = psutil.wait_procs(left, timeout=10)
    assert not [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def open_sockets(run: Path) -> list[str]:
    """Unix sockets of a run directory that somebody still holds."""
    return [line for line in Path("/proc/net/unix").read_text().splitlines() if str(run) in line]


class Unfenced(LocalMesh):
    """A mesh without isolation."""

    def _up_settings(self) -> list[str | Path]:
        return ["--isolation", "none"]


def test_without_isolation_it_works_and_says_what_it_lacks() -> None:
    services = (service("echo", "shop", {"app": "echo"}, port("http", 80, 8080)),)
    command = [PYTHON, "-m", "http.server", "--bind", "$(BIND_ADDRESS)", "8080"]
    server = deployment("echo", "shop", {"app": "echo"}, command, 8080)
    with Unfenced(manifest(namespace("shop"), *services, server)) as bare:
        said = (bare.installed.place / "state" / "tulle" / bare.name / "up.log").read_text()
        assert "no mTLS" in said
        proxy = said.partition("http_proxy=http://")[2].partition(" ")[0]
        host, _, number = proxy.partition(":")
        bare.wait_for(lambda: answers(host, int(number), "http://echo.shop/"), "an answer by way of the proxy")
        assert "isolation: none" in bare.tulle("ps").stderr
        assert "isolation none" in bare.tulle("check").stdout
        left = processes_of(bare)
        bare.tulle("down", "--name", bare.name)
        gone(left)


def answers(host: str, number: int, url: str) -> bool:
    connection = http.client.HTTPConnection(host, number, timeout=5)
    try:
        connection.request("GET", url)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
