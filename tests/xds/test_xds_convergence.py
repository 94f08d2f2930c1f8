"""Whatever happens and in whatever order the client answers, it ends up with exactly the newest snapshot.

The model client applies responses as Envoy does; the conversation must converge, never have two responses of a type
outstanding, and never leave a listener pointing at a cluster the client lacks.
"""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from xds_playbook import resource

from tulle.xds import api
from tulle.xds.conversation import Conversation
from tulle.xds.events import Action, DeltaRequest, Send, SnapshotChanged, SotwRequest
from tulle.xds.names import TypeUrl
from tulle.xds.resource import version_of
from tulle.xds.snapshot import Comparisons, Snapshot

NAMES = "abcd"
# Which clusters exist (with a content), and to which of them the one listener points.
worlds = st.tuples(st.dictionaries(st.sampled_from(NAMES), st.sampled_from("12"), min_size=1), st.sampled_from("12"))


def snapshot(version: int, world: tuple[dict[str, str], str]) -> Snapshot:
    clusters, content = world
    pointed = ",".join(sorted(clusters)) + ":" + content
    shelves = {
        TypeUrl.CDS: {n: resource(TypeUrl.CDS, n, c) for n, c in clusters.items()},
        TypeUrl.EDS: {n: resource(TypeUrl.EDS, n, content) for n in clusters},
        TypeUrl.LDS: {"l": resource(TypeUrl.LDS, "l", pointed)},
    }
    return Snapshot(version, shelves)  # type: ignore[arg-type]


class ModelClient:
    """Envoy, as far as this conversation can tell."""

    def __init__(self, conversation: Conversation, *, is_delta: bool) -> None:
        self.talk, self.is_delta = conversation, is_delta
        self.inbox: deque[Send] = deque()
        self.held: dict[str, dict[str, str]] = {t: {} for t in (TypeUrl.CDS, TypeUrl.EDS, TypeUrl.LDS)}
        self.endpoints: set[str] = set()
        for type_url in (TypeUrl.CDS, TypeUrl.LDS):
            self.say(DeltaRequest(type_url.value) if is_delta else SotwRequest(type_url.value))

    def say(self, request: DeltaRequest | SotwRequest) -> None:
        self.take(self.talk.receive(request))

    def take(self, actions: list[Action]) -> None:
        self.inbox.extend(action for action in actions if isinstance(action, Send))
        types = [send.type_url for send in self.inbox]
        assert len(types) == len(set(types)), "two responses of one type are outstanding"

    def answer(self) -> None:
        send = self.inbox.popleft()
        held = self.held[send.type_url]
        if self.is_delta:
            response = api.DeltaDiscoveryResponse.FromString(send.body)
            for removed in response.removed_resources:
                held.pop(removed, None)
            held |= {r.name: r.version for r in response.resources}
        else:
            if send.type_url != TypeUrl.EDS:
                held.clear()
            whole = api.DiscoveryResponse.FromString(send.body)
            bodies = [r.SerializeToString(deterministic=True) for r in whole.resources]
            held |= {n: version_of(b) for n, b in zip(send.changed, bodies, strict=True)}
        if send.type_url == TypeUrl.EDS:  # Envoy drops what it does not subscribe to
            self.held[TypeUrl.EDS] = {n: v for n, v in held.items() if n in self.endpoints}
        self.check()
        self.subscribe(send)

    def subscribe(self, send: Send) -> None:
        clusters = set(self.held[TypeUrl.CDS])
        new, gone = clusters - self.endpoints, self.endpoints - clusters
        acknowledgement = (send.type_url, send.nonce)
        if self.is_delta:
            self.say(DeltaRequest(acknowledgement[0], nonce=acknowledgement[1]))
            if new or gone:
                self.endpoints = clusters
                names = [tuple(sorted(x)) for x in (new, gone)]
                self.say(DeltaRequest(TypeUrl.EDS.value, names[0], names[1]))  # type: ignore[arg-type]
        else:
            self.endpoints = clusters
            for type_url in dict.fromkeys((send.type_url, TypeUrl.EDS.value)):
                names = tuple(sorted(clusters)) if type_url == TypeUrl.EDS else ()
                nonce = send.nonce if type_url == send.type_url else self.last_endpoints
                self.say(SotwRequest(type_url, names, nonce))  # type: ignore[arg-type]
        if send.type_url == TypeUrl.EDS:
            self.last_endpoints = send.nonce
        for name in gone:
            self.held[TypeUrl.EDS].pop(name, None)

    last_endpoints = ""

    def check(self) -> None:
        for listener in self.held[TypeUrl.LDS].values():
            pointed = POINTED[listener]
            assert pointed <= set(self.held[TypeUrl.CDS]), "a listener points at a cluster that is gone"


POINTED: dict[str, set[str]] = {}


@settings(max_examples=200, deadline=None)
@given(
    history=st.lists(worlds, min_size=1, max_size=8),
    answers=st.lists(st.integers(0, 3), max_size=8),
    is_delta=st.booleans(),
)
def test_every_client_converges(history: list[tuple[dict[str, str], str]], answers: list[int], is_delta: bool) -> None:
    snapshots = [snapshot(number, world) for number, world in enumerate(history, start=1)]
    for shot, (clusters, _) in zip(snapshots, history, strict=True):
        POINTED[shot.shelf(TypeUrl.LDS)["l"].version] = set(clusters)  # type: ignore[index]
    conversation = Conversation(snapshots[0], comparisons=Comparisons(capacity=2))
    client = ModelClient(conversation, is_delta=is_delta)
    for shot, steps in zip(snapshots[1:], [*answers, *[0] * 8], strict=False):
        client.take(conversation.receive(SnapshotChanged(shot)))
        for _ in range(min(steps, len(client.inbox))):
            client.answer()
    for _ in range(100):
        if not client.inbox:
            break
        client.answer()
    assert not client.inbox, "the conversation never ends"
    newest = snapshots[-1]
    for type_url in (TypeUrl.CDS, TypeUrl.LDS, TypeUrl.EDS):
        wanted = {str(n): str(e.version) for n, e in newest.shelf(type_url).items()}
        assert client.held[type_url] == wanted
        assert dict(conversation.held[type_url]) == wanted
    assert conversation.is_synced(newest.version)
