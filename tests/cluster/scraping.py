"""A real Prometheus on this machine that scrapes a cluster's pods by the ports Istio's documentation has it look for.

The program is Debian's package, unpacked into the cache: installed, it would start a service of its own. Debian builds it without
the discovery of Kubernetes, so its targets stand in a file that is written from the same pods.
"""

import json
import re
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
    config.write_text(yaml.safe_dump(_config()))
    for job, port_name in (("envoy-stats", ".*-envoy-prom"), ("tulled", "http-metrics")):
        (folder / f"{job}.json").write_text(json.dumps(_targets(cluster, port_name)))
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


def _config() -> dict[str, Any]:
    jobs = (("envoy-stats", "/stats/prometheus"), ("tulled", "/metrics"))
    return {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE},
        "scrape_configs": [
            {"job_name": name, "metrics_path": path, "file_sd_configs": [{"files": [f"{name}.json"]}]}
            for name, path in jobs
        ],
    }


def _targets(cluster: Cluster, port_name: str) -> list[dict[str, Any]]:
    """Every running container, native sidecars too, with a port that is called so."""
    pattern = re.compile(port_name)
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {"namespace": pod["metadata"]["namespace"], "pod_name": pod["metadata"]["name"]},
        }
        for pod in cluster.get("pods", "-A", "--field-selector=status.phase=Running")["items"]
        for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))
        for port in container.get("ports", ())
        if pattern.fullmatch(port.get("name", ""))
    ]
