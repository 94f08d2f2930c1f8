"""Doors (clusters that first requests wait for) come to whoever asks, always, and never before what they lead to."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from xds_playbook import resource

from tulle.xds import api
from tulle.xds.conversation import Conversation
from tulle.xds.events import DeltaRequest, Send, SnapshotChanged
from tulle.xds.names import ResourceName, TypeUrl
from tulle.xds.snapshot import Snapshot

CDS, EDS, LDS, RDS, VHDS = TypeUrl.CDS, TypeUrl.EDS, TypeUrl.LDS, TypeUrl.RDS, TypeUrl.VHDS
NAMES = "pqr"
steps = st.lists(
    st.tuples(st.sampled_from(["ask", "learn", "edit", "answer", "refuse"]), st.sampled_from(NAMES)), max_size=40
)


def snapshot(version: int, known: set[str], content: str) -> Snapshot:
    """A table of virtual hosts, each before a cluster of its own, and their doors."""
    contents = {
        CDS: {f"c-{name}": content for name in known} | {f"vip/{name}": "door" for name in known},
        EDS: {f"c-{name}": content for name in known},
        LDS: {"l": "1"},
        RDS: {"vip": "1"},
        VHDS: {"vip/_": "1"} | {f"vip/{name}": content for name in known},
    }
    shelves = {
        url: {ResourceName(name): resource(url, name, text) for name, text in found.items()}
        for url, found in contents.items()
    }
    return Snapshot(version, shelves)  # type: ignore[arg-type]


class Proxy:
    """Envoy with a table of virtual hosts; `held` by type."""

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self.inbox: deque[Send] = deque()
        self.held: dict[str, set[str]] = {url.value: set() for url in TypeUrl}
        self.waiting: set[str] = set()
        self.refused: set[str] = set()
        self.endpoints: set[str] = set()
        for url, names in ((CDS, ()), (LDS, ()), (RDS, ("vip",)), (VHDS, ())):
            self.say(DeltaRequest(url.value, names))  # type: ignore[arg-type]
        self.settle()

    def say(self, request: DeltaRequest) -> None:
        self.take(self.talk.receive(request))

    def take(self, actions: list[object]) -> None:
        self.inbox.extend(action for action in actions if isinstance(action, Send))

    def ask(self, name: str) -> None:
        door = f"vip/{name}"
        if door not in self.held[VHDS] and door not in self.held[CDS] | self.waiting:
            self.waiting.add(door)
            self.say(DeltaRequest(CDS.value, (ResourceName(door),)))

    def answer(self, *, refuses: bool = False) -> None:
        if not self.inbox:
            return
        send = self.inbox.popleft()
        held = self.held[send.type_url]
        response = api.DeltaDiscoveryResponse.FromString(send.body)
        names = {one.name for one in response.resources}
        refuses &= send.type_url == VHDS and bool(names)
        if not refuses:
            held.difference_update(response.removed_resources)
            held.update(names)
        for door in names if send.type_url == CDS else ():
            if door.startswith("vip/"):
                assert door in self.waiting, "nobody asked for it"
                assert door in self.held[VHDS] | self.refused, f"{door} opens upon nothing"
                self.waiting.discard(door)
        if refuses:
            self.refused |= names
            self.say(DeltaRequest(send.type_url, nonce=send.nonce, error=f"no {' '.join(sorted(names))}"))
            return
        self.say(DeltaRequest(send.type_url, nonce=send.nonce))
        if send.type_url == CDS:
            clusters = {name for name in held if name.startswith("c-")}
            fresh = tuple(sorted(clusters - self.endpoints))
            gone = tuple(sorted(self.endpoints - clusters))
            if fresh or gone:
                self.endpoints = clusters
                self.say(DeltaRequest(EDS.value, fresh, gone))  # type: ignore[arg-type]

    def settle(self) -> None:
        for _ in range(200):
            if not self.inbox:
                return
            self.answer()
        raise AssertionError("the conversation never ends")


@settings(max_examples=300, deadline=None)
@given(happenings=steps)
def test_every_door_opens_behind_its_virtual_host(happenings: list[tuple[str, str]]) -> None:
    known: set[str] = set()
    version, content = 1, "1"
    talk = Conversation(snapshot(version, known, content), expects=frozenset((CDS, LDS, RDS, VHDS)))
    proxy = Proxy(talk)
    for what, name in happenings:
        if what == "ask":
            proxy.ask(name)
        elif what in {"answer", "refuse"}:
            proxy.answer(refuses=what == "refuse")
        else:
            version, content = version + 1, "2" if content == "1" and what == "edit" else "1"
            known |= {name} if what == "learn" else set()
            proxy.take(talk.receive(SnapshotChanged(snapshot(version, known, content))))  # type: ignore[arg-type]
    asked = {door.removeprefix("vip/") for door in proxy.waiting}
    proxy.take(talk.receive(SnapshotChanged(snapshot(version + 1, known | asked, content))))  # type: ignore[arg-type]
    proxy.settle()
    assert not proxy.waiting, "a request waits for ever"
    assert talk.is_synced(version + 1)
