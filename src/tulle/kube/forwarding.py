"""A port of a pod as a Unix socket here: the API's port-forward over a WebSocket, for tools on a user's machine.

Adapter. Knows bytes only. Source: Kubernetes, pods/portforward, subprotocol v4.channel.k8s.io: each message begins with a channel (0 data,
1 error), and the first message of each channel tells the port.
"""

import asyncio
import contextlib
from pathlib import Path

from httpx2.websockets import AsyncWebSocketSession, HTTPXWSException, WebSocketDisconnect

from tulle.kube.access import Access
from tulle.kube.errors import KubeError, PortSilent, Unreachable

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_PIECE = 64 * 1024
_PORT_BYTES = 2


class Forward:
    """Listens on a Unix socket of ours; each connection is one to a port of a pod."""

    def __init__(self, access: Access, namespace: str, pod: str, port: int) -> None:
        self._access = access
        self._place = (namespace, pod, port)
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
        self._query = {"ports": str(port)}
        self._server: asyncio.Server | None = None
        self.failure: KubeError | None = None
        """Why the last connection came to nothing."""

    async def open(self, socket: Path) -> None:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_unix_server(self._serve, str(socket))

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._access.websocket(self._path, self._query, _PROTOCOL) as socket:
                sending = asyncio.ensure_future(_inwards(reader, socket))
                try:
                    await self._outwards(socket, writer)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
        except KubeError as error:
            self.failure = error
        except (HTTPXWSException, OSError) as error:
            self.failure = Unreachable(self._access.server, str(error) or type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _outwards(self, socket: AsyncWebSocketSession, writer: asyncio.StreamWriter) -> None:
        begun: set[int] = set()
        while True:
            try:
                message = await socket.receive_bytes()
            except WebSocketDisconnect:
                return
            channel, content = message[0], message[1:]
            if channel not in begun:
                begun.add(channel)
                content = content[_PORT_BYTES:]
            if channel == _ERROR and content:
                raise PortSilent(*self._place, _reason(content.decode("utf-8", "replace")))
            if channel == _DATA and content:
                writer.write(content)
                await writer.drain()


def _reason(said: str) -> str:
    """What a runtime says of a connection that came to nothing, without the pod's id and its stack of wrappings."""
    words = said.strip()
    return "connection refused" if words.endswith("connection refused") else words[:400]


async def _inwards(reader: asyncio.StreamReader, socket: AsyncWebSocketSession) -> None:
    while piece := await reader.read(_PIECE):
        await socket.send_bytes(bytes((_DATA,)) + piece)
