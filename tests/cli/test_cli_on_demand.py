"""What commands say of sidecars that hold what their workloads have called: here nobody has called anybody."""

import json
from collections.abc import Iterator

import pytest
from cli_mesh import PAGE, cli_mesh, run
from serve_parts import Mesh

pytestmark = pytest.mark.envoy


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with cli_mesh(tmp_path_factory.mktemp("m"), is_full=False) as made:
        yield made


def said(mesh: Mesh, *words: str, code: int = 0) -> str:
    ran = run(*words, cwd=mesh.config)
    assert ran.code == code, ran
    return ran.out + ran.err


def test_routes_are_those_it_may_ask_for(mesh: Mesh) -> None:
    lines = said(mesh, "routes", PAGE).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["page.shop.svc.cluster.local", "9080", "*"],
        ["reviews.shop.svc.cluster.local", "9080", "end-user=jason"],
        ["reviews.shop.svc.cluster.local", "9080", "*"],
    ]


def test_what_it_holds_is_less_and_it_says_so(mesh: Mesh) -> None:
    told = said(mesh, "proxy", "config", "route", PAGE)
    assert "inbound|9080" in told
    assert "reviews.shop" not in told
    assert "holds what its workload has called; `tulle routes` lists what it may call" in told
    assert "reviews" not in said(mesh, "proxy", "config", "cluster", PAGE)
    assert "called" not in said(mesh, "proxy", "config", "secret", PAGE), "certificates are held in any case"
    json.loads(said(mesh, "proxy", "config", "route", PAGE, "-o", "json"))


def test_what_it_does_not_hold_is_explained_elsewhere(mesh: Mesh) -> None:
    told = said(mesh, "explain", PAGE, "route", "reviews", code=1)
    assert f"lists what its workload has called so far, `tulle routes {PAGE}` what it may call" in told


def test_an_object_is_in_force_as_soon_as_somebody_calls(mesh: Mesh) -> None:
    told = said(mesh, "describe", "vs", "reviews", "-n", "shop")
    assert "In force at: 2 sidecars on demand: as soon as the workload calls" in told
    told = said(mesh, "describe", "svc", "reviews", "-n", "shop")
    assert "1. end-user=jason -> reviews.shop.svc.cluster.local:9080 subset v1" in told
