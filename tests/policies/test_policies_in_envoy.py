"""Fragments in a real Envoy: every golden is accepted, and the filters do what the kinds say."""

import http.client
import json
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest
from policy_goldens import CASES, cluster_of, kind_of, specs_of

from tulle.model.intent import MatchKind, StringMatch
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.policies import KINDS
from tulle.policies.authorization import spec as authz
from tulle.policies.authorization.envoy import inbound_network_filters, on_inbound_route
from tulle.policies.cors.envoy import on_route as cors_route
from tulle.policies.cors.spec import Cors
from tulle.policies.fragments import RouteFragment
from tulle.policies.headers.envoy import on_route as headers_route
from tulle.policies.headers.spec import Headers
from tulle.policies.load_balancing.envoy import on_cluster
from tulle.policies.load_balancing.spec import Algorithm, HashKey, LoadBalancing
from tulle.xds import api, schema
from tulle.xds.extract import envoy_binary

pytestmark = pytest.mark.envoy
ANSWER = {"status": 200, "body": api.DataSource(inline_string="ok")}


def http_filters():
    """Every kind's filters, off until a route switches them on, then the router."""
    hooks = [hook for kind in KINDS for hook in (kind.http_filters, kind.inbound_http_filters) if hook]
    made = [
        api.HttpFilter(name=name, typed_config=schema.to_any(config), disabled=True)
        for hook in hooks
        for name, config in hook()
    ]
    return [*made, api.HttpFilter(name="envoy.filters.http.router", typed_config=schema.to_any(api.Router()))]


def route(path, fragment, **action):
    filters = {name: schema.to_any(one) for name, one in fragment.filters.items()}
    return api.Route(match=api.RouteMatch(prefix=path), typed_per_filter_config=filters, **fragment.route, **action)


def http_listener(port, routes, log=None):
    logs = []
    if log:
        line = api.SubstitutionFormatString(
            text_format_source=api.DataSource(inline_string="%REQ(:PATH)% %RESPONSE_CODE_DETAILS%\n")
        )
        logs = [
            api.AccessLog(name="file", typed_config=schema.to_any(api.FileAccessLog(path=str(log), log_format=line)))
        ]
    table = api.RouteConfiguration(
        name="all", virtual_hosts=[api.VirtualHost(name="all", domains=["*"], routes=routes)]
    )
    manager = api.HttpConnectionManager(
        stat_prefix="http", route_config=table, http_filters=http_filters(), access_log=logs
    )
    return listener(f"http{port}", port, [api.Filter(name="http", typed_config=schema.to_any(manager))])


def listener(name, port, filters):
    place = api.Address(socket_address=api.SocketAddress(address="127.0.0.1", port_value=port))
    return api.Listener(name=name, address=place, filter_chains=[api.FilterChain(filters=filters)])


def bootstrap(tmp_path, listeners, clusters=()):
    static = api.Bootstrap.StaticResources(listeners=listeners, clusters=list(clusters))
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(schema.to_dict(api.Bootstrap(static_resources=static))))
    return path


def cluster(name, fragment=None):
    fields = {"name": name, "type": "STATIC", "connect_timeout": {"seconds": 10}}
    options = {}
    if fragment:
        fields.update(fragment.cluster)
        config = api.HttpProtocolOptions(
            common_http_protocol_options=api.CoreHttpProtocolOptions(**fragment.http),
            explicit_http_config=api.HttpProtocolOptions.ExplicitHttpConfig(
                http_protocol_options=api.Http1ProtocolOptions()
            ),
        )
        options = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": schema.to_any(config)}
    return api.Cluster(**fields, typed_extension_protocol_options=options)


def test_envoy_accepts_every_golden(tmp_path):
    routes, clusters, listeners = [], {}, []
    for case in CASES:
        kind, specs = kind_of(case), specs_of(case)
        for index, spec in enumerate(specs):
            path = f"/{kind.name}/{case.stem}/{index}"
            if kind.on_route:
                fragment = kind.on_route(spec, cluster_of)
                routes.append(route(path, fragment, route=api.RouteAction(cluster="local", **fragment.action)))
            if kind.on_target:
                weighted = api.WeightedCluster(
                    clusters=[
                        api.WeightedCluster.ClusterWeight(
                            name="local", weight=api.UInt32Value(value=1), **kind.on_target(spec)
                        )
                    ]
                )
                routes.append(
                    route(f"{path}/target", RouteFragment(), route=api.RouteAction(weighted_clusters=weighted))
                )
            if kind.on_cluster:
                clusters[path] = cluster(path, kind.on_cluster(spec))
            if hasattr(spec, "target"):
                clusters[cluster_of(spec.target)] = cluster(cluster_of(spec.target))
        if kind.on_inbound_route:
            routes.append(
                route(f"/{kind.name}/{case.stem}", kind.on_inbound_route(specs), route=api.RouteAction(cluster="local"))
            )
        if kind.inbound_network_filters:
            proxy = api.Filter(name="tcp", typed_config=schema.to_any(api.TcpProxy(stat_prefix="tcp", cluster="local")))
            made = [
                api.Filter(name=name, typed_config=schema.to_any(one))
                for name, one in kind.inbound_network_filters(specs)
            ]
            listeners.append(listener(case.stem, 10000 + len(listeners), [*made, proxy]))
    clusters["local"] = cluster("local")
    assert len(routes) > 20
    assert len(clusters) > 12
    assert len(listeners) > 6
    config = bootstrap(tmp_path, [http_listener(9999, routes), *listeners], clusters.values())
    ran = subprocess.run(
        [envoy_binary(), "--mode", "validate", "-c", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    warnings = [line for line in ran.stderr.splitlines() if "deprecated" in line.lower()]
    assert warnings == []


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(config, port):
    command = [envoy_binary(), "-c", str(config), "--use-dynamic-base-id", "-l", "error", "--concurrency", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def ask(port, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def policy(name, action, *rules):
    key = ObjectKey("Kubernetes", "security.istio.io", "AuthorizationPolicy", "shop", name)
    made = tuple(
        authz.Rule(sources, operations, conditions, Origin(key, f"spec.rules[{index}]"))
        for index, (sources, operations, conditions) in enumerate(rules)
    )
    return authz.Authorization(key, action, made, Origin(key))


def any_of(*values):
    return authz.Values(any_of=values)


def test_rules_on_routes_decide_and_are_named_in_the_log(tmp_path):
    deny = policy(
        "no-bots",
        authz.Action.DENY,
        ((), (authz.Operation(methods=any_of("DELETE")),), ()),
        ((), (), (authz.Condition("request.headers[user-agent]", any_of("bot*")),)),
        ((authz.Source(request_principals=any_of("*")),), (authz.Operation(paths=any_of("/both/token")),), ()),
    )
    allow = policy(
        "web",
        authz.Action.ALLOW,
        ((), (authz.Operation(hosts=any_of("Shop.example"), paths=any_of("/both/a", "/both/users/{*}/books")),), ()),
        ((authz.Source(namespaces=any_of("web")),), (), ()),
    )
    nobody = policy("nobody", authz.Action.ALLOW)
    port, log = free_port(), tmp_path / "log"
    routes = [
        route("/both", on_inbound_route([deny, allow]), direct_response=api.DirectResponseAction(**ANSWER)),
        route("/deny", on_inbound_route([deny]), direct_response=api.DirectResponseAction(**ANSWER)),
        route("/nobody", on_inbound_route([nobody]), direct_response=api.DirectResponseAction(**ANSWER)),
        route("/open", RouteFragment(), direct_response=api.DirectResponseAction(**ANSWER)),
    ]
    with running(bootstrap(tmp_path, [http_listener(port, routes, log)]), port):
        assert ask(port, "/open", "DELETE", user_agent="bot")[0] == 200
        assert ask(port, "/deny")[0] == 200
        assert ask(port, "/deny/m", "DELETE")[0] == 403
        assert ask(port, "/deny/h", user_agent="bot/7")[0] == 403
        assert ask(port, "/nobody")[0] == 403
        assert ask(port, "/both/a", host="shop.EXAMPLE:8080")[0] == 200
        assert ask(port, "/both/a?query=1", host="shop.example")[0] == 200
        assert ask(port, "/both/users/7/books", host="shop.example")[0] == 200
        assert ask(port, "/both/users/7/8/books", host="shop.example")[0] == 403
        assert ask(port, "/both/a", host="evil.example")[0] == 403
        assert ask(port, "/both/a", "DELETE", host="shop.example")[0] == 403
        assert ask(port, "/both/token", host="shop.example")[0] == 403
    details = dict(line.split(" ", 1) for line in log.read_text().splitlines())
    assert details["/deny/m"] == "rbac_access_denied_matched_policy[ns[shop]-policy[no-bots]-rule[0]]"
    assert details["/deny/h"] == "rbac_access_denied_matched_policy[ns[shop]-policy[no-bots]-rule[1]]"
    assert details["/both/token"] == "rbac_access_denied_matched_policy[ns[shop]-policy[no-bots]-rule[2]]"
    assert details["/nobody"] == "rbac_access_denied_matched_policy[none]"


@pytest.mark.parametrize(
    ("policies", "answer"),
    [
        ([], b"hello"),
        ([policy("http", authz.Action.ALLOW, ((), (authz.Operation(methods=any_of("GET")),), ()))], b""),
        ([policy("http", authz.Action.DENY, ((), (authz.Operation(methods=any_of("GET")),), ()))], b""),
        ([policy("other", authz.Action.DENY, ((), (authz.Operation(ports=any_of("1")),), ()))], b"hello"),
        ([policy("ip", authz.Action.ALLOW, ((authz.Source(ip_blocks=any_of("127.0.0.0/8")),), (), ()))], b"hello"),
        ([policy("ip", authz.Action.ALLOW, ((authz.Source(principals=any_of("*")),), (), ()))], b""),
    ],
)
def test_tcp_ports(tmp_path, policies, answer):
    port = free_port()
    filters = [
        api.Filter(name=name, typed_config=schema.to_any(one)) for name, one in inbound_network_filters(policies)
    ]
    echo = api.Filter(name="echo", typed_config=schema.to_any(api.Echo()))
    config = bootstrap(tmp_path, [listener("tcp", port, [*filters, echo])])
    with running(config, port), socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        one.sendall(b"hello")
        try:
            assert one.recv(100) == answer
        except ConnectionResetError:
            assert answer == b""


@pytest.mark.parametrize("algorithm", [Algorithm.RING_HASH, Algorithm.MAGLEV])
def test_what_is_hashed_is_known_to_the_cluster_alone(tmp_path, algorithm):
    ports = [free_port() for _ in range(4)]
    backends = [
        http_listener(one, [route("/", RouteFragment(), direct_response=api.DirectResponseAction(status=200 + index))])
        for index, one in enumerate(ports[1:])
    ]
    endpoints = [
        api.LbEndpoint(endpoint=api.Endpoint(address={"socket_address": {"address": "127.0.0.1", "port_value": one}}))
        for one in ports[1:]
    ]
    origin = Origin(ObjectKey("Kubernetes", "", "Test", "shop", "x"))
    hashed = cluster("hashed", on_cluster(LoadBalancing(algorithm, HashKey(header="x-user"), None, None, None, origin)))
    hashed.load_assignment.CopyFrom(
        api.ClusterLoadAssignment(cluster_name="hashed", endpoints=[api.LocalityLbEndpoints(lb_endpoints=endpoints)])
    )
    front = http_listener(ports[0], [route("/", RouteFragment(), route=api.RouteAction(cluster="hashed"))])
    with running(bootstrap(tmp_path, [*backends, front], [hashed]), ports[0]):
        answers = {user: {ask(ports[0], "/", x_user=user)[0] for _ in range(6)} for user in "abcdefghijkl"}
    assert all(len(seen) == 1 for seen in answers.values())
    assert len(set.union(*answers.values())) > 1


def test_cors_and_header_operations(tmp_path):
    origin = Origin(ObjectKey("Kubernetes", "", "Test", "shop", "x"))
    cors = cors_route(
        Cors((StringMatch(MatchKind.EXACT, "https://a.example"),), ("GET",), (), (), 60, None, origin), cluster_of
    )
    headers = headers_route(
        Headers((), (), (), (("x-literal", "100% sure"), ("x-known", "%PROTOCOL%")), (), ("x-gone",), origin),
        cluster_of,
    )
    port = free_port()
    routes = [
        route("/cors", cors, route=api.RouteAction(cluster="local")),  # direct responses know no CORS in Envoy
        route("/headers", headers, direct_response=api.DirectResponseAction(**ANSWER)),
        route("/", RouteFragment(), route=api.RouteAction(cluster="local")),
    ]
    preflight = {"origin": "https://a.example", "access_control_request_method": "GET"}
    with running(bootstrap(tmp_path, [http_listener(port, routes)], [cluster("local")]), port):
        status, answered = ask(port, "/cors", "OPTIONS", **preflight)
        assert status == 200
        assert answered["access-control-allow-origin"] == "https://a.example"
        assert answered["access-control-max-age"] == "60"
        assert "access-control-allow-origin" not in ask(port, "/", "OPTIONS", **preflight)[1]
        answered = ask(port, "/headers")[1]
        assert answered["x-literal"] == "100% sure"
        assert answered["x-known"] == "HTTP/1.1"
