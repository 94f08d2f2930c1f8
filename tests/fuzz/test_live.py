"""1,000 mutated configurations, one after the other, over ADS to live Envoys: a sidecar and a gateway. Nothing is refused.

The control plane is the real process; each configuration is applied and waited for, so that each is a snapshot of its own.
"""

import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from fuzz.mutating import Raw, mutations

sys.path.append(str(Path(__file__).parent.parent / "serve"))
from serve_parts import Mesh, bootstrap_of, pod, start_envoy, uid_of, until
from serve_parts import ask as asked

SEED = 4711
CONFIGURATIONS = 1000
PROXIES = (("web-1", "default", "sidecar"), ("gw", "istio-system", "router"))
RUNTIME = {"layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}}]}


class Proxy:
    """An Envoy on its pod's socket, in a network namespace of its own."""

    def __init__(self, mesh: Mesh, name: str, namespace: str, role: str) -> None:
        uid = uid_of(name, namespace)
        home = mesh.run / "envoy" / uid
        home.mkdir(mode=0o700, parents=True)
        self.admin, self.log = home / "admin.sock", home / "envoy.log"
        node = {"id": f"{role}~10.0.0.1~{name}.{namespace}~cluster.local", "cluster": name, "metadata": {}}
        bootstrap = bootstrap_of(node, {"pipe": {"path": str(mesh.run / "xds" / uid / "xds.sock")}}, self.admin)
        self.process = start_envoy(["unshare", "-rn"], bootstrap | {"layered_runtime": RUNTIME}, self.log)

    def is_live(self) -> bool:
        try:
            return asked(self.admin, "GET", "/ready")[0] == 200
        except OSError:
            return False

    def stat(self, name: str) -> int:
        text = asked(self.admin, "GET", f"/stats?filter=^{name}$")[1].decode()
        return int(text.rpartition(": ")[2]) if text.strip() else 0


def without_pods(objects: list[Raw]) -> list[Raw]:
    """Pods come from the supervisor, and those two stay."""
    return [raw for raw in objects if raw.get("kind") != "Pod"]


@pytest.fixture
def mesh():
    home = Path(tempfile.mkdtemp(prefix="tulle-f"))
    made = Mesh(home)
    proxies: list[Proxy] = []
    try:
        gateway = {"app": "gw", "istio": "ingressgateway"}
        made.pods(
            pod("web-1", "default", "10.244.0.3", app="web", port=8080),
            pod("reviews-1", "default", "10.244.0.4", app="reviews"),
            pod("gw", "istio-system", "10.244.0.9", gateway=True, labels=gateway),
        )
        made.start()
        proxies += [Proxy(made, *place) for place in PROXIES]
        made.proxies_running = proxies
        yield made
    finally:
        for proxy in proxies:
            proxy.process.kill()
            proxy.process.wait()
        made.stop()
        shutil.rmtree(home)


@pytest.mark.envoy
@pytest.mark.mesh
def test_a_thousand_snapshots_and_no_refusal(mesh):
    for proxy in mesh.proxies_running:
        until(proxy.is_live, f"{proxy.log}")
    count: Counter[str] = Counter()
    for number, objects in enumerate(mutations(SEED, CONFIGURATIONS)):
        path = mesh.config / "fuzz.yaml"
        fresh = mesh.home / ".fuzz.yaml"
        fresh.write_text("\n---\n".join(json.dumps(raw, ensure_ascii=False) for raw in without_pods(objects)))
        fresh.replace(path)
        answer = mesh.apply(path, timeout=30)
        where = f"seed {SEED}, configuration {number}"
        assert answer["refused"] == [], f"{where}: {answer['refused']}"
        waiting = [one for one in answer["waiting"] if "reviews-1" not in json.dumps(one)]
        assert waiting == [], f"{where}: {waiting}"
        count["snapshots"] += answer["live"]
        count["configurations"] += 1
        count["problems"] += len(answer["problems"])
        for proxy in mesh.proxies_running:
            assert proxy.process.poll() is None, f"{where}: Envoy is gone, {proxy.log.read_text()[-2000:]}"
    for proxy in mesh.proxies_running:
        assert proxy.stat("cluster_manager.cds.update_rejected") == 0
        assert proxy.stat("listener_manager.lds.update_rejected") == 0
        count["updates"] += proxy.stat("cluster_manager.cds.update_success")
        count["updates"] += proxy.stat("listener_manager.lds.update_success")
    print(f"\nlive: {dict(count)}")
    assert count["snapshots"] >= 1000
