"""A discovery client of the tests: speaks both variants over any gRPC channel, shows what came, acknowledges when told."""

import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from tulle.xds import api, schema
from tulle.xds.names import TypeUrl
from tulle.xds.wire import DELTA, SERVICE, STATE_OF_THE_WORLD

PATIENCE = 10.0


class Ads:
    """One stream. `say` a request, `hear` a response; `quiet` is true when nothing comes for a while."""

    def __init__(self, channel: grpc.Channel, *, sotw: bool = False) -> None:
        self._channel = channel
        self._says: queue.Queue[bytes | None] = queue.Queue()
        self._response = api.DiscoveryResponse if sotw else api.DeltaDiscoveryResponse
        method = f"/{SERVICE}/{STATE_OF_THE_WORLD if sotw else DELTA}"
        self._call = channel.stream_stream(method)(iter(self._says.get, None))
        self._heard: queue.Queue[Any] = queue.Queue()
        import threading

        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._says.put(None)
        self._call.cancel()
        self._channel.close()
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        try:
            for body in self._call:
                self._heard.put(self._response.FromString(body))
        except grpc.RpcError as error:
            self._heard.put(error)
        else:
            self._heard.put(None)

    def say(self, url: TypeUrl, *, node: dict[str, Any] | None = None, **fields: Any) -> None:
        """A delta request."""
        made = api.DeltaDiscoveryRequest(type_url=url.value, node=self._node(node), **fields)
        self._says.put(schema.to_bytes(made))

    def say_sotw(self, url: TypeUrl, *, node: dict[str, Any] | None = None, **fields: Any) -> None:
        """A state-of-the-world request."""
        made = api.DiscoveryRequest(type_url=url.value, node=self._node(node), **fields)
        self._says.put(schema.to_bytes(made))

    def _node(self, node: dict[str, Any] | None) -> Any:
        if node is None:
            return None
        made = api.Node(id=node.get("id", ""), cluster=node.get("cluster", ""))
        if "metadata" in node:
            made.metadata.CopyFrom(schema.struct(node["metadata"]))
        return made

    def ack(self, response: Any) -> None:
        self.say(TypeUrl(response.type_url), response_nonce=response.nonce)

    def hear(self, url: TypeUrl | None = None) -> Any:
        """The next response, which must be of that type; the ending is raised."""
        found = self._heard.get(timeout=PATIENCE)
        if isinstance(found, Exception):
            raise found
        assert found is not None, "the stream has ended"
        assert url is None or found.type_url == url.value, (url, found.type_url)
        return found

    def is_quiet(self, seconds: float = 0.3) -> bool:
        try:
            found = self._heard.get(timeout=seconds)
        except queue.Empty:
            return True
        self._heard.put(found)
        return False

    def ended(self) -> grpc.RpcError:
        """Wait for the server to end the stream; how it did."""
        while True:
            found = self._heard.get(timeout=PATIENCE)
            if isinstance(found, grpc.RpcError):
                return found
            assert found is not None, "ended without an error"

    def everything(self, node: dict[str, Any] | None = None) -> dict[TypeUrl, dict[str, str]]:
        """Subscribe to clusters and listeners, acknowledge; names and versions by type."""
        self.say(TypeUrl.CDS, node=node)
        clusters = self.hear(TypeUrl.CDS)
        self.ack(clusters)
        self.say(TypeUrl.LDS)
        listeners = self.hear(TypeUrl.LDS)
        self.ack(listeners)
        return {TypeUrl.CDS: versions(clusters), TypeUrl.LDS: versions(listeners)}


def versions(response: Any) -> dict[str, str]:
    return {resource.name: resource.version for resource in response.resources}


def unix(path: object) -> grpc.Channel:
    return grpc.insecure_channel(f"unix:{path}", options=(("grpc.max_receive_message_length", -1),))


def names(resources: Any) -> Iterator[str]:
    for resource in resources:
        yield resource.name
