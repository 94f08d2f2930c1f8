"""Whatever the client refuses, the good resources arrive, the bad ones are known by name, and it comes to rest."""

from hypothesis import given, settings
from hypothesis import strategies as st
from xds_playbook import resource

from tulle.xds import api
from tulle.xds.conversation import Conversation
from tulle.xds.events import Action, DeltaRequest, Rejected, Send, SnapshotChanged, SotwRequest
from tulle.xds.names import ResourceName, TypeUrl, Version
from tulle.xds.snapshot import Snapshot

EDS = TypeUrl.EDS
NAMES = tuple(ResourceName(f"n{i}") for i in range(7))
shelves = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "2", "bad1", "bad2"]), max_size=7)
BAD = {resource(EDS, name, content).version for name in NAMES for content in ("bad1", "bad2")}


class Refuser:
    """Refuses every response with something bad in it as a whole, mentioning whom it likes."""

    def __init__(self, conversation: Conversation, mentions: str, *, is_delta: bool) -> None:
        self.talk, self.is_delta, self.mentions = conversation, is_delta, mentions
        self.held: dict[ResourceName, Version] = {}
        self.inbox: list[Send] = []
        self.rejected: dict[ResourceName, Version] = {}
        self.take(conversation.receive(DeltaRequest(EDS, NAMES) if is_delta else SotwRequest(EDS, NAMES)))

    def take(self, actions: list[Action]) -> None:
        self.inbox += [action for action in actions if isinstance(action, Send)]
        for action in actions:
            if isinstance(action, Rejected):
                assert set(action.versions.values()) <= BAD, "an innocent was blamed"
                self.rejected |= action.versions

    def answer(self, versions: dict[ResourceName, Version]) -> None:
        send = self.inbox.pop(0)
        carried = {name: versions[name] for name in send.changed}
        error = f"refused, see {self.mentions}" if set(carried.values()) & BAD else None
        if error is None:
            self.held |= carried
            for name in send.removed:
                self.held.pop(name, None)
        request = DeltaRequest(EDS, nonce=send.nonce, error=error) if self.is_delta else None
        self.take(self.talk.receive(request or SotwRequest(EDS, NAMES, send.nonce, error)))


def carried_versions(send: Send, *, is_delta: bool) -> dict[ResourceName, Version]:
    if is_delta:
        response = api.DeltaDiscoveryResponse.FromString(send.body)
        return {ResourceName(r.name): Version(r.version) for r in response.resources}
    from tulle.xds.resource import version_of

    whole = api.DiscoveryResponse.FromString(send.body)
    return {
        n: version_of(r.SerializeToString(deterministic=True))
        for n, r in zip(send.changed, whole.resources, strict=True)
    }


@settings(max_examples=300, deadline=None)
@given(
    history=st.lists(shelves, min_size=1, max_size=4),
    pauses=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    mentions=st.sampled_from(["nobody", "n0", "n1 and n2"]),
    is_delta=st.booleans(),
)
def test_the_good_arrive_and_the_bad_are_known(
    history: list[dict[ResourceName, str]], pauses: list[int], mentions: str, is_delta: bool
) -> None:
    shots = [
        Snapshot(i, {EDS: {n: resource(EDS, n, c) for n, c in shelf.items()}})
        for i, shelf in enumerate(history, start=1)
    ]
    conversation = Conversation(shots[0], expects=frozenset({EDS}))
    client = Refuser(conversation, mentions, is_delta=is_delta)
    for shot, pause in zip(shots[1:], pauses, strict=False):
        for _ in range(pause):
            if client.inbox:
                client.answer(carried_versions(client.inbox[0], is_delta=is_delta))
        client.take(conversation.receive(SnapshotChanged(shot)))
    for _ in range(80):
        if client.inbox:
            client.answer(carried_versions(client.inbox[0], is_delta=is_delta))
    assert not client.inbox, "the same bytes are pushed for ever"
    newest = shots[-1].shelf(EDS)
    for name, entry in newest.items():
        if entry.version in BAD:
            assert client.rejected[name] == entry.version
            assert conversation.rejected[EDS][name] == entry.version
        else:
            assert client.held[name] == entry.version
    assert conversation.is_synced(shots[-1].version)
    if is_delta:
        assert dict(conversation.held[EDS]) == client.held
