"""What needs HTTP, and whose resources change when the depth of a workload does."""

import pytest

from compile.world import CLUSTER, World, mesh_settings, pod
from tulle.compile.destinations import met_at
from tulle.dialects.istio.security import authorizations
from tulle.model.intent import Depth
from tulle.model.keys import ObjectKey, ServiceKey
from tulle.policies import KINDS
from tulle.xds.names import TypeUrl

WEB = """
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.3.0, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec: {clusterIP: 10.96.3.1, selector: {app: other}, ports: [{name: http, port: 80}]}
"""
RULE = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: rule, namespace: default}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  action: {action}
  rules: [{rule}]
"""
NAME = "outbound|80||web.default.svc.cluster.local"


def world(depth: Depth, *more: str) -> World:
    pods = [pod("client", "10.244.0.2"), pod("web-1", "10.244.1.1", labels={"app": "web"}), *more]
    return World.of(WEB + "".join(pods), mesh=mesh_settings(depth=depth))


def alpn(found: World, name: str = NAME) -> list[str]:
    """What a client offers to the servers of a cluster."""
    shown = found.shown("default", "client", TypeUrl.CDS, name)
    offered: list[str] = shown["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"]
    return offered


@pytest.mark.parametrize(
    ("rule", "is_of_requests"),
    [
        ("{from: [{source: {principals: [a]}}]}", False),
        ("{from: [{source: {notNamespaces: [a], ipBlocks: [10.0.0.0/8]}}]}", False),
        ("{to: [{operation: {ports: ['80']}}]}", False),
        ("{when: [{key: source.namespace, values: [a]}, {key: connection.sni, values: [b]}]}", False),
        ("{}", False),
        ("{to: [{operation: {methods: [GET]}}]}", True),
        ("{to: [{operation: {notPaths: [/a]}}]}", True),
        ("{to: [{operation: {hosts: [a]}}]}", True),
        ("{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}", True),
        ("{when: [{key: 'request.headers[x]', values: [a]}]}", True),
        ("{when: [{key: 'request.auth.claims[x]', notValues: [a]}]}", False),  # left out: it denies always
        ("{when: [{key: remote.ip, values: [10.0.0.1]}]}", True),
    ],
)
def test_which_rules_are_about_requests(rule: str, is_of_requests: bool) -> None:
    found = World.of(RULE.format(action="DENY", rule=rule))
    key = ObjectKey(CLUSTER, "security.istio.io", "AuthorizationPolicy", "default", "rule")
    ((_, policy),) = [(one.selector, one.policy) for one in authorizations(found.db, key)]
    (kind,) = [one for one in KINDS if isinstance(policy, one.spec)]
    assert kind.needs_http is not None
    assert kind.needs_http(policy) == is_of_requests


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(
    ("depth", "rule", "offered"),
    [
        (Depth.FULL, "{}", "istio-h2"),
        (Depth.ONCE, "{from: [{source: {namespaces: [a]}}]}", "istio-h2"),
        (Depth.L4, "{from: [{source: {namespaces: [a]}}]}", "istio"),
        (Depth.L4, "{to: [{operation: {paths: [/a]}}]}", "istio-h2"),
    ],
)
def test_a_policy_raises_the_depth_of_whom_it_selects(action: str, depth: Depth, rule: str, offered: str) -> None:
    found = world(depth)
    before = found.resources("default", "client")
    relayed = ["istio-h2", "istio", "h2"] if depth is Depth.FULL else ["istio"]
    assert alpn(found) == relayed
    found.put(RULE.format(action=action, rule=rule))
    assert alpn(found)[0] == offered
    after = found.resources("default", "client")
    changed = {name for name, one in after[TypeUrl.CDS].items() if one != before[TypeUrl.CDS][name]}
    assert changed == ({NAME} if relayed[0] != offered else set())
    assert after[TypeUrl.VHDS] == before[TypeUrl.VHDS]


def test_one_pod_that_parses_makes_clients_speak_http_to_all() -> None:
    found = world(Depth.ONCE)
    assert alpn(found) == ["istio"]
    found.put(pod("web-2", "10.244.1.2", labels={"app": "web"}, annotations={"tulle.dev/depth": "full"}))
    assert alpn(found) == ["istio-h2", "istio", "h2"]
    found.put(pod("web-2", "10.244.1.2", labels={"app": "web"}, annotations={"tulle.dev/depth": "L7"}))
    assert alpn(found) == ["istio"]


def test_a_service_without_pods_is_what_its_pods_will_be() -> None:
    found = world(Depth.ONCE)
    name = "outbound|80||other.default.svc.cluster.local"
    before = found.resources("default", "client")[TypeUrl.CDS][name]
    assert alpn(found, name) == ["istio"]
    found.put(pod("other-1", "10.244.1.9", labels={"app": "other"}))
    assert met_at(found.db, ServiceKey(CLUSTER, "default", "other.default.svc.cluster.local"), 80) == {"relays"}
    after = found.resources("default", "client")[TypeUrl.CDS][name]
    assert after != before, "it proves an identity now"
    assert alpn(found, name) == ["istio"]


def chains(found: World) -> dict[str, bytes]:
    """Filter chains of `web` by name."""
    listener = found.shown("default", "web-1", TypeUrl.LDS, "virtualInbound")
    return {one["name"]: repr(sorted(one.items())).encode() for one in listener["filter_chains"]}


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE"])
def test_a_policy_replaces_only_the_chain_that_relayed(mode: str) -> None:
    """Envoy keeps connections of chains that stay the same: HTTP that other sidecars parsed is not drained."""
    found = world(Depth.ONCE)
    kind = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
    found.put(f"{kind}metadata: {{name: mode, namespace: default}}\nspec: {{mtls: {{mode: {mode}}}}}\n")
    before = chains(found)
    assert "8080-mtls-tcp" in before
    assert "8080-mtls-raised" not in before
    found.put(RULE.format(action="DENY", rule="{to: [{operation: {paths: [/a]}}]}"))
    after = chains(found)
    assert "8080-mtls-raised" in after
    assert "8080-mtls-tcp" not in after
    kept = {name for name, text in before.items() if after.get(name) == text}
    assert {"8080-mtls-http"} <= kept
    assert ("8080-mtls-other" in kept) == (mode == "STRICT")
