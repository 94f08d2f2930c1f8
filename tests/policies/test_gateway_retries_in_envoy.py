"""What an HTTPRoute's `retry` repeats besides its codes, in a real Envoy: the suite has no test of that (GEP-1731)."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_policies_in_envoy import ask, bootstrap, cluster, free_port, http_listener, route, running

from compile.world import CLUSTER, World
from tulle.dialects.gateway_api.route_sets import routed
from tulle.dialects.gateway_api.schema import GROUP
from tulle.model.keys import ObjectKey
from tulle.policies.retry.envoy import on_route
from tulle.policies.retry.spec import Retry
from tulle.xds import api

pytestmark = pytest.mark.envoy
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: infra}
spec:
  parentRefs: [{name: gw}]
  rules:
  - {backendRefs: [{name: one, port: 80}], timeouts: {request: 5s, backendRequest: 400ms}, retry: {attempts: 1, codes: [500]}}
  - {backendRefs: [{name: one, port: 80}], timeouts: {request: 5s, backendRequest: 400ms}, retry: {attempts: 0}}
"""


class Sluggish:
    """To the first request of each path it says nothing, or hangs up if the path ends so; the next it answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heard: Counter[str] = Counter()
        self.held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            path = connection.recv(4096).split(b" ")[1].decode()
            self.heard[path] += 1
            if self.heard[path] > 1:
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            elif not path.endswith("/hangs-up"):
                self.held.append(connection)
                continue
            connection.close()


@pytest.fixture
def sluggish() -> Iterator[Sluggish]:
    made = Sluggish()
    yield made
    made.listener.close()
    for one in made.held:
        one.close()


def test_what_was_not_answered_is_asked_again(tmp_path: Path, sluggish: Sluggish) -> None:
    rules = routed(World.of(ROUTE).db, ObjectKey(CLUSTER, GROUP, "HTTPRoute", "infra", "web")).http
    retries = [one for rule in rules for one in rule.rule.policies if isinstance(one, Retry)]
    port = free_port()
    backend = cluster("backend")
    place = api.Address(socket_address=api.SocketAddress(address="127.0.0.1", port_value=sluggish.port))
    backend.load_assignment.CopyFrom(
        api.ClusterLoadAssignment(
            cluster_name="backend",
            endpoints=[api.LocalityLbEndpoints(lb_endpoints=[api.LbEndpoint(endpoint=api.Endpoint(address=place))])],
        )
    )
    fragments = [on_route(one, lambda _target: "backend") for one in retries]
    routes = [
        route(path, fragment, route=api.RouteAction(cluster="backend", **fragment.action))
        for path, fragment in zip(("/again", "/once"), fragments, strict=True)
    ]
    with running(bootstrap(tmp_path, [http_listener(port, routes)], [backend]), port):
        assert [ask(port, f"/again/{how}", "GET")[0] for how in ("says-nothing", "hangs-up")] == [200, 200]
        assert ask(port, "/once/hangs-up", "GET")[0] == 503
    assert sluggish.heard == {"/again/says-nothing": 2, "/again/hangs-up": 2, "/once/hangs-up": 1}
