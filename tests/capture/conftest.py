"""The capture program, built from this checkout, and a pod's network with somebody outside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from capture_pod import Pod
from kubelab import builds

MODULE = Path(__file__).resolve().parents[2] / "capture"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        go = builds.go()
    except builds.UnavailableError as error:
        pytest.skip(str(error))
    target = tmp_path_factory.mktemp("capture") / "tulle-capture"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    words = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(target), "."]
    subprocess.run(words, cwd=MODULE, env=environment, check=True, timeout=300)
    # other users run it, too
    for folder in (target.parent, target.parent.parent):
        folder.chmod(0o755)
    return target


@pytest.fixture
def pod() -> Iterator[Pod]:
    if os.geteuid() != 0:
        pytest.skip("processes of other users need root")
    holders = [subprocess.Popen(["unshare", "-n", "sleep", "600"]) for _ in range(2)]
    made = Pod(*(holder.pid for holder in holders))
    try:
        until = time.monotonic() + 10
        while not made.is_apart() and time.monotonic() < until:
            time.sleep(0.01)
        made.join()
        yield made
    finally:
        made.close()
        for holder in holders:
            holder.kill()
            holder.wait()
