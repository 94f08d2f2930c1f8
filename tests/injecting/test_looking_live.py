"""What can be read of a pod's proxy at port 15000, asked at a real Envoy: a fixed list of paths, nothing that changes, no key."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from injecting_kubelet import Json, alone, proxy_of, running, started, validated

from tulle.compile.envoy.bootstrap import TYPE
from tulle.compile.envoy.cluster_bootstrap import LOOKING_PATHS, LOOKING_PORT
from tulle.injecting.pods import injected
from tulle.injecting.settings import InjectionSettings, NamespaceFacts

pytestmark = pytest.mark.envoy

REDACTED = "[redacted]"


def pod() -> Json:
    made = {"metadata": {"name": "looked-at"}, "spec": {"containers": [{"name": "app"}]}}
    return injected(made, NamespaceFacts("shop", {"istio-injection": "enabled"}), InjectionSettings()).pod


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory, roots: str) -> Iterator[int]:
    with alone(pod(), tmp_path_factory.mktemp("looking"), roots, "looking") as (port, _):
        yield port


def asked(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        with connection.getresponse() as response:
            return response.status, response.read()


def test_it_listens_on_the_loopback_alone(tmp_path: Path, roots: str) -> None:
    command, _ = started(pod(), tmp_path, roots)
    bootstrap = json.loads(command[command.index("--config-yaml") + 1])
    (listener,) = [one for one in bootstrap["static_resources"]["listeners"] if one["name"] == "looking"]
    assert listener["address"] == {"socket_address": {"address": "127.0.0.1", "port_value": LOOKING_PORT}}
    assert LOOKING_PORT not in [one["containerPort"] for one in proxy_of(pod())["ports"]]
    validated(pod(), tmp_path, roots)


@pytest.mark.parametrize("path", LOOKING_PATHS)
def test_what_is_listed_is_answered(looking: int, path: str) -> None:
    status, body = asked(looking, path)
    assert (status, bool(body)) == (200, True)


def test_queries_are_passed_on(looking: int) -> None:
    status, body = asked(looking, "/clusters?format=json")
    assert status == 200
    assert "cluster_statuses" in json.loads(body)
    assert json.loads(asked(looking, "/config_dump?include_eds=")[1])["configs"]


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/quitquitquit", "/drain_listeners", "/healthcheck/fail", "/logging?level=trace", "/reset_counters"),
        *("/runtime_modify?a=b", "/memory", "/heap_dump", "/cpuprofiler?enable=y", "/tap", "/reopen_logs", "/help"),
        *(
            "/config_dump/../quitquitquit",
            "/stats/../quitquitquit",
            "/stats/recentlookups",
            "/config_dump/",
            "//logging",
        ),
        *("/config_dump%2f..%2fquitquitquit", "/ready/../logging"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_else_is(looking: int, path: str, method: str) -> None:
    assert asked(looking, path, method)[0] in (400, 404)
    assert asked(looking, "/ready")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_listed_paths_are_read_only(looking: int, method: str) -> None:
    for path in LOOKING_PATHS:
        assert asked(looking, path, method)[0] == 404, path


def test_no_private_key_can_be_read(
    tmp_path: Path, roots: str, certificate_for: Callable[[str], tuple[str, str]]
) -> None:
    """With a key among what Envoy was given (by SDS, as always): in the dump it is redacted, and elsewhere it is not at all."""
    chain, key = certificate_for("web.example")
    with alone(pod(), tmp_path, roots, "looking", [holding(chain, key, tmp_path / "secret.json")]) as (port, _):
        answers = {path: asked(port, path)[1].decode() for path in LOOKING_PATHS}
    parts = json.loads(answers["/config_dump"])["configs"]
    held = [one["secret"] for part in parts for one in part.get("dynamic_active_secrets", ()) if one["name"] == "held"]
    assert [one["tls_certificate"]["private_key"] for one in held] == [{"inline_string": REDACTED}]
    assert held[0]["tls_certificate"]["certificate_chain"]["inline_string"] == chain
    lines = [line for line in key.splitlines() if "-----" not in line]
    encoded = base64.b64encode(key.encode()).decode()
    for path, body in answers.items():
        assert not [line for line in lines if line in body], path
        assert encoded not in body, path


def test_one_directory_is_watched(tmp_path: Path, roots: str) -> None:
    """All sidecars of a node share the inotify instances of one user, 128 unless the machine says more."""
    command, variables = started(pod(), tmp_path, roots)
    at = command.index("--config-yaml") + 1
    bootstrap = json.loads(command[at])
    del bootstrap["static_resources"]["listeners"]
    command[at] = json.dumps(bootstrap)
    with running(command, variables, (tmp_path / "admin.sock").exists) as process:
        links = [one.readlink() for one in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert [one.name for one in links if "inotify" in one.name] == ["anon_inode:inotify"]


def holding(chain: str, key: str, file: Path) -> Json:
    """A cluster whose certificate comes by SDS from a file."""
    secret = {
        "@type": f"{TYPE}extensions.transport_sockets.tls.v3.Secret",
        "name": "held",
        "tls_certificate": {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}},
    }
    file.write_text(json.dumps({"resources": [secret]}))
    source = {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}
    tls = {
        "@type": f"{TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "held", "sds_config": source}]},
    }
    return {
        "name": "holding",
        "type": "STATIC",
        "connect_timeout": "1s",
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
