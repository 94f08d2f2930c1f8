"""`make conformance`: the official suite of the Gateway API against tulle in a real cluster; the reports are kept.

Two runs, because namespaces of mesh tests are injected and those of gateway tests are not. Some tests alone: `--run NAME,NAME`, nothing
is kept then; on a cluster that runs already: `--cluster NAME`; the page from the reports that are there: `--page`.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import NamedTuple

import conformance_page
import yaml
from conformance_page import REPORTS
from kubelab import builds, cluster
from kubelab.cluster import Choice, Cluster

from tulle.dialects.gateway_api.features import MESH_FEATURES

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("proxy", "control-plane", "capture", "echo-basic", "echo", "suite-coredns", "test")
LONGEST_S = 60 * 60
"""Of one run: the suite gives up by itself."""


class Run(NamedTuple):
    """One call of the suite."""

    profiles: str
    subject: dict[str, str]
    """What is judged: the suite looks for features in the status of what it is given."""
    labels: str = ""
    """Of the suite's namespaces."""
    features: tuple[str, ...] = ()
    """Claimed where no GatewayClass's status says them."""


RUNS = {
    "gateway": Run("GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP", {"gateway-class": "tulle"}),
    "mesh": Run("MESH-HTTP,MESH-GRPC", {"mesh-name": "tulle"}, "istio-injection=enabled", MESH_FEATURES),
}


def main() -> int:
    """The exit code: 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", default="", help="one that runs; tulle is installed when it is not there")
    parser.add_argument("--run", default="", help="tests of the suite by their names, with commas; nothing is kept")
    parser.add_argument("--only", choices=tuple(RUNS), help="one of the two runs")
    parser.add_argument("--save", action="store_true", help="keep the reports in docs/conformance")
    parser.add_argument(
        "--page", action="store_true", help="write docs/conformance/README.md from the reports, and nothing else"
    )
    chosen = parser.parse_args()
    if chosen.page:
        conformance_page.write()
        return 0
    version = _version()
    found = cluster.attach(chosen.cluster) if chosen.cluster else cluster.up(Choice(name="conformance", images=IMAGES))
    failed: list[str] = []
    try:
        prepare(found)
        for name in [chosen.only] if chosen.only else RUNS:
            failed += _run(found, name, chosen.run, version, is_kept=chosen.save and not chosen.run)
    finally:
        if not chosen.cluster:
            cluster.down(found.name)
    if chosen.save and not chosen.run:
        conformance_page.write()
    print("failed: " + ", ".join(failed) if failed else "nothing failed")
    return int(bool(failed))


def prepare(found: Cluster) -> None:
    """Kinds and tulle, ready; what is there already is left as it is. `retry` is of the experimental channel alone."""
    if found.kubectl("get", "deployments", "-A", "-l", "app.kubernetes.io/part-of=tulle", "-o", "name"):
        return
    kinds = builds.module("conformance", "sigs.k8s.io/gateway-api") / "config" / "crd" / "experimental"
    files = [
        f"-f={path}" for path in sorted(kinds.glob("gateway.networking.k8s.io_*s.yaml")) if "_vap_" not in path.name
    ]
    found.kubectl("apply", "--server-side", *files, limit_s=120)
    tulle = [sys.executable, "-m", "tulle", "install", "-y", "--profile", "minimal", "--set", "image.tag=dev"]
    subprocess.run(tulle, check=True, env={**os.environ, "KUBECONFIG": str(found.kubeconfig)}, timeout=300)


def _run(found: Cluster, name: str, tests: str, version: str, *, is_kept: bool) -> list[str]:
    """One run of the suite: names of tests that failed, or of the run where the suite itself did."""
    run = RUNS[name]
    folder = REPORTS if is_kept else Path(os.environ.get("TMPDIR", "/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"gateway-api-{name}.yaml"
    report.unlink(missing_ok=True)
    words = {
        **run.subject,
        "conformance-profiles": run.profiles,
        "namespace-labels": run.labels,
        "supported-features": ",".join(run.features),
        # tests alone are run again and again
        "cleanup-base-resources": "false" if tests else "true",
        # one of some tests says nothing: the suite counts what was not run as passed
        "report-output": "" if tests else str(report),
        "usable-address": str(list(IPv4Network(found.layout.balancers))[-2]),
        "unusable-address": "192.0.2.1",
        "organization": "tulle",
        "project": "tulle",
        "url": "https://pypi.org/project/tulle",
        "version": version,
        "contact": "SECURITY.md",
    }
    line = [str(builds.built("conformance")), f"-test.timeout={LONGEST_S}s", "-test.v"]
    line += [f"-test.run=^TestConformance$/^({tests.replace(',', '|')})$"] if tests else []
    line += [f"-{flag}={value}" for flag, value in words.items() if value]
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"gateway-api-{name}.log"
    began = time.monotonic()
    code = _watched(line, log, {**os.environ, "KUBECONFIG": str(found.kubeconfig)})
    failed = sorted(set(re.findall(r"--- FAIL: TestConformance/([\w-]+) ", log.read_text(errors="replace"))))
    print(f"{name}: exit {code} after {time.monotonic() - began:.0f} s, log {log}", flush=True)
    if code != 0 and not failed:
        failed = [f"the run {name} itself"]
    if report.exists():
        for row in conformance_page.counts(yaml.safe_load(report.read_text())):
            print(f"  {row}")
        head = f"# {datetime.now(UTC):%Y-%m-%d}, commit {version}: `make conformance`\n"
        report.write_text(head + report.read_text())
    return failed


def _watched(line: list[str], log: Path, environment: dict[str, str]) -> int:
    """Run it to its end, in bounded time; say which test it is at, and what failed as soon as the log says so."""
    began = time.monotonic()
    with log.open("w") as kept:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        last = threading.Timer(LONGEST_S + 60, process.kill)
        last.start()
        assert process.stdout is not None
        test = ""
        for text in process.stdout:
            kept.write(text)
            if found := re.match(r"=== (?:RUN|CONT|NAME) +TestConformance/([\w-]+)", text):
                test = found[1]
            elif " Running " in text and "relying on" in text:
                print(f"  {time.monotonic() - began:5.0f} s  {test}", flush=True)
            elif "Messages:" in text or "failed after" in text:
                print(f"  {time.monotonic() - began:5.0f} s  {test}: {text.strip()}", flush=True)
        code = process.wait()
        last.cancel()
    return code


def _version() -> str:
    """The commit that is judged; `-changed` where what it consists of is not quite that."""
    changed = _git("status", "--porcelain", "--", "src", "capture", "pyproject.toml")
    return _git("rev-parse", "--short=12", "HEAD") + ("-changed" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
