"""The conversation against the real Envoy: what the playbooks assume is what the binary does."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from tulle.xds import api, extract, schema
from tulle.xds.conversation import Conversation
from tulle.xds.events import Acked, Action, Closed, Doubted, Rejected, Send, SnapshotChanged
from tulle.xds.names import TypeUrl
from tulle.xds.resource import Resource
from tulle.xds.snapshot import Snapshot
from tulle.xds.wire import DELTA, SERVICE, STATE_OF_THE_WORLD, read_delta, read_sotw

pytestmark = pytest.mark.envoy
ADS = {"ads": {}, "resource_api_version": "V3"}


def cluster(name: str, timeout_s: int = 1) -> Resource:
    made = api.Cluster(
        name=name, type="EDS", eds_cluster_config={"eds_config": ADS}, connect_timeout={"seconds": timeout_s}
    )
    return Resource.of(made, name)


def bad_cluster(name: str) -> Resource:
    return Resource.of(api.Cluster(name=name, type="STATIC", load_assignment={"cluster_name": ""}, lb_policy="MAGLEV",
                                   maglev_lb_config={"table_size": {"value": 4}}), name)  # fmt: skip


def endpoints(name: str, port: int) -> Resource:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    lb_endpoint = api.LbEndpoint(endpoint={"address": address})
    return Resource.of(api.ClusterLoadAssignment(cluster_name=name, endpoints=[{"lb_endpoints": [lb_endpoint]}]), name)


def listener(directory: Path, name: str, route: str, *, stat: str = "s", filters: int = 1) -> Resource:
    hcm = api.HttpConnectionManager(
        stat_prefix=stat,
        rds={"route_config_name": route, "config_source": ADS},
        http_filters=[api.HttpFilter(name="router", typed_config=schema.to_any(api.Router()))] * filters,
    )
    chain = api.FilterChain(filters=[{"name": "hcm", "typed_config": schema.to_any(hcm)}])
    made = api.Listener(name=name, address={"pipe": {"path": f"{directory}/{name}.sock"}}, filter_chains=[chain])
    return Resource.of(made, name)


def virtual_host(name: str, domain: str, target: str) -> api.VirtualHost:
    route = api.Route(match={"prefix": "/"}, route={"cluster": target})
    return api.VirtualHost(name=name, domains=[domain], routes=[route])


def snapshot(version: int, *resources: Resource) -> Snapshot:
    shelves: dict[TypeUrl, dict[str, Resource]] = {}
    for resource in resources:
        shelves.setdefault(resource.type_url, {})[resource.name] = resource
    return Snapshot(version, shelves)  # type: ignore[arg-type]


class Server:
    """The smallest adapter: one stream at a time, on a Unix socket."""

    def __init__(self, start: Snapshot) -> None:
        self.snapshot = start
        self.actions: list[Action] = []
        self.conversation: Conversation | None = None
        self._moved = asyncio.Event()
        self.end = asyncio.Event()

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._moved.set()

    def handler(
        self, *, is_delta: bool
    ) -> Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext[bytes, bytes]], Awaitable[None]]:
        async def stream(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            conversation = self.conversation = Conversation(self.snapshot)
            reading = asyncio.ensure_future(context.read())
            while True:
                moved = asyncio.ensure_future(self._moved.wait())
                ended = asyncio.ensure_future(self.end.wait())
                await asyncio.wait({reading, moved, ended}, return_when=asyncio.FIRST_COMPLETED)
                moved.cancel()
                ended.cancel()
                if self.end.is_set():
                    reading.cancel()
                    self.end.clear()
                    return
                actions: list[Action] = []
                if self._moved.is_set():
                    self._moved.clear()
                    actions += conversation.receive(SnapshotChanged(self.snapshot))
                if reading.done():
                    received = reading.result()
                    if received is grpc.aio.EOF:
                        return
                    request, _ = read_delta(received) if is_delta else read_sotw(received)
                    actions += conversation.receive(request)
                    reading = asyncio.ensure_future(context.read())
                self.actions += actions
                for action in actions:
                    assert not isinstance(action, Closed)
                    if isinstance(action, Send):
                        await context.write(action.body)

        return stream

    async def synced(self, version: int, within_s: float = 8) -> float:
        """Seconds until the client has everything of `version`."""
        start = time.monotonic()
        while self.conversation is None or not self.conversation.is_synced(version):
            assert time.monotonic() - start < within_s, f"not synced: {self.summary()}"
            await asyncio.sleep(0.01)
        return time.monotonic() - start

    async def until(self, condition: Callable[[], bool], within_s: float = 8) -> None:
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < within_s, self.summary()
            await asyncio.sleep(0.01)

    def summary(self) -> list[str]:
        return [str(action)[:300] for action in self.actions[-12:]]

    def of(self, kind: type[Action]) -> list[Action]:
        return [action for action in self.actions if isinstance(action, kind)]


@contextlib.asynccontextmanager
async def mesh(directory: Path, start: Snapshot, *, is_delta: bool = True) -> AsyncIterator[Server]:
    serving = Server(start)
    server = grpc.aio.server()
    method = DELTA if is_delta else STATE_OF_THE_WORLD
    handler = grpc.stream_stream_rpc_method_handler(serving.handler(is_delta=is_delta))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {method: handler}),))
    server.add_insecure_port(f"unix:{directory}/xds.sock")
    await server.start()
    bootstrap = {
        "node": {"id": "n", "cluster": "c"},
        "admin": {"address": {"pipe": {"path": f"{directory}/admin.sock"}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if is_delta else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": ADS,
            "lds_config": ADS,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": schema.TYPE_URL_PREFIX + api.MESSAGES["HttpProtocolOptions"],
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": f"{directory}/xds.sock"}}}}]}
                        ],
                    },
                }
            ]
        },
    }
    log = (directory / "envoy.log").open("w")
    envoy = await asyncio.create_subprocess_exec(
        extract.envoy_binary(), "--config-yaml", json.dumps(bootstrap), "--disable-hot-restart", "--concurrency", "1",
        "-l", "info", stdout=log, stderr=log,
    )  # fmt: skip
    try:
        yield serving
    finally:
        envoy.terminate()
        await envoy.wait()
        log.close()
        await server.stop(None)


def plain(directory: Path, version: int, *, target: str, timeout_s: int = 1, domain: str = "*") -> Snapshot:
    routes = api.RouteConfiguration(name="r", virtual_hosts=[virtual_host("v", domain, target)])
    return snapshot(
        version,
        cluster(target, timeout_s),
        endpoints(target, 9),
        listener(directory, "l", "r"),
        Resource.of(routes, "r"),
    )


@pytest.mark.parametrize("is_delta", [True, False], ids=["delta", "sotw"])
async def test_start_warm_and_swap(tmp_path: Path, is_delta: bool) -> None:
    async with mesh(tmp_path, plain(tmp_path, 1, target="a"), is_delta=is_delta) as server:
        assert await server.synced(1) < 5
        await server.until((tmp_path / "l.sock").exists)  # the listener is warm: its routes have come
        # a changed cluster becomes warm because its endpoints are repeated (without that: 15 s)
        server.publish(plain(tmp_path, 2, target="a", timeout_s=2))
        assert await server.synced(2) < 3
        # everything is replaced: the new cluster first, the old one last
        server.actions.clear()
        server.publish(plain(tmp_path, 3, target="b"))
        assert await server.synced(3) < 3
        order = [(TypeUrl(s.type_url).name, s.changed, s.removed) for s in server.of(Send)]
        if is_delta:
            assert order[0] == ("CDS", ("b",), ())
            assert order[1:3] == [("EDS", ("b",), ()), ("RDS", ("r",), ())]
            assert next(step for step in order[3:] if step[0] == "CDS") == ("CDS", (), ("a",))
        else:
            steps = [step[:2] for step in order]
            assert steps[0] == ("CDS", ("a", "b"))
            assert steps.index(("EDS", ("b",))) < steps.index(("RDS", ("r",))) < steps.index(("CDS", ("b",)))
        assert not server.of(Rejected)


async def test_clusters_are_acknowledged_when_warm(tmp_path: Path) -> None:
    """The fact behind "EDS does not wait for CDS": Envoy withholds the acknowledgement of CDS until EDS came."""
    async with mesh(tmp_path, plain(tmp_path, 1, target="a")) as server:
        await server.synced(1)
        server.actions.clear()
        server.publish(plain(tmp_path, 2, target="b"))
        await server.synced(2)
        kinds = [(type(a).__name__, TypeUrl(a.type_url).name) for a in server.actions if isinstance(a, Send | Acked)]
        assert kinds.index(("Send", "EDS")) < kinds.index(("Acked", "CDS"))


async def test_reconnect_resends_nothing(tmp_path: Path) -> None:
    async with mesh(tmp_path, plain(tmp_path, 1, target="a")) as server:
        await server.synced(1)
        await server.until((tmp_path / "l.sock").exists)
        first = server.conversation
        server.actions.clear()
        server.end.set()
        await server.until(lambda: server.conversation is not first)
        await server.synced(1)
        assert [send for send in server.of(Send) if send.changed or send.removed] == []
        assert server.conversation is not None
        assert set(server.conversation.held[TypeUrl.CDS]) == {"a"}


async def test_refusals_are_attributed(tmp_path: Path) -> None:
    first = plain(tmp_path, 1, target="a")
    async with mesh(tmp_path, first) as server:
        await server.synced(1)
        good = [entry for shelf in first.types.values() for entry in shelf.values() if isinstance(entry, Resource)]
        server.publish(
            snapshot(
                2,
                *good,
                bad_cluster("bad"),
                cluster("c"),
                endpoints("c", 9),
                listener(tmp_path, "bad-l", "r", filters=2),
            )
        )
        await server.synced(2)
        guilty = {name for rejection in server.of(Rejected) for name in rejection.versions}
        assert guilty == {"bad", "bad-l"}, "\n".join(server.summary())
        assert server.conversation is not None
        assert set(server.conversation.held[TypeUrl.CDS]) == {"a", "c"}
        assert set(server.conversation.held[TypeUrl.LDS]) == {"l"}


async def test_virtual_hosts_follow_and_the_guilty_one_is_found(tmp_path: Path) -> None:
    routes = api.RouteConfiguration(name="r", vhds={"config_source": ADS})
    outside = [cluster("a"), endpoints("a", 9), listener(tmp_path, "l", "r"), Resource.of(routes, "r")]
    hosts = [Resource.of(virtual_host(f"r/{h}", f"{h}.test", "a"), f"r/{h}") for h in "abcd"]
    async with mesh(tmp_path, snapshot(1, *outside, *hosts)) as server:
        await server.synced(1)
        await server.until((tmp_path / "l.sock").exists)
        twin = Resource.of(virtual_host("r/twin", "a.test", "a"), "r/twin")
        new = Resource.of(virtual_host("r/new", "new.test", "a"), "r/new")
        server.publish(snapshot(2, *outside, *hosts, twin, new))
        await server.synced(2)
        assert {n for rejection in server.of(Rejected) for n in rejection.versions} == {"r/twin"}
        assert server.of(Doubted)
        assert server.conversation is not None
        assert set(server.conversation.held[TypeUrl.VHDS]) == {"r/a", "r/b", "r/c", "r/d", "r/new"}
        # a second listener with its own virtual hosts is warm at once: they follow the RDS subscription
        other = api.RouteConfiguration(name="q", vhds={"config_source": ADS})
        more = [
            listener(tmp_path, "m", "q"),
            Resource.of(other, "q"),
            Resource.of(virtual_host("q/x", "x.test", "a"), "q/x"),
        ]
        server.publish(snapshot(3, *outside, *hosts, new, *more))
        await server.until((tmp_path / "m.sock").exists, within_s=4)
