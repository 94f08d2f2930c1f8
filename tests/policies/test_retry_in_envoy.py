"""The mesh's own retry in a real Envoy: what was lost on the way is sent again if it may be."""

import socket
import threading
from collections import Counter

import pytest
from test_policies_in_envoy import ask, bootstrap, cluster, free_port, http_listener, running

from tulle.compile.envoy.routes import routes
from tulle.model.intent import HttpMatch, MatchKind, StringMatch
from tulle.model.keys import ObjectKey
from tulle.model.objects import MeshSettings
from tulle.model.origin import Origin
from tulle.model.plan import Route, Send, WeightedTarget
from tulle.policies.retry.envoy import RETRY_ON
from tulle.policies.retry.spec import Retry
from tulle.xds import api

pytestmark = pytest.mark.envoy
ORIGIN = Origin(ObjectKey("Kubernetes", "", "Test", "shop", "x"))


class Forgetful:
    """Reads a request and hangs up on the first of each path; answers the next."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heard = Counter()
        self.retry_words = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    part = connection.recv(4096)
                    if not part:
                        break
                    head += part
                lines = head.decode().split("\r\n")
                self.heard[lines[0]] += 1
                self.retry_words |= {line for line in lines if line.lower().startswith("x-envoy-retry-on")}
                if self.heard[lines[0]] > 1:
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


@pytest.fixture
def forgetful():
    made = Forgetful()
    yield made
    made.listener.close()


def retried(path, method=None, *policies):
    """The messages of a declared route with these policies."""
    match = HttpMatch(StringMatch(MatchKind.PREFIX, path), method and StringMatch(MatchKind.EXACT, method))
    plan = Route("r", match, Send((WeightedTarget("backend", 1),)), None, policies, ORIGIN)
    return routes(plan, MeshSettings(), lambda _target: "backend")


def test_only_what_may_be_repeated_is_sent_again(tmp_path, forgetful):
    port = free_port()
    backend = cluster("backend")
    place = api.Address(socket_address=api.SocketAddress(address="127.0.0.1", port_value=forgetful.port))
    backend.load_assignment.CopyFrom(
        api.ClusterLoadAssignment(
            cluster_name="backend",
            endpoints=[api.LocalityLbEndpoints(lb_endpoints=[api.LbEndpoint(endpoint=api.Endpoint(address=place))])],
        )
    )
    by_user = Retry(2, None, RETRY_ON, ORIGIN)
    table = [*retried("/mesh"), *retried("/get", "GET"), *retried("/post", "POST"), *retried("/user", None, by_user)]
    assert [one.match.prefix for one in table] == ["/mesh", "/mesh", "/get", "/post", "/user"]
    with running(bootstrap(tmp_path, [http_listener(port, table)], [backend]), port):
        assert [ask(port, "/mesh", method)[0] for method in ("GET", "HEAD", "OPTIONS")] == [200, 200, 200]
        assert [ask(port, "/mesh", method)[0] for method in ("POST", "PUT", "PATCH")] == [503, 503, 503]
        assert ask(port, "/user", "GET")[0] == 503
        assert ask(port, "/get", "GET")[0] == 200
        assert ask(port, "/post", "POST")[0] == 503
    assert forgetful.heard["GET /mesh HTTP/1.1"] == 2
    assert forgetful.heard["POST /mesh HTTP/1.1"] == 1
    assert forgetful.heard["GET /user HTTP/1.1"] == 1
    assert not forgetful.retry_words
