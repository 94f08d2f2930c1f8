"""Which clients send connections of a TCP port as streams, to whom, and what changes when that does."""

import pytest

from compile.world import World, mesh_settings, pod
from tulle.model.intent import Depth
from tulle.xds.names import TypeUrl

DB = """
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: 10.96.3.0, selector: {app: db}, ports: [{name: tcp, port: 90, targetPort: 9000}]}
"""
ALSO = """
---
apiVersion: v1
kind: Service
metadata: {name: also, namespace: default}
spec: {clusterIP: 10.96.3.1, selector: {app: db}, ports: [{name: PORT, port: 80, targetPort: 9000}]}
"""
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rule, namespace: default}
spec:
  host: db
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}
"""
MODE = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mode, namespace: default}
spec: {mtls: {mode: MODE}}
"""
ALLOWED = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some, namespace: default}
spec:
  selector: {matchLabels: {app: db}}
  rules: [{from: [{source: {namespaces: [a]}}]}]
"""
LISTENER = "10.96.3.0_90"


def server(name: str, address: str, **annotations: str) -> str:
    """A pod of `db`."""
    return pod(name, address, labels={"app": "db"}, annotations=annotations)


def world(*more: str, depth: Depth = Depth.L4, asked: str = "") -> World:
    annotations = {"tulle.dev/discovery": asked} if asked else {}
    pods = [pod("client", "10.244.0.2", annotations=annotations), server("db-1", "10.244.1.1")]
    return World.of("".join((*pods, *more, DB)), mesh=mesh_settings(depth=depth))


def tunnel(found: World) -> str:
    """What the client's sidecar asks for in CONNECT."""
    listener = found.shown("default", "client", TypeUrl.LDS, LISTENER)
    proxy = listener["default_filter_chain"]["filters"][-1]["typed_config"]
    return str(proxy.get("tunneling_config", {}).get("hostname", ""))


def chains(found: World) -> set[str]:
    """Filter chains of the server's sidecar."""
    listener = found.shown("default", "db-1", TypeUrl.LDS, "virtualInbound")
    return {one["name"] for one in listener["filter_chains"]}


def test_a_client_of_depth_l4_sends_streams() -> None:
    found = world()
    assert tunnel(found) == "db.default.svc.cluster.local:90"
    assert "9000-mtls-tunnel" in chains(found)


@pytest.mark.parametrize("depth", [Depth.ONCE, Depth.FULL])
def test_others_do_not_and_their_servers_would(depth: Depth) -> None:
    found = world(depth=depth)
    assert tunnel(found) == ""
    assert "9000-mtls-tunnel" in chains(found)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(server("db-2", "10.244.1.2", **{"tulle.dev/sidecar": "false"}), id="no sidecar"),
        pytest.param(ALSO.replace("PORT", "web"), id="may be HTTP"),
        pytest.param(ALSO.replace("PORT", "http"), id="is HTTP"),
        pytest.param(RULE, id="limits"),
        pytest.param(MODE.replace("MODE", "DISABLE"), id="no mTLS"),
    ],
)
def test_not_where_a_stream_is_not_a_connection(more: str) -> None:
    assert tunnel(world(more)) == ""


@pytest.mark.parametrize("port", ["web", "http"])
def test_a_server_that_may_parse_takes_no_streams(port: str) -> None:
    assert "9000-mtls-tunnel" not in chains(world(ALSO.replace("PORT", port)))


def test_another_service_that_says_the_same_changes_nothing() -> None:
    assert tunnel(world(ALSO.replace("PORT", "tcp"), MODE.replace("MODE", "STRICT")))


def test_nobody_sends_streams_to_nobody() -> None:
    found = World.of(pod("client", "10.244.0.2") + DB, mesh=mesh_settings(depth=Depth.L4))
    assert tunnel(found) == ""
    found.put(server("db-1", "10.244.1.1"))
    assert tunnel(found)


def test_clients_do_not_hear_of_who_may_connect() -> None:
    found = world()
    before = found.resources("default", "client")
    guarded = found.shown("default", "db-1", TypeUrl.LDS, "virtualInbound")
    found.put(ALLOWED)
    assert found.resources("default", "client") == before
    (chain,) = [
        one
        for one in found.shown("default", "db-1", TypeUrl.LDS, "virtualInbound")["filter_chains"]
        if one["name"] == "9000-mtls-tunnel"
    ]
    names = [one["name"] for one in chain["filters"]]
    assert names == ["tulle.rbac.allow", "envoy.filters.network.http_connection_manager"]
    assert guarded != found.shown("default", "db-1", TypeUrl.LDS, "virtualInbound")


def test_the_cluster_serves_both_kinds_of_client() -> None:
    found = world()
    name = "outbound|90||db.default.svc.cluster.local"
    shown = found.shown("default", "client", TypeUrl.CDS, name)
    (options,) = shown["typed_extension_protocol_options"].values()
    assert "http2_protocol_options" in options["explicit_http_config"]
    other = world(depth=Depth.ONCE)
    assert (
        other.resources("default", "client")[TypeUrl.CDS][name]
        == found.resources("default", "client")[TypeUrl.CDS][name]
    )
