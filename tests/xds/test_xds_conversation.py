"""What playbooks cannot say: secrets leave no trace, nothing grows, work is shared, limits hold."""

import gc
import itertools
from collections.abc import Iterator
from types import ModuleType

import pytest
from xds_playbook import resource

from tulle.xds import conversation as conversation_module
from tulle.xds.conversation import Conversation
from tulle.xds.events import Action, Closed, DeltaRequest, Send, SnapshotChanged, SotwRequest
from tulle.xds.names import ResourceName, TypeUrl
from tulle.xds.resource import SecretRef
from tulle.xds.snapshot import Comparisons, Difference, Snapshot, difference

CDS, EDS, SDS = TypeUrl.CDS, TypeUrl.EDS, TypeUrl.SDS


def clusters(version: int, **contents: str) -> Snapshot:
    return Snapshot(version, {CDS: {ResourceName(n): resource(CDS, n, c) for n, c in contents.items()}})


def sends(actions: list[Action]) -> list[Send]:
    return [action for action in actions if isinstance(action, Send)]


def reachable(root: object) -> Iterator[object]:
    seen, waiting = {id(root)}, [root]
    while waiting:
        at = waiting.pop()
        yield at
        for child in gc.get_referents(at):
            if id(child) not in seen and not isinstance(child, type | ModuleType) and not callable(child):
                seen.add(id(child))
                waiting.append(child)


@pytest.mark.parametrize("request_type", [DeltaRequest, SotwRequest])
def test_key_bytes_stay_nowhere(request_type: type[DeltaRequest | SotwRequest]) -> None:
    secret = resource(SDS, "default", "1")
    reference = SecretRef(secret.name, secret.version)
    vault = {reference: secret.body}
    talk = Conversation(Snapshot(1, {SDS: {secret.name: reference}}), secrets=vault.get)
    names = (secret.name,)
    first = DeltaRequest(SDS, names) if request_type is DeltaRequest else SotwRequest(SDS, names)
    (send,) = sends(talk.receive(first))
    assert b"KEY-1" in send.body
    assert "KEY" not in repr(send)
    held = [value for value in reachable(talk) if isinstance(value, str | bytes)]
    assert reference.digest in held  # the walk does see the state
    assert not [value for value in held if (b"KEY" if isinstance(value, bytes) else "KEY") in value]  # type: ignore[operator]


def test_a_frozen_client_grows_nothing() -> None:
    talk = Conversation(clusters(1, a="1", b="1"))
    assert len(sends(talk.receive(DeltaRequest(CDS)))) == 1
    sizes = set()
    for version in range(2, 200):
        assert talk.receive(SnapshotChanged(clusters(version, a=str(version), **{f"n{version}": "1"}))) == []
        sizes.add(sum(1 for value in reachable(talk) if isinstance(value, str | bytes | dict | set | list)))
    assert max(sizes) <= min(sizes) + 2
    outstanding = next(iter(talk.waits_for))
    assert outstanding == CDS


def test_an_older_snapshot_changes_nothing() -> None:
    talk = Conversation(clusters(5, a="5"))
    (send,) = sends(talk.receive(DeltaRequest(CDS)))
    talk.receive(DeltaRequest(CDS, nonce=send.nonce))
    assert talk.receive(SnapshotChanged(clusters(4, a="4"))) == []
    assert talk.held[CDS] == {"a": clusters(5, a="5").shelf(CDS)[ResourceName("a")].version}


def test_streams_share_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    walked = []

    def counted(old: object, new: object) -> Difference:
        walked.append((id(old), id(new)))
        return difference(old, new)  # type: ignore[arg-type]

    monkeypatch.setattr("tulle.xds.snapshot.difference", counted)
    shared, first, second = Comparisons(), clusters(1, a="1", b="1"), clusters(2, a="2", b="1")
    for _ in range(50):
        talk = Conversation(first, comparisons=shared)
        (send,) = sends(talk.receive(DeltaRequest(CDS)))
        talk.receive(DeltaRequest(CDS, nonce=send.nonce))
        (send,) = sends(talk.receive(SnapshotChanged(second)))
        assert send.changed == ("a",)
        talk.receive(DeltaRequest(CDS, nonce=send.nonce))
    assert len(walked) == 2


def test_a_published_difference_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, first, second = Comparisons(), clusters(1, a="1", b="1"), clusters(2, a="2", b="2")
    shared.publish(first.shelf(CDS), second.shelf(CDS), Difference(frozenset({ResourceName("b")}), frozenset()))
    talk = Conversation(first, comparisons=shared)
    (send,) = sends(talk.receive(DeltaRequest(CDS)))
    talk.receive(DeltaRequest(CDS, nonce=send.nonce))
    assert sends(talk.receive(SnapshotChanged(second)))[0].changed == ("b",)  # it believed what was published


def test_comparisons_are_bounded() -> None:
    shared = Comparisons(capacity=4)
    shelves = [clusters(1, a=str(i)).shelf(CDS) for i in range(20)]
    for old, new in itertools.pairwise(shelves):
        shared.difference(old, new)
        shared.virtual_hosts(new, "r")
    assert len(shared._differences) == len(shared._routes) == 4


def test_equal_shelves_differ_in_nothing() -> None:
    shelf = clusters(1, a="1").shelf(CDS)
    assert difference(shelf, shelf) == difference(shelf, dict(shelf)) == (frozenset(), frozenset())


def test_limits_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_module, "MOST_NAMES", 10)
    talk = Conversation(Snapshot(1, {}))
    ended = talk.receive(DeltaRequest(EDS, tuple(ResourceName(f"n{i}") for i in range(11))))
    assert Closed(f"more than 10 names of {EDS}") in ended
    assert talk.receive(DeltaRequest(CDS)) == []
    talk = Conversation(Snapshot(1, {}))
    ended = [talk.receive(DeltaRequest(f"type{i}"))[-1:] for i in range(conversation_module.MOST_TYPES)]
    assert [Closed(f"more than {conversation_module.MOST_TYPES} types")] in ended


def test_a_single_type_stream_is_in_sync_by_itself() -> None:
    talk = Conversation(clusters(3, a="1"), expects=frozenset({CDS}))
    (send,) = sends(talk.receive(SotwRequest(CDS)))
    assert not talk.is_synced(3)
    talk.receive(SotwRequest(CDS, nonce=send.nonce))
    assert talk.is_synced(3)
    assert not talk.is_synced(4)
