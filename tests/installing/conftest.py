"""Helm, built once from its module and kept in the cache of the test harness; and the cluster of that harness."""

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from kubelab import builds
from kubelab.fixtures import cluster, start_cluster

__all__ = ["cluster", "helm", "start_cluster"]
MODULE = Path(__file__).parent / "helm"
LONGEST_S = 1800


@pytest.fixture(scope="session")
def helm() -> Path:
    """The program. Skips without Go."""
    try:
        go = builds.go()
    except builds.UnavailableError as error:
        pytest.skip(str(error))
    cache = os.environ.get("TULLE_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/tulle"
    key = hashlib.sha256((MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()).hexdigest()[:16]
    target = Path(cache).absolute() / "go" / f"helm-{key}" / "helm"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent.parent / "helm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(go, target)
    return target


def _build(go: str, target: Path) -> None:
    made = target.with_suffix(".new")
    line = ["nice", "-n", "5", go, "build", "-ldflags", "-s -w", "-o", str(made), "helm.sh/helm/v3/cmd/helm"]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
    done = subprocess.run(
        line, check=False, cwd=MODULE, env=environment, capture_output=True, text=True, timeout=LONGEST_S
    )
    assert done.returncode == 0, done.stderr[-4000:]
    made.rename(target)
