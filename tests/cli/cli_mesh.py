"""A mesh the command line can find: a real control plane, real Envoys on pod sockets, and the supervisor's lock and description."""

import contextlib
import fcntl
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from serve_parts import Envoy, Mesh, pod, service, uid_of, until

from tulle.cli import main

NS = "shop"
ROUTING = """\
# Reviews by version.
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
  namespace: shop
spec:
  host: reviews
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 7
  subsets:
  - name: v1
    labels: {version: v1}
---
# Jason sees v1 only.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
  namespace: shop
spec:
  hosts: [reviews]
  http:
  - name: jason
    match:
    - headers:
        end-user: {exact: jason}
    route:
    - destination: {host: reviews, subset: v1}
  - timeout: 2s
    route:
    - destination: {host: reviews}
"""
SECURITY = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec:
  mtls: {mode: STRICT}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-page, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  action: ALLOW
  rules:
  - from:
    - source: {principals: [cluster.local/ns/shop/sa/page]}
    to:
    - operation: {methods: [GET]}
"""
PAGE, REVIEWS = "page-0", "reviews-v1-0"


class Ran(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def run(*words: str, stdin: str = "", cwd: Path | None = None) -> Ran:
    """`tulle`, from its arguments to its exit code, in this process (a fresh one takes most of its time to import)."""
    out, err = io.StringIO(), io.StringIO()
    before, was = Path.cwd(), sys.stdin
    sys.stdin = io.StringIO(stdin)
    os.chdir(cwd or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(list(words))
    finally:
        os.chdir(before)
        sys.stdin = was
    code = ended.value.code
    assert isinstance(code, int)
    return Ran(code, out.getvalue(), err.getvalue())


@contextmanager
def cli_mesh(home: Path, envoys: bool = True, *, is_full: bool = True) -> Iterator[Mesh]:
    """Bookshop: page and reviews, each behind a real Envoy; `is_full`: they hold everything, though nobody calls anybody."""
    mesh = Mesh(home, settings={"discovery": "full", "depth": "full"} if is_full else {})
    (mesh.config / "routing.yaml").write_text(ROUTING)
    (mesh.config / "security.yaml").write_text(SECURITY)
    mesh.write("services.yaml", service("page", NS, "10.96.0.1"), service("reviews", NS, "10.96.0.2"))
    mesh.pods(
        pod(PAGE, NS, "10.88.0.1", app="page", sa="page"),
        pod(REVIEWS, NS, "10.88.0.2", app="reviews", sa="reviews"),
        service("page", NS, "10.96.0.1"),
        service("reviews", NS, "10.96.0.2"),
    )
    description = {"name": "trial", "manifests": [str(mesh.config)], "configDirectory": str(mesh.config)}
    (mesh.run / "mesh.json").write_text(json.dumps(description))
    root = home / "xdg" / "tulle"
    root.mkdir(parents=True)
    (root / "trial").symlink_to(mesh.run)
    lock = os.open(mesh.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for name in (PAGE, REVIEWS):
        (mesh.run / "xds" / uid_of(name, NS)).mkdir(mode=0o700, parents=True)
    running: list[Envoy] = []
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_RUNTIME_DIR", str(home / "xdg"))
    patch.setenv("XDG_STATE_HOME", str(home / "state-home"))
    patch.delenv("TULLE_MESH", raising=False)
    try:
        mesh.start()
        if envoys:
            running = [Envoy(mesh, name, NS) for name in (PAGE, REVIEWS)]
            until(lambda: all(one.is_live() for one in running), "live Envoys")
            mesh.settle()
        yield mesh
    finally:
        for one in running:
            one.stop()
        mesh.stop()
        os.close(lock)
        patch.undo()
