"""The Gateway API on this machine: a Gateway bound by label, its listeners and routes, and routes with Services as parents."""

from collections.abc import Iterator
from typing import Any

import pytest
from certificates import self_signed, tls_secret
from local_mesh import LocalMesh
from shapes import Object, account, client, deployment, echo, manifest, namespace, port, service

pytestmark = pytest.mark.mesh

NAME = "gateway.networking.k8s.io/gateway-name"
API = "gateway.networking.k8s.io/v1"

GATEWAYS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: infra}
spec:
  gatewayClassName: tulle
  listeners:
  - {name: any, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: narrow, port: 80, protocol: HTTP, hostname: "*.narrow.test"}
  - {name: https, port: 443, protocol: HTTPS, hostname: secure.test, tls: {certificateRefs: [{name: front, namespace: certs}]}}
  - {name: other, port: 443, protocol: HTTPS, hostname: other.test, tls: {certificateRefs: [{name: front, namespace: certs}]}}
  - {name: pass, port: 443, protocol: TLS, hostname: "*.pass.test", tls: {mode: Passthrough}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: front, namespace: certs}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}]
  to: [{group: "", kind: Secret, name: front}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: infra}
spec:
  parentRefs: [{name: front, sectionName: any}, {name: front, sectionName: https}]
  rules:
  - matches: [{path: {value: /}}, {path: {type: Exact, value: /exact}}]
    backendRefs: [{name: v1, port: 80}]
  - matches: [{path: {value: /two}}, {path: {value: /}, headers: [{name: version, value: two}]}]
    backendRefs: [{name: v2, port: 80}]
  - matches: [{path: {value: /split}}]
    backendRefs: [{name: v1, port: 80, weight: 80}, {name: v2, port: 80, weight: 20}, {name: v1, port: 80, weight: 0}]
  - matches: [{path: {value: /missing}}]
    backendRefs: [{name: nobody, port: 80}]
  - matches: [{path: {value: /partly}}]
    backendRefs: [{name: v1, port: 80, weight: 1}, {name: nobody, port: 80, weight: 1}]
  - matches: [{path: {value: /foreign}}]
    backendRefs: [{name: web, namespace: shop, port: 80}]
  - matches: [{path: {value: /strip}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: rewritten.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: v1, port: 80}]
  - matches: [{path: {value: /whole}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /one/two}}}]
    backendRefs: [{name: v1, port: 80}]
  - matches: [{path: {value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: moved.test, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /there}}}]
  - matches: [{path: {value: /headers}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: set}], remove: [X-Gone]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-Back, value: back}]}}
    backendRefs: [{name: v1, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Backend, value: v1}]}}]}]
  - matches: [{path: {value: /delay}}]
    timeouts: {request: 300ms}
    backendRefs: [{name: v1, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: narrow, namespace: infra}
spec:
  parentRefs: [{name: front, sectionName: narrow}]
  hostnames: [a.narrow.test]
  rules:
  - matches: [{path: {value: /narrow}}]
    backendRefs: [{name: v2, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: infra}
spec:
  parentRefs: [{name: front, sectionName: any}]
  rules:
  - matches: [{method: {service: echo.Echo}}]
    backendRefs: [{name: calls, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: pass, namespace: infra}
spec:
  parentRefs: [{name: front, sectionName: pass}]
  hostnames: [web.pass.test]
  rules:
  - backendRefs: [{name: tls, port: 443}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: producer, namespace: shop}
spec:
  parentRefs: [{kind: Service, group: "", name: web, port: 80}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Route, value: producer}]}}]
    backendRefs: [{name: web, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: consumer, namespace: street}
spec:
  parentRefs: [{kind: Service, group: "", name: web, namespace: shop}]
  rules:
  - matches: [{path: {value: /known}}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Route, value: consumer}]}}]
    backendRefs: [{name: web, namespace: shop, port: 80}]
"""


def gateway(name: str, ns: str) -> list[Object]:
    """Pods of a Gateway made by hand: the label binds them."""
    labels = {"app": name, NAME: name}
    found = deployment(f"{name}-tulle", ns, labels, (), runs_as=name)
    template = found["spec"]["template"]
    template["metadata"]["annotations"] = {"inject.istio.io/templates": "gateway", "sidecar.istio.io/inject": "true"}
    ports = [{"containerPort": 8080}, {"containerPort": 8443}]
    template["spec"]["containers"] = [{"name": "istio-proxy", "image": "auto", "ports": ports}]
    numbers = (port("http", 80, 8080), port("https", 443, 8443))
    return [account(name, ns), service(f"{name}-tulle", ns, {NAME: name}, *numbers, type="LoadBalancer"), found]


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    certificate, key = self_signed("secure.test")
    objects = [
        namespace("infra", inject=False),
        namespace("certs", inject=False),
        namespace("shop"),
        namespace("street"),
        *gateway("front", "infra"),
        tls_secret("front", "certs", certificate, key),
        *(echo(name, "infra", name, http=8000, inject=False) for name in ("v1", "v2")),
        *(service(name, "infra", {"app": name}, port("http", 80, 8000)) for name in ("v1", "v2")),
        echo("calls", "infra", grpc=8003, inject=False),
        service("calls", "infra", {"app": "calls"}, port("any", 80, 8003, "kubernetes.io/h2c")),
        echo("tls", "infra", tcp=8001, inject=False),
        service("tls", "infra", {"app": "tls"}, port("tls", 443, 8001)),
        echo("web", "shop", http=[8000, 8002]),
        service("web", "shop", {"app": "web"}, port("http", 80, 8000), port("http-alt", 8080, 8002)),
        echo("more", "shop", "v2", http=8000),
        service("more", "shop", {"app": "more"}, port("http", 80, 8000)),
        client("neighbour", "shop"),
        client("stranger", "street"),
    ]
    with LocalMesh(manifest(*objects), GATEWAYS) as mesh:
        yield mesh


def ask(mesh: LocalMesh, path: str, host: str = "web.test", **job: object) -> dict[str, Any]:
    """One request through the Gateway's port 80; its answer."""
    found = mesh.outside.http("127.0.0.1", mesh.gateway(80), path, authority=host, **job)
    assert found.answers, (dict(found.counts), found.failures)
    return found.first


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/", {}, "200 v1"),
        ("/exact", {"version": "two"}, "200 v1"),
        ("/two", {}, "200 v2"),
        ("/two/more?x=/y", {}, "200 v2"),
        ("/twofold", {}, "200 v1"),
        ("/other", {"version": "two"}, "200 v2"),
        ("/missing", {}, "500"),
        ("/foreign", {}, "500"),
        ("/delay/2", {}, "504"),
    ],
)
def test_matches(mesh: LocalMesh, path: str, headers: dict[str, str], expected: str) -> None:
    found = mesh.outside.http("127.0.0.1", mesh.gateway(80), path, authority="web.test", headers=headers)
    assert found.only(expected), dict(found.counts)


def test_shares(mesh: LocalMesh) -> None:
    split = mesh.outside.http("127.0.0.1", mesh.gateway(80), "/split", n=1000, authority="web.test")
    assert split.only("200 v1", "200 v2"), dict(split.counts)
    assert 14 < split.share("200 v2") < 26
    partly = mesh.outside.http("127.0.0.1", mesh.gateway(80), "/partly", n=400, authority="web.test")
    assert partly.only("200 v1", "500"), dict(partly.counts)
    assert 38 < partly.share("500") < 62


def test_filters(mesh: LocalMesh) -> None:
    stripped = ask(mesh, "/strip//deep?x=1")["body"]
    assert (stripped["path"], stripped["headers"]["host"]) == ("/deep?x=1", "rewritten.test")
    assert ask(mesh, "/strip")["body"]["path"] == "/"
    assert ask(mesh, "/whole/of/it?x=1")["body"]["path"] == "/one/two?x=1"
    moved = ask(mesh, "/moved/here?x=1")
    assert moved["status"] == 301
    assert moved["headers"]["location"] == "http://moved.test/there/here?x=1"
    changed = ask(mesh, "/headers", headers={"x-gone": "1", "x-set": "0"})
    sent = changed["body"]["headers"]
    assert (sent["x-set"], sent["x-backend"], "x-gone" in sent) == ("set", "v1", False)
    assert changed["headers"]["x-back"] == "back"


def test_a_listener_keeps_its_hosts(mesh: LocalMesh) -> None:
    assert ask(mesh, "/narrow", "a.narrow.test")["status"] == 200
    for path, host in (("/", "a.narrow.test"), ("/narrow", "b.narrow.test"), ("/", "b.narrow.test")):
        assert ask(mesh, path, host)["status"] == 404, (path, host)


def test_https_and_misdirected_requests(mesh: LocalMesh) -> None:
    def secure(host: str, sni: str) -> str:
        found = mesh.outside.http("127.0.0.1", mesh.gateway(443), "/", authority=host, tls=True, sni=sni, fresh=True)
        (only,) = found.counts
        return only

    assert secure("secure.test", "secure.test") == "200 v1"
    assert secure("other.test", "secure.test") == "421"
    assert secure("nobody.test", "secure.test") == "404"
    assert secure("other.test", "other.test") == "404"
    assert not secure("secure.test", "nobody.test").startswith(("2", "4"))


def test_a_grant_that_goes_takes_the_certificate_along(mesh: LocalMesh) -> None:
    def outcome() -> str:
        found = mesh.outside.http(
            "127.0.0.1", mesh.gateway(443), "/", authority="secure.test", tls=True, sni="secure.test", fresh=True
        )
        (only,) = found.counts
        return only

    grant = next(text for text in GATEWAYS.split("---") if "kind: ReferenceGrant" in text)
    mesh.apply(grant.replace("kind: Secret", "kind: ConfigMap"), "grant.yaml")
    mesh.wait_for(lambda: not outcome().startswith("200"), "the listener ends with its grant")
    mesh.apply(grant, "grant.yaml")
    mesh.wait_for(lambda: outcome() == "200 v1", "the listener serves again")


def test_grpc_and_passthrough(mesh: LocalMesh) -> None:
    called = mesh.outside.ask("grpc", host="127.0.0.1", port=mesh.gateway(80), n=3)
    assert called["outcome"] == "ok", called
    passed = mesh.outside.stream("127.0.0.1", mesh.gateway(443), lines=1, tls=True, sni="web.pass.test", timeout=5)
    assert passed["outcome"] != "ok", "nothing terminates TLS behind it: what comes back is no TLS"
    log = mesh.logged_with("front", "outbound|443||tls.infra.svc.cluster.local", "infra")
    assert log["requested_server_name"] == "web.pass.test"
    lost = mesh.outside.stream("127.0.0.1", mesh.gateway(443), lines=1, tls=True, sni="more.pass.test", timeout=5)
    assert lost["outcome"] != "ok"


def test_producer_and_consumer(mesh: LocalMesh) -> None:
    own, other = mesh.client("neighbour"), mesh.client("stranger")
    known = own.http("web.shop", path="/anything")
    assert known.only("200 v1"), dict(known.counts)
    assert known.first["headers"]["x-route"] == "producer"
    for path, expected in (("/known/more", "200 v1"), ("/unknown", "404")):
        found = other.http("web.shop", path=path)
        assert found.only(expected), (path, dict(found.counts))
    assert other.http("web.shop", path="/known").first["headers"]["x-route"] == "consumer"
    beside = own.http("web.shop", 8080)
    assert beside.only("200 v1"), dict(beside.counts)
    assert "x-route" not in beside.first["headers"]


def test_a_route_is_for_a_destination(mesh: LocalMesh) -> None:
    """Whatever the Host header says."""
    found = mesh.client("neighbour").http("web.shop", authority="somebody.else.test")
    assert found.only("200 v1"), dict(found.counts)
    assert found.first["headers"]["x-route"] == "producer"
    pod = mesh.client("neighbour").http(mesh.address("web", "shop"), 8000)
    assert pod.only("200 v1"), dict(pod.counts)
    assert "x-route" not in pod.first["headers"]


def test_a_virtual_service_comes_first_and_goes(mesh: LocalMesh) -> None:
    asked = mesh.client("neighbour")
    mesh.apply(
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: more}}]}]
""",
        "virtual.yaml",
    )
    assert asked.until("200 v2", "web.shop").only("200 v2")
    mesh.delete("virtualservice", "web", "-n", "shop")
    assert asked.until("200 v1", "web.shop").first["headers"]["x-route"] == "producer"


def test_problems_are_told(mesh: LocalMesh) -> None:
    done = mesh.apply(
        """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost, namespace: shop}
spec:
  parentRefs: [{name: front, namespace: infra, sectionName: narrow}]
  rules:
  - backendRefs: [{name: nobody, port: 80}]
""",
        "lost.yaml",
        check=False,
    )
    said = done.stdout + done.stderr
    assert "TUL0642" in said, said
    assert "TUL0643" in said, said
    mesh.delete("httproute", "lost", "-n", "shop")
