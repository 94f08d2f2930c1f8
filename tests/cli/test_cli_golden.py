"""What each command prints about a real control plane and real sidecars, per format (TULLE_GOLD=1 rewrites)."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cli_mesh import PAGE, REVIEWS, Ran, cli_mesh, run
from serve_parts import Mesh

pytestmark = pytest.mark.envoy
GOLDEN = Path(__file__).parent / "golden"

COMMANDS = {
    "get-vs": ("get", "vs", "-n", "shop"),
    "get-vs-name": ("get", "vs", "-n", "shop", "-o", "name"),
    "get-vs-yaml": ("get", "vs", "reviews", "-n", "shop", "-o", "yaml"),
    "get-svc-wide": ("get", "svc", "-A", "-o", "wide"),
    "get-pods-wide": ("get", "po", "-n", "shop", "-o", "wide"),
    "get-all": ("get", "all", "-A", "-o", "wide"),
    "get-missing": ("get", "vs", "nope"),
    "get-unknown-kind": ("get", "nonsense"),
    "describe-svc": ("describe", "svc", "reviews", "-n", "shop"),
    "describe-pod": ("describe", "pod", REVIEWS, "-n", "shop"),
    "describe-vs": ("describe", "vs", "reviews", "-n", "shop"),
    "proxy-status": ("proxy", "status", "-o", "wide"),
    "proxy-config-cluster": ("proxy", "config", "cluster", PAGE),
    "proxy-config-listener": ("proxy", "config", "listener", "reviews-v1"),
    "proxy-config-route": ("proxy", "config", "route", PAGE),
    "proxy-config-route-wide": ("proxy", "config", "route", PAGE, "--fqdn", "reviews", "-o", "wide"),
    "proxy-config-endpoint": ("proxy", "config", "endpoint", PAGE),
    "proxy-config-secret": ("proxy", "config", "secret", PAGE),
    "explain-route": ("explain", PAGE, "route", "reviews"),
    "explain-cluster": ("explain", PAGE, "cluster", "|v1|"),
    "explain-filter": ("explain", REVIEWS, "filter", "rbac.allow"),
    "explain-code": ("explain", "tul0113"),
    "authz": ("authz", "reviews-v1"),
    "routes-wide": ("routes", PAGE, "-o", "wide"),
    "analyze": ("analyze",),
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with cli_mesh(tmp_path_factory.mktemp("m")) as made:
        yield made


def shown(ran: Ran, mesh: Mesh) -> str:
    """The whole answer, without what differs between runs."""
    text = f"{ran.out}{'--- stderr' + chr(10) + ran.err if ran.err else ''}--- exit {ran.code}\n"
    for pattern, stand_in in (
        (re.escape(str(mesh.home)), "HOME"),
        (r"\b[0-9a-f]{36,40}\b", "SERIAL"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "MOMENT"),
        (r"\b\d+/\d+ {3}(\d+[hms])", "R/R   AGE"),
        (r"unix {8}[0-9a-f]{8}", "unix        VIEW"),
    ):
        text = re.sub(pattern, stand_in, text)
    return re.sub(r" {3,}", "   ", text) if "SERIAL" in text else text  # serials differ in length


@pytest.mark.parametrize("name", COMMANDS)
def test_answers(name: str, mesh: Mesh) -> None:
    found = shown(run(*COMMANDS[name], cwd=mesh.config), mesh)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("TULLE_GOLD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


def test_no_golden_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        ("get", "all", "-A"),
        ("get", "proxies"),
        ("proxy", "config", "route", PAGE),
        ("proxy", "config", "cluster", PAGE),
        ("proxy", "config", "secret", PAGE),
        ("explain", PAGE, "route"),
        ("authz", REVIEWS),
        ("routes", PAGE),
        ("stat", "svc", "-A", "-w", "0.2"),
        ("edges", "-w", "0.2"),
        ("analyze",),
        ("version",),
    ],
    ids=" ".join,
)
def test_json_and_yaml_say_the_same(words: tuple[str, ...], mesh: Mesh) -> None:
    as_json, as_yaml = run(*words, "-o", "json"), run(*words, "-o", "yaml")
    assert (as_json.code, as_yaml.code) == (0, 0), as_json.err
    assert json.loads(as_json.out) == yaml.safe_load(as_yaml.out)


def test_rows_of_a_live_sidecar_name_their_lines(mesh: Mesh) -> None:
    """Must-show 8: a route, a cluster and a filter."""
    routing, security = mesh.config / "routing.yaml", mesh.config / "security.yaml"

    def line_of(path: Path, text: str) -> int:
        return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)

    for kind, name, path, text in (
        ("route", "jason", routing, "name: jason"),
        ("cluster", "|v1|", routing, "name: v1"),
        ("filter", "tulle.rbac.allow", security, "- from:"),
    ):
        pod = REVIEWS if kind == "filter" else PAGE
        found = json.loads(run("explain", pod, kind, name, "-o", "json").out)
        places = {(origin["file"], origin["line"]) for one in found for origin in one["origins"]}
        assert (str(path), line_of(path, text)) in places, kind


def test_no_form_of_the_secrets_has_a_key(mesh: Mesh) -> None:
    for form in ("table", "wide", "json", "yaml"):
        out = run("proxy", "config", "secret", REVIEWS, "-o", form).out
        assert "PRIVATE" not in out
        assert "UFJJVkFURSBLRVk" not in out  # base64 of "PRIVATE KEY"
    secret = json.loads(run("proxy", "config", "secret", REVIEWS, "-o", "json").out)
    assert any(
        one["resource"]["secret"].get("tls_certificate", {}).get("private_key") == "[redacted]" for one in secret
    )


def test_log_levels_are_the_sidecars(mesh: Mesh) -> None:
    assert "  rbac: debug" in run("proxy", "log", REVIEWS, "--level", "rbac:debug").out
    assert "  rbac: debug" in run("proxy", "log", REVIEWS).out
    assert run("proxy", "log", REVIEWS, "--level", "rbac:loud").code == 2
    refused = run("proxy", "log", REVIEWS, "--level", "nobody:debug")
    assert refused.code == 1
    assert "unknown logger" in refused.err


def test_the_merged_endpoint_is_where_version_says(mesh: Mesh) -> None:
    import urllib.request

    url = json.loads(run("version", "-o", "json").out)["controlPlane"]["metrics"]
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    for pod in (PAGE, REVIEWS):
        assert f'up{{pod="{pod}",namespace="shop"}} 1' in text
        assert f'envoy_server_live{{pod="{pod}",namespace="shop"}} 1' in text
    assert "pilot_xds 2.0" in text
