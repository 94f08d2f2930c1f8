"""A real Prometheus on this machine that finds and scrapes a cluster's pods the way Istio's documentation sets it up.

The program is Debian's package, unpacked into the cache: installed, it would start a service of its own.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kubelab.builds import UnavailableError, locked
from kubelab.cluster import Cluster
from kubelab.layout import cache

PACKAGE = "prometheus"
START_S = 60.0
LIMIT_S = 20.0
SCRAPE = "2s"


def program() -> Path:
    """The binary: on the path, or unpacked from the package. Raises UnavailableError."""
    if found := shutil.which("prometheus"):
        return Path(found)
    folder = cache() / "debian" / PACKAGE
    with locked(cache() / "debian" / ".lock"):
        if not (folder / "usr/bin/prometheus").exists():
            _unpack(folder)
    return folder / "usr/bin/prometheus"


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None:
        raise UnavailableError("there is no prometheus here, and no apt-get to fetch it")
    folder.mkdir(parents=True, exist_ok=True)
    line = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", PACKAGE]
    done = subprocess.run(line, cwd=folder, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True, timeout=300)
        done = subprocess.run(line, cwd=folder, check=False, capture_output=True, text=True, timeout=300)
    archives = list(folder.glob("*.deb"))
    if not archives:
        raise UnavailableError(f"{PACKAGE} cannot be had: {done.stderr[-500:]}")
    subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(folder)], check=True, timeout=300)
    archives[0].unlink()


class Prometheus:
    """One that runs."""

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}"

    def asked(self, path: str, **words: str) -> Any:
        """`data` of an answer of its HTTP API."""
        address = f"{self._root}/api/v1/{path}?{urllib.parse.urlencode(words, doseq=True)}"
        with urllib.request.urlopen(address, timeout=LIMIT_S) as answer:
            found = json.loads(answer.read())
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant vector: `metric` (labels) and `value` (time, text)."""
        return list(self.asked("query", query=expression)["result"])

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._root}/-/ready", timeout=LIMIT_S) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def prometheus(cluster: Cluster, folder: Path) -> Iterator[Prometheus]:
    """Scrapes all proxies and control planes of the cluster until the end; `folder` holds its files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(_config(cluster)))
    line = [str(program()), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    line += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, cwd=folder)
    try:
        made, end = Prometheus(port), time.monotonic() + START_S
        while not made.is_ready():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.2)
        yield made
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


def _config(cluster: Cluster) -> dict[str, Any]:
    pods = [{"role": "pod", "kubeconfig_file": str(cluster.kubeconfig)}]
    meta = "__meta_kubernetes_pod_"
    where = [
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{meta}name"], "target_label": "pod_name"},
    ]
    proxies = {"source_labels": [f"{meta}container_port_name"], "action": "keep", "regex": ".*-envoy-prom"}
    planes = {"source_labels": [f"{meta}label_app"], "action": "keep", "regex": "tulled"}
    metrics = {"source_labels": [f"{meta}container_port_name"], "action": "keep", "regex": "http-metrics"}
    return {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE},
        "scrape_configs": [
            {
                "job_name": "envoy-stats",
                "metrics_path": "/stats/prometheus",
                "kubernetes_sd_configs": pods,
                "relabel_configs": [proxies, *where],
            },
            {"job_name": "tulled", "kubernetes_sd_configs": pods, "relabel_configs": [planes, metrics, *where]},
        ],
    }
