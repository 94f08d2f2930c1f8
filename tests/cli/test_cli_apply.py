"""Apply is an answer: what each change comes to at real sidecars, and what ends with which code."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_mesh import PAGE, ROUTING, cli_mesh, run
from serve_parts import Mesh, service, virtual_service

pytestmark = pytest.mark.envoy

TO_V1 = """\
# Everything to v1.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
"""
LINE = "virtualservice.networking.istio.io/reviews"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with cli_mesh(tmp_path_factory.mktemp("m")) as made:
        yield made


@pytest.fixture
def mesh(shared: Mesh) -> Iterator[Mesh]:
    """The same mesh for every test, with the files it began with."""
    before = {path: path.read_bytes() for path in shared.config.iterdir()}
    yield shared
    for path in set(shared.config.iterdir()) - before.keys():
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)
    shared.apply()
    shared.settle()


def test_a_change_is_live_when_the_answer_comes(mesh: Mesh) -> None:
    first = run("apply", "-f", "-", stdin=TO_V1)
    assert first.code == 0, first.err
    assert first.out.startswith(f"{LINE} configured\nlive on 2 of 2 proxies in ")
    assert "subset v1" in run("routes", PAGE).out
    assert "jason" not in run("routes", PAGE).out
    again = run("apply", "-f", "-", stdin=TO_V1)
    assert again.out.startswith(f"{LINE} unchanged\nno proxy needs anything")
    assert "# Reviews by version." in (mesh.config / "routing.yaml").read_text()
    gone = run("delete", "vs", "reviews", "-n", "shop")
    assert gone.out.startswith(f"{LINE} deleted\ngone from 2 of 2 proxies in ")
    created = run("apply", "-f", "-", stdin=TO_V1)
    assert created.out.startswith(f"{LINE} created\nlive on 2 of 2")
    assert (mesh.config / "virtualservice-shop-reviews.yaml").read_text() == TO_V1


def test_twenty_edits_in_a_row_are_each_counted(mesh: Mesh) -> None:
    """The watcher reads the same files: whoever comes first, the answer counts every proxy."""
    for number in range(20):
        text = TO_V1.replace("  - route:", f"  - timeout: {number + 1}s\n    route:")
        done = run("apply", "-f", "-", stdin=text)
        assert "live on 2 of 2 proxies" in done.out, (number, done)


def test_what_is_broken_is_refused_before_anything_is_touched(mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(TO_V1 + "---\n" + TO_V1.replace("- route:", "- rout:").replace("name: reviews", "name: other"))
    done = run("apply", "-f", str(path))
    assert done.code == 65
    assert f"{path}:18: error TUL0113" in done.err
    assert "VirtualService/shop/other spec.http[0].rout" in done.err
    assert (mesh.config / "routing.yaml").read_text() == ROUTING
    assert sorted(one.name for one in mesh.config.iterdir()) == ["routing.yaml", "security.yaml", "services.yaml"]


def test_dry_run_writes_nothing(mesh: Mesh) -> None:
    done = run("apply", "-f", "-", "--dry-run", stdin=TO_V1)
    assert (done.code, done.out) == (0, f"{LINE} configured (dry run)\n")
    assert (mesh.config / "routing.yaml").read_text() == ROUTING


def test_a_proxy_that_does_not_answer_is_named(mesh: Mesh) -> None:
    stopped = mesh.proxies()[f"{PAGE}.shop"]
    pid = _pid_of(mesh, stopped["uid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        done = run("apply", "-f", "-", "--timeout", "1", stdin=TO_V1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.code == 75
    assert "live on 1 of 2 proxies" in done.out
    assert f"waiting for {PAGE}.shop" in done.out


def test_without_a_mesh_or_a_control_plane_the_code_is_69(tmp_path: Path) -> None:
    with cli_mesh(tmp_path, envoys=False) as mesh:
        mesh.kill()
        _dead_plane()


def _dead_plane() -> None:
    dead = run("get", "vs")
    assert dead.code == 69
    assert "the control plane of the mesh trial does not answer" in dead.err
    nobody = run("get", "vs", "--mesh", "nobody")
    assert nobody.code == 69
    assert "TUL0911" in nobody.err


def test_analyze_says_what_would_be(mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    path.write_text(TO_V1.replace("subset: v1", "subset: v9"))
    found = run("analyze", str(path))
    assert found.code == 79
    assert f"{path}:9: warning TUL0462" in found.out
    assert run("analyze", str(path), "--failure-threshold", "error").code == 0
    assert run("analyze", str(path), "-S", "TUL0462=VirtualService/shop/*").code == 0
    assert run("analyze").code == 0
    alone = run("analyze", "--no-mesh", str(path))
    assert "TUL0461" in alone.out


def test_the_status_column_says_what_is_refused(mesh: Mesh) -> None:
    mesh.write("broken.yaml", {**virtual_service("b", "shop", "page"), "apiVersion": "networking.istio.io/v9"})
    mesh.write("more.yaml", service("lost", "shop"), virtual_service("w", "shop", "nobody"))
    mesh.apply(mesh.config / "broken.yaml", mesh.config / "more.yaml")
    rows = {line.split()[0]: line for line in run("get", "vs", "-n", "shop").out.splitlines()}
    assert rows["b"].endswith("Refused TUL0105")
    assert "Warning TUL0471" in rows["w"]
    assert rows["reviews"].endswith("Accepted")


def _pid_of(mesh: Mesh, uid: str) -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if uid.encode() in words and b"envoy" in words.split(b"\0")[0]:
            return int(path.parent.name)
    raise AssertionError(f"no Envoy of {uid}")
