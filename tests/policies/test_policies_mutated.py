"""Nonsense in policies: whatever a user writes there, Envoy takes what comes out of it."""

import random
import subprocess

import pytest
from test_policies_in_envoy import bootstrap, http_listener, listener, route

from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.policies.authorization import spec as authz
from tulle.policies.authorization.envoy import inbound_network_filters, on_inbound_route
from tulle.policies.fragments import RouteFragment
from tulle.policies.headers.envoy import on_route
from tulle.policies.headers.spec import Headers
from tulle.xds import api, schema
from tulle.xds.extract import envoy_binary

pytestmark = pytest.mark.envoy
KEY = ObjectKey("Kubernetes", "security.istio.io", "AuthorizationPolicy", "shop", "x")
ANSWER = api.DirectResponseAction(status=200)
PIECES = ("*", "a", "/", "{*}", "{**}", "{", "}", "%", "\n", "\0", "é", "😀", "\\", "(", "[", "]", ":", "80", "-", ".")
WHOLE = ("10.0.0.1", "10.0.0.0/24", "spiffe://a", "a/b", "GET", "/a/{*}", "8080", "::1", "*.x.example", " ", "")
KEYS = (
    "request.headers[x-a]",
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.auth.claims[x]",
    "nonsense",
)
FORMATS = ("%", "%%", "%REQ(", "a", ")%", ":5%", "%PROTOCOL%", "PROTOCOL", "(x)", "%START_TIME(%Y)%", "%CEL(1)%", " ")


def validated(tmp_path, listeners):
    command = [envoy_binary(), "--mode", "validate", "-c", str(bootstrap(tmp_path, listeners))]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def policy(chance):
    def text():
        return (
            chance.choice(WHOLE) if chance.random() < 0.4 else "".join(chance.choices(PIECES, k=chance.randint(0, 5)))
        )

    def values():
        return authz.Values(
            tuple(text() for _ in range(chance.choice((0, 0, 1, 3)))), (text(),) * chance.choice((0, 0, 1))
        )

    def some(make):
        return tuple(make() for _ in range(chance.randint(0, 2)))

    def rule(index):
        sources = some(lambda: authz.Source(*(values() for _ in range(6))))
        operations = some(lambda: authz.Operation(*(values() for _ in range(4))))
        conditions = some(lambda: authz.Condition(chance.choice(KEYS), values()))
        return authz.Rule(sources, operations, conditions, Origin(KEY, f"spec.rules[{index}]"))

    rules = tuple(rule(index) for index in range(chance.randint(0, 3)))
    return authz.Authorization(KEY, chance.choice(list(authz.Action)), rules, Origin(KEY))


@pytest.mark.parametrize("seed", range(3))
def test_authorization(tmp_path, seed):
    chance = random.Random(seed)
    policies = [policy(chance) for _ in range(300)]
    routes = [route(f"/{index}", on_inbound_route([one]), direct_response=ANSWER) for index, one in enumerate(policies)]
    made = [inbound_network_filters([one]) for one in policies[:50]]
    echo = api.Filter(name="echo", typed_config=schema.to_any(api.Echo()))
    filters = [[api.Filter(name=name, typed_config=schema.to_any(one)) for name, one in group] for group in made]
    tcp = [listener(f"tcp{index}", 11000 + index, [*group, echo]) for index, group in enumerate(filters)]
    assert sum(len(one.SerializeToString()) > 300 for one in routes) > 30  # rules came out of it
    ran = validated(tmp_path, [http_listener(9000, routes), *tcp])
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_header_values(tmp_path):
    chance = random.Random(0)

    def values():
        return tuple((f"x-{index}", "".join(chance.choices(FORMATS, k=chance.randint(0, 6)))) for index in range(3))

    made = [Headers(values(), values(), (), values(), values(), (), Origin(KEY)) for _ in range(500)]
    routes = [route(f"/{index}", on_route(one, str), direct_response=ANSWER) for index, one in enumerate(made)]
    ran = validated(tmp_path, [http_listener(9000, routes)])
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_envoy_would_have_refused_what_is_wrong(tmp_path):
    """The two tests above can fail: the same place with nonsense in it is refused."""
    wrong = api.StringMatcher(safe_regex=api.RegexMatcher(regex="("))
    rule = api.Policy(
        principals=[api.Principal(any=True)], permissions=[api.Permission(url_path=api.PathMatcher(path=wrong))]
    )
    config = api.RBACPerRoute(rbac=api.HttpRBAC(rules=api.RBAC(policies={"x": rule})))
    routes = [route("/", RouteFragment(filters={"tulle.rbac.deny": config}), direct_response=ANSWER)]
    assert validated(tmp_path, [http_listener(9000, routes)]).returncode == 1
