"""`make conformance`: the official suite of the Gateway API against tulle in a real cluster; the reports are kept.

Two runs, because namespaces of mesh tests are injected and those of gateway tests are not. One test alone: `--run NAME`; on a cluster that
runs already: `--cluster NAME`.
"""

import argparse
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from kubelab import builds, cluster
from kubelab.cluster import Choice, Cluster

from tulle.dialects.gateway_api.features import MESH_FEATURES

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "docs" / "conformance"
IMAGES = ("proxy", "control-plane", "capture", "echo-basic", "echo", "coredns", "test")
RUNS = {
    "gateway": ("GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP", "", ()),
    "mesh": ("MESH-HTTP,MESH-GRPC", "istio-injection=enabled", MESH_FEATURES),
}
"""Name -> profiles, labels of the suite's namespaces, features claimed where no GatewayClass's status says them."""
LONGEST_S = 90 * 60


def main() -> int:
    """The exit code: 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", default="", help="one that runs, with tulle installed")
    parser.add_argument("--run", default="", help="one test of the suite by its name; nothing is kept")
    parser.add_argument("--only", choices=tuple(RUNS), help="one of the two runs")
    parser.add_argument("--save", action="store_true", help="keep the reports in docs/conformance")
    chosen = parser.parse_args()
    found = cluster.attach(chosen.cluster) if chosen.cluster else _started()
    failed = False
    try:
        for name in [chosen.only] if chosen.only else RUNS:
            failed |= not _run(found, name, chosen.run, is_kept=chosen.save and not chosen.run)
    finally:
        if not chosen.cluster:
            cluster.down(found.name)
    return int(failed)


def _started() -> Cluster:
    """A cluster of its own with the kinds of the Gateway API and tulle."""
    found = cluster.up(Choice(name="conformance", images=IMAGES))
    prepare(found)
    return found


def prepare(found: Cluster) -> None:
    """Kinds and tulle, ready."""
    kinds = builds.module("conformance", "sigs.k8s.io/gateway-api") / "config" / "crd" / "standard"
    found.kubectl("apply", "--server-side", "-f", str(kinds), limit_s=120)
    tulle = [sys.executable, "-m", "tulle", "install", "-y", "--profile", "minimal", "--set", "image.tag=dev"]
    subprocess.run(tulle, check=True, env={**os.environ, "KUBECONFIG": str(found.kubeconfig)}, timeout=300)


def _run(found: Cluster, name: str, test: str, *, is_kept: bool) -> bool:
    """One run of the suite; whether all of it passed."""
    profiles, labels, features = RUNS[name]
    folder = REPORTS if is_kept else Path(os.environ.get("TMPDIR", "/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"gateway-api-{name}.yaml"
    report.unlink(missing_ok=True)
    commit = _git("rev-parse", "--short=12", "HEAD")
    words = {
        "gateway-class": "tulle",
        "mesh-name": "tulle",
        "conformance-profiles": profiles,
        "namespace-labels": labels,
        "supported-features": ",".join(features),
        "report-output": str(report),
        "organization": "tulle",
        "project": "tulle",
        "url": "https://pypi.org/project/tulle",
        "version": commit,
        "contact": "SECURITY.md",
        "run-test": test,
    }
    line = [str(builds.built("conformance")), f"-test.timeout={LONGEST_S}s", "-test.v"]
    line += [f"-{flag}={value}" for flag, value in words.items() if value]
    began = time.monotonic()
    log = folder / f"gateway-api-{name}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            line,
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KUBECONFIG": str(found.kubeconfig)},
            timeout=LONGEST_S + 60,
        )
    print(f"{name}: exit {done.returncode} after {time.monotonic() - began:.0f} s, log {log}")
    for text in log.read_text(errors="replace").splitlines():
        if text.lstrip().startswith("--- FAIL"):
            print(f"  {text.strip()}")
    if report.exists():
        raw = yaml.safe_load(report.read_text())
        _table(raw)
        if is_kept:
            head = f"# {datetime.now(UTC):%Y-%m-%d}, commit {commit}: `make conformance`\n"
            report.write_text(head + report.read_text())
            log.unlink()
    return done.returncode == 0


def _table(report: dict[str, Any]) -> None:
    print(f"  {'profile':<14} {'level':<9} {'result':<8} passed failed skipped")
    for profile in report.get("profiles") or ():
        for level in ("core", "extended"):
            if level in profile:
                count = profile[level].get("statistics") or {}
                numbers = "  ".join(f"{count.get(word, 0):>5}" for word in ("Passed", "Failed", "Skipped"))
                print(f"  {profile['name']:<14} {level:<9} {profile[level].get('result', ''):<8} {numbers}")
                for one in profile[level].get("failedTests") or ():
                    print(f"    failed: {one}")
        unclaimed = (profile.get("extended") or {}).get("unsupportedFeatures") or ()
        print(f"    not claimed: {', '.join(unclaimed) or '-'}")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
