"""Reviews while the API is silent: a server that takes connections and answers for its keys alone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from test_kube_tokens import BOUND, CLAIMS, ISSUER, jwks, signed

from tulle.kube import reviewing
from tulle.kube.access import Access
from tulle.kube.reviewing import Reviewer, TokenRefused

PROXIES = 100


@asynccontextmanager
async def silent_api() -> AsyncIterator[tuple[Access, list[str]]]:
    """Its address as an access, and the paths it was asked for."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1].decode()
                asked.append(path)
                if "tokenreviews" in path:
                    await reader.read()  # until the caller gives up
                    break
                body = jwks() if "jwks" in path else json.dumps({"issuer": ISSUER}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        except asyncio.IncompleteReadError:
            pass  # it went away between two requests
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    access = Access.from_server(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        async with access:
            yield access, asked
    finally:
        server.close()


def token(number: int, pod: str = "") -> str:
    """Of one of many pods."""
    bound = {**BOUND, "pod": {"name": f"cart-{number}", "uid": pod or f"p-{number}"}}
    return signed({**CLAIMS, "exp": time.time() + 600, "kubernetes.io": bound})


async def test_many_proxies_wait_for_a_silent_api_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewing, "ASK_S", 0.5)
    async with silent_api() as (access, asked):
        reviewer = Reviewer(access, "tulle", lambda _namespace, _pod, uid: uid.startswith("p-"))
        await reviewer.read_keys()
        began = time.monotonic()
        found = await asyncio.gather(*(reviewer.review(token(number)) for number in range(PROXIES)))
        assert time.monotonic() - began < 3 * 0.5 + 1.0, "in turns of sixteen it would be seven waits"
        assert {one.uid for one in found} == {f"p-{number}" for number in range(PROXIES)}
        assert sum("tokenreviews" in path for path in asked) <= reviewing.ASKING
        with pytest.raises(TokenRefused, match="not there"):
            await reviewer.review(token(1, "dead"))
        with pytest.raises(TokenRefused):
            await reviewer.review(token(1)[:-8] + "AAAAAAAA")


async def test_it_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewing, "ASK_S", 0.1)
    monkeypatch.setattr(reviewing, "AWAY_S", 0.2)
    async with silent_api() as (access, asked):
        reviewer = Reviewer(access, "tulle", lambda *_: True)
        await reviewer.read_keys()
        for _ in range(2):
            await reviewer.review(token(1))
            await asyncio.sleep(0.3)
        assert sum("tokenreviews" in path for path in asked) == 2
