"""The commands of the local run at a mesh in a real cluster: what each answers, how it refuses, and what nobody can read."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from cli_parts import (
    ROUTE,
    SHOP,
    SPACE,
    USERS,
    key_and_certificate,
    kubeconfig_of_users,
    process,
    run,
    secret,
    stopped,
    walked,
)
from kubelab.cluster import Cluster
from mesh_parts import LITTLE, PATIENCE_S, mesh_in, space, tulle, until

from tulle.compile.envoy.cluster_bootstrap import LOOKING_PATHS, LOOKING_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.long]

PROXIES = 3
FORMS = (
    *(
        "ps",
        "get pods",
        "get all",
        "get proxies",
        "get vs web",
        "get svc",
        "proxy status",
        "proxy config cluster client",
    ),
    *("proxy config listener client", "proxy config route client", "proxy config endpoint client"),
    *("proxy config secret client", "explain client route web", "routes client", "authz web", "version"),
    *("stat --window 1", "edges --window 2"),
)


class Mesh(NamedTuple):
    """An installation, who may what in it, and the gateway's key."""

    cluster: Cluster
    kubeconfig: Path
    key: str
    tools: Path
    """A folder for PATH with kubectl and the plugin."""

    @property
    def environment(self) -> dict[str, str]:
        """Of a user at a shell."""
        path = f"{self.tools}:{Path(sys.executable).parent}:/usr/bin:/bin"
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "HOME": "/nonexistent", "TULLE_MESH": "kube"}

    def say(self, line: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command line that ends with this code."""
        done = run([sys.executable, "-m", "tulle", *line.split()], self.environment | environment)
        assert done.returncode == code, f"tulle {line}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def pod(self, app: str, namespace: str = SPACE) -> Mapping[str, Any]:
        """The running pod of an app."""
        found = self.cluster.get("pods", "-n", namespace, "-l", f"app={app}")["items"]
        (one,) = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return dict(one)


@pytest.fixture(scope="module")
def mesh(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    tools = tmp_path_factory.mktemp("tools")
    for name, line in (
        ("kubectl", f"exec {cluster.kubernetes} kubectl"),
        ("kubectl_complete-tulle", f"exec {sys.executable} -c 'from tulle.cli import kubectl_complete as f; f()'"),
        ("kubectl-tulle", f"exec {sys.executable} -c 'from tulle.cli import kubectl; kubectl()'"),
    ):
        (tools / name).write_text(f'#!/bin/sh\n{line} "$@"\n')
        (tools / name).chmod(0o755)
    nothing = tulle(cluster, "get", "proxies", "--mesh", "kube", code=69)
    assert "TUL1108" in nothing.stderr
    with mesh_in(cluster, *LITTLE, spaces=(SPACE,)):
        try:
            yield _used(cluster, tmp_path_factory.mktemp("users") / "config", tools)
        finally:
            cluster.kubectl("delete", "clusterrolebinding", "tulle-test-viewer", "--ignore-not-found")


def _used(cluster: Cluster, config: Path, tools: Path) -> Mesh:
    space(cluster, SPACE, {"istio-injection": "enabled"})
    key, certificate = key_and_certificate()
    cluster.apply(secret(key, certificate))
    cluster.apply(SHOP + ROUTE.replace("TIMEOUT", "5s"))
    cluster.apply(USERS)
    cluster.wait("--for=condition=Available", "deploy", "--all", "-n", SPACE, limit_s=PATIENCE_S)
    cluster.wait("--for=condition=Ready", "pod/bare", "-n", SPACE, limit_s=PATIENCE_S)
    made = Mesh(cluster, kubeconfig_of_users(cluster, config), key, tools)
    until("all proxies in sync", lambda: _synced(made) == PROXIES, 60)
    return made


def _synced(mesh: Mesh) -> int:
    return sum(one["isSynced"] for one in json.loads(mesh.say("get proxies -o json").stdout))


# --- what commands answer --------------------------------------------------------------------------------------------


def test_pods_are_listed_with_what_their_proxies_do(mesh: Mesh) -> None:
    said = mesh.say("ps").stdout
    assert re.search(r"^shop +web-\S+ +2/2 +Running +\d+ +\w+ +[\d.]+ +connected$", said, re.MULTILINE)
    assert re.search(r"^shop +edge-\S+ +1/1 .* gateway, connected$", said, re.MULTILINE)
    assert re.search(r"^shop +bare +1/1 .* none$", said, re.MULTILINE)
    assert "tulle-system" not in said
    assert "tulle-system" in mesh.say("ps -A").stdout


@pytest.mark.parametrize("line", FORMS)
def test_everything_can_be_had_as_json(mesh: Mesh, line: str) -> None:
    assert json.loads(mesh.say(f"{line} -o json").stdout)


@pytest.mark.parametrize("line", ["ps", "get all", "proxy config secret client", "stat --window 1"])
def test_yaml_is_the_same_document(mesh: Mesh, line: str) -> None:
    told = yaml.safe_load(mesh.say(f"{line} -o yaml").stdout)
    assert told
    assert type(told) is type(json.loads(mesh.say(f"{line} -o json").stdout))


def test_a_proxy_is_looked_into(mesh: Mesh) -> None:
    clusters = mesh.say("proxy config cluster client").stdout
    assert re.search(r"web\.shop\.svc\.cluster\.local +80 +- +outbound +EDS +Service/shop/web", clusters)
    address = mesh.pod("web")["status"]["podIP"]
    assert f"{address}:8080" in mesh.say("proxy config endpoint client --port 80").stdout
    assert "VirtualService/shop/web spec.http[0]" in mesh.say("explain client route web").stdout
    assert "spiffe://cluster.local/ns/shop/sa/default" in mesh.say("proxy config secret deploy/client").stdout
    assert re.search(
        r"8080/HTTP +PERMISSIVE +ALLOW +shop/web +0 +anyone +GET +spec.rules\[0\]", mesh.say("authz web").stdout
    )


def test_objects_are_told_whole(mesh: Mesh) -> None:
    """The control plane keeps of objects what it compiles; the rest is the API's."""
    said = mesh.say("describe svc web").stdout
    assert re.search(r"Pods: 1\n +web-\S+ [\d.]+ ready, sidecar", said)
    assert "ALLOW by AuthorizationPolicy shop/web" in said
    told = yaml.safe_load(mesh.say("get vs web -o yaml").stdout)
    assert told["spec"]["http"][0]["timeout"] == "5s"
    held = mesh.say("get secret edge-cert -o yaml").stdout
    assert yaml.safe_load(held)["data"] == {"tls.key": "...", "tls.crt": "..."}


def test_traffic_is_counted(mesh: Mesh) -> None:
    (row,) = json.loads(mesh.say("stat deploy/web --window 6 -o json").stdout)
    assert row["successRate"] == 1.0
    assert row["requestsPerSecond"] > 0.5
    assert row["latencyMs"]["p50"] > 0
    found = json.loads(mesh.say("edges --window 3 -o json").stdout)
    (edge,) = [one for one in found if one["destination"]["workload"] == "web"]
    assert (edge["source"]["workload"], edge["secured"]) == ("client", True)
    assert edge["clientId"] == "spiffe://cluster.local/ns/shop/sa/default"
    (service,) = json.loads(mesh.say("stat svc web --window 3 -o json").stdout)
    assert (service["meshed"], service["pods"]) == (1, 1)


def test_a_proxy_that_does_not_answer_is_named(mesh: Mesh) -> None:
    web = mesh.pod("web")
    with stopped(process(TULLE_POD_UID=web["metadata"]["uid"])):
        done = mesh.say("stat --window 1")
        name = f"{web['metadata']['name']}.{SPACE}"
        assert re.search(rf"the proxy of {name} did not answer: .*timed out", done.stderr)
        assert f"figures are of {PROXIES - 1} of {PROXIES} proxies" in done.stderr
        assert "TUL1133" in mesh.say("proxy config cluster web", code=69).stderr
    assert "the proxy of" not in mesh.say("stat --window 1").stderr


def test_logs_of_a_workload(mesh: Mesh) -> None:
    assert mesh.say("logs client --tail 3").stdout.splitlines() == ["status 200"] * 3
    assert "serving" in mesh.say("logs deploy/web").stdout
    pod = mesh.pod("client")["metadata"]["name"]
    assert mesh.say(f"logs pod/{pod} -n shop --tail 1").stdout == "status 200\n"
    both = mesh.say("logs -n shop --tail 1").stdout
    assert re.search(rf"^{pod} +\| status 200$", both, re.MULTILINE)
    assert "TUL1135" in mesh.say("logs stranger", code=1).stderr
    mesh.say("logs", code=2)


def test_logs_go_on(mesh: Mesh) -> None:
    words = [sys.executable, "-m", "tulle", "logs", "client", "--follow", "--tail", "1"]
    with subprocess.Popen(words, env=mesh.environment, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        started = time.monotonic()
        lines = [following.stdout.readline() for _ in range(6)]
        spent = time.monotonic() - started
        following.terminate()
    assert lines == ["status 200\n"] * 6
    assert spent > 0.5  # five of them were not there when it began


def test_the_proxys_log_says_who_was_denied(mesh: Mesh) -> None:
    call = ("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "http://web/index.html")
    assert mesh.cluster.kubectl("exec", "-n", SPACE, "deploy/client", "-c", "client", "--", *call) == "403"

    def told() -> bool:
        return "DENIED" in mesh.say("logs web --proxy --words --since 1m").stdout

    assert until("the denial is in the log", told, 20)
    assert "DENIED" in mesh.say("logs web -c istio-proxy --words").stdout


def test_an_edit_is_live_on_all(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "route.yaml"
    file.write_text(ROUTE.replace("TIMEOUT", "7s").replace("namespace: shop", ""))
    said = mesh.say(f"apply -f {file}").stdout  # the context's namespace holds
    assert "virtualservice.networking.istio.io/web configured" in said
    assert re.search(r"live on (\d) of \1 prox(?:y|ies) in \d+ ms", said)
    dump = json.loads(mesh.say("proxy config route client --fqdn web.shop.svc.cluster.local -o json").stdout)
    assert "7s" in [one for part in dump for one in walked(part["resource"], "timeout")]


def test_files_are_judged_with_what_runs(mesh: Mesh, tmp_path: Path) -> None:
    assert mesh.say("analyze").stderr.strip() == "nothing is wrong"
    file = tmp_path / "more.yaml"
    file.write_text(ROUTE.replace("TIMEOUT", "5s").replace("hosts: [web]", "hosts: [web]\n  gateways: [nowhere]"))
    done = mesh.say(f"analyze {file}", code=79)
    assert re.search(r"more\.yaml:\d+: (error|warning) TUL\d{4}", done.stdout)


def test_kubectl_has_the_plugin(mesh: Mesh) -> None:
    environment = {name: value for name, value in mesh.environment.items() if name != "TULLE_MESH"}
    done = run(["kubectl", "tulle", "get", "proxies", "-o", "name"], environment)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, PROXIES), done.stderr
    refused = run(["kubectl", "tulle", "exec", "web", "--", "ls"], environment)
    assert refused.returncode == 2
    assert "kubectl exec" in refused.stderr
    usage = run(["kubectl", "tulle", "get", "--help"], environment)
    assert usage.stdout.startswith("Usage: kubectl tulle get ")
    words = run(["kubectl", "__complete", "tulle", "proxy", ""], environment).stdout.splitlines()
    assert [word.split("\t")[0] for word in words] == ["config", "log", "status", ":4"]


# --- what is not for a cluster, and what goes wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("exec web -n shop -- ls", "kubectl exec -n shop web -- ls"),
        ("restart workload web -n shop", "kubectl rollout restart deploy/web -n shop"),
        ("restart sidecar web", "kubectl rollout restart"),
        ("down", "tulle uninstall"),
        ("up /etc", "tulle install"),
        ("demo", "tulle install"),
        ("proxy log client --level debug", "sidecar.istio.io/logLevel"),
    ],
)
def test_what_is_for_one_machine_says_what_to_use(mesh: Mesh, line: str, instead: str) -> None:
    done = mesh.say(line, code=2)
    assert "TUL1134" in done.stderr
    assert instead in done.stderr


def test_a_user_who_may_read_sees_what_that_allows(mesh: Mesh) -> None:
    assert mesh.say("logs client --tail 1 --context viewer").stdout == "status 200\n"
    done = mesh.say("ps --context viewer", code=77)
    assert "TUL1003" in done.stderr
    assert "create of pods/portforward" in done.stderr
    assert re.search(r"web-\S+ .* unknown$", done.stdout, re.MULTILINE)
    for line in ("get proxies", "stat", "proxy config cluster web", "analyze"):
        assert "TUL1003" in mesh.say(f"{line} --context viewer", code=77).stderr
    assert "TUL1106" in mesh.say("check --cluster --context viewer").stdout
    for line in ("ps", "logs client", "get proxies", "check --cluster"):
        assert "TUL1003" in mesh.say(f"{line} --context nobody", code=77).stderr


def test_clusters_that_are_not_there(mesh: Mesh, tmp_path: Path) -> None:
    assert "TUL1001" in mesh.say("get proxies --context away", code=69).stderr
    for line in ("get proxies", "logs client", "ps", "apply -f /etc/none", "version"):
        assert "TUL1002" in mesh.say(f"{line} --context nope", code=69).stderr, line
    assert "TUL1002" in mesh.say("ps", code=69, KUBECONFIG="").stderr
    assert "TUL1002" in mesh.say(f"ps --kubeconfig {tmp_path / 'none'}", code=69).stderr
    assert "TUL1108" in mesh.say("get proxies", code=69, TULLE_NAMESPACE=SPACE).stderr


def test_a_replica_that_does_not_answer_is_named(mesh: Mesh, tmp_path: Path) -> None:
    deployment = ("-n", "tulle-system", "deploy/tulled")
    (first,) = [pod["metadata"]["name"] for pod in mesh.cluster.get("pods", "-n", "tulle-system")["items"]]
    mesh.cluster.kubectl("scale", *deployment, "--replicas=2")
    mesh.cluster.kubectl("rollout", "status", *deployment, "--timeout=120s", limit_s=125)
    pods = [pod["metadata"]["name"] for pod in mesh.cluster.get("pods", "-n", "tulle-system")["items"]]
    (second,) = [name for name in pods if name != first]
    file = tmp_path / "route.yaml"
    file.write_text(ROUTE.replace("TIMEOUT", "8s"))
    try:
        assert len(json.loads(mesh.say("version -o json").stdout)["replicas"]) == 2
        with stopped(process(POD_NAME=second)):
            done = mesh.say("get proxies -o name")
            assert re.search(rf"warning TUL1132 the replica {second} of the control plane does not answer", done.stderr)
            assert len(done.stdout.splitlines()) == PROXIES
            # All proxies are connected to the first, which says so: nothing is missing but the other's own word.
            live = mesh.say(f"apply -f {file} --timeout 3")
            assert "TUL1132" in live.stderr
            assert re.search(r"live on (\d) of \1 prox(?:y|ies)", live.stdout)
        until("it is ready again", lambda: len(json.loads(mesh.say("version -o json").stdout)["replicas"]) == 2, 60)
        assert "TUL1132" not in mesh.say(f"apply -f {file}").stderr
    finally:
        mesh.cluster.kubectl("scale", *deployment, "--replicas=1")


# --- what nobody can read --------------------------------------------------------------------------------------------


def test_what_can_be_read_of_a_proxy_holds_no_key(mesh: Mesh) -> None:
    """The gateway has its own key and the credential's: all it says to whom may port-forward to it is that it has them."""
    lines = [line for line in mesh.key.splitlines() if "-----" not in line]
    answers = dict(_forwarded(mesh, "edge", LOOKING_PATHS))
    assert {status for status, _ in answers.values()} == {200}
    for path, (_, body) in answers.items():
        assert "PRIVATE KEY" not in body, path
        assert not [line for line in lines if line in body], path
        coded = re.findall(r'"inline_bytes": "([^"]+)"', body)
        assert not [one for one in coded if b"PRIVATE" in _plain(one)], path
    keys = list(walked(json.loads(answers["/config_dump"][1]), "private_key"))
    assert len(keys) >= 2
    assert {_plain(one["inline_bytes"]) for one in keys} == {b"[redacted]"}


def _plain(coded: str) -> bytes:
    import base64

    return base64.b64decode(coded)


def test_nothing_can_be_done_to_a_proxy_there(mesh: Mesh) -> None:
    paths = ("/quitquitquit", "/logging?level=trace", "/drain_listeners", "/config_dump/../quitquitquit", "/heap_dump")
    assert {status for _, (status, _) in _forwarded(mesh, "web", paths)} <= {400, 404}
    assert {status for _, (status, _) in _forwarded(mesh, "web", paths, "POST")} <= {400, 404}
    assert [status for _, (status, _) in _forwarded(mesh, "web", ["/ready"])] == [200]


def _forwarded(mesh: Mesh, app: str, paths: Any, method: str = "GET") -> Iterator[tuple[str, tuple[int, str]]]:
    """kubectl's own port-forward, so that what is shown is not our client's word."""
    words = ["kubectl", "port-forward", "-n", SPACE, mesh.pod(app)["metadata"]["name"], f":{LOOKING_PORT}"]
    with subprocess.Popen(words, env=mesh.environment, stdout=subprocess.PIPE, text=True) as forwarding:
        assert forwarding.stdout is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
        assert port is not None
        try:
            for path in paths:
                line = ["curl", "-s", "-m", "10", "--path-as-is", "-X", method, "-w", "\n%{http_code}"]
                done = run([*line, f"http://127.0.0.1:{port[1]}{path}"], os.environ)
                body, _, status = done.stdout.rpartition("\n")
                yield path, (int(status), body)
        finally:
            forwarding.terminate()


def test_other_pods_do_not_reach_it(mesh: Mesh) -> None:
    address = mesh.pod("web")["status"]["podIP"]
    line = ("curl", "-s", "-m", "5", "-w", "%{http_code}", f"http://{address}:{LOOKING_PORT}/ready")
    for pod, container in (("bare", "caller"), ("deploy/client", "client")):
        script = f"{' '.join(line[:-1])} {line[-1]} || true"
        said = mesh.cluster.kubectl("exec", "-n", SPACE, pod, "-c", container, "--", "sh", "-c", script)
        assert not said.endswith("200"), said
        assert "LIVE" not in said
