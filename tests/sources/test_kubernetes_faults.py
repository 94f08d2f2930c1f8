"""A fault of our own in one kind neither ends its watch nor hides."""

import asyncio
from typing import Any

import pytest

from tulle.kube import reflector
from tulle.kube.discovery import Resource
from tulle.kube.reflector import Reflector, Selection
from tulle.sources.kubernetes import KubernetesSource, _Followed


class Breaks(Reflector):
    """Follows, but for its first turn."""

    def __init__(self) -> None:
        self.turns = 0
        self.is_following = asyncio.Event()

    async def run(self) -> None:
        self.turns += 1
        if self.turns == 1:
            raise ZeroDivisionError("the text of an object")
        self.is_following.set()
        await asyncio.Event().wait()


class Nowhere:
    server = "https://nowhere"


async def test_a_kind_that_we_failed_to_follow_is_followed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "AGAIN_S", 0.01)
    nowhere: Any = Nowhere()
    source = KubernetesSource(nowhere, [])
    followed = _Followed(("", "Pod"), Resource("", "v1", "pods", "Pod"), Selection())
    source._followed[followed.kind, followed.selection] = followed
    breaks = Breaks()
    task = source._kept(followed, breaks)
    async with asyncio.timeout(10):
        await breaks.is_following.wait()
    task.cancel()
    (reported,) = source.reported
    assert reported.problem.code == "TUL1005"
    assert "ZeroDivisionError" in reported.problem.text
    assert "the text" not in reported.problem.text
