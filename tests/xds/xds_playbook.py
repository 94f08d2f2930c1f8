"""Runs a playbook: a conversation written down line by line, checked against the real bytes of each answer.

    delta | sotw                          the variant (first line)
    snapshot 2: CDS a=1 b=2 | EDS a=1     the view's resources (`name=content`); before the first `>>`: where it starts
    >> CDS +a -b init a=1 ack             a request: subscribe, unsubscribe, initial versions, ack / nack "text"
    >> EDS a b ack                        (sotw) the full list of names
    >> CDS stale-ack                      acknowledges the response before the last one
    << CDS a=2 b=1 -c                     exactly this answer, in this order; `<< CDS` is an empty one
    !! rejected CDS a=2                   other actions: rejected, doubted, asked, closed
    ?? synced 2                           ?? held CDS a=1 b=1
    overdue                               the adapter's clock has run out

Every `<<` and `!!` that follows an event must happen, and nothing else may.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf.message import Message

from tulle.xds import api, schema
from tulle.xds.conversation import Conversation
from tulle.xds.events import (
    Acked,
    Action,
    Asked,
    Closed,
    Doubted,
    Overdue,
    Rejected,
    Send,
    SnapshotChanged,
)
from tulle.xds.names import Nonce, TypeUrl, Version
from tulle.xds.resource import Entry, Resource, SecretRef, version_of
from tulle.xds.snapshot import Snapshot
from tulle.xds.wire import read_delta, read_sotw


def message(type_url: TypeUrl, name: str, content: str) -> Message:
    match type_url:
        case TypeUrl.CDS:
            return api.Cluster(name=name, alt_stat_name=content, type="EDS")
        case TypeUrl.EDS:
            return api.ClusterLoadAssignment(cluster_name=name, endpoints=[{"locality": {"zone": content}}])
        case TypeUrl.LDS:
            return api.Listener(name=name, stat_prefix=content)
        case TypeUrl.RDS:
            return api.RouteConfiguration(name=name, internal_only_headers=[content])
        case TypeUrl.VHDS:
            return api.VirtualHost(name=name, domains=[content])
        case TypeUrl.SDS:
            return api.Secret(name=name, tls_certificate={"private_key": {"inline_string": f"KEY-{content}"}})


def resource(type_url: TypeUrl, name: str, content: str) -> Resource:
    made = Resource.of(message(type_url, name, content), name, is_door=content == "door")
    return replace(made, is_empty=content == "nothing")


def entry(type_url: TypeUrl, name: str, content: str) -> Entry:
    made = resource(type_url, name, content)
    return SecretRef(made.name, made.version) if type_url is TypeUrl.SDS else made


@dataclass
class Player:
    """The client's side of one playbook."""

    is_delta: bool = True
    contents: dict[tuple[str, str], str] = field(default_factory=dict)  # (type, version) -> content
    secrets: dict[str, bytes] = field(default_factory=dict)
    nonces: dict[str, list[Nonce]] = field(default_factory=dict)
    conversation: Conversation | None = None
    start: Snapshot = field(default_factory=lambda: Snapshot(0, {}))
    happened: list[str] = field(default_factory=list)
    acked: list[Acked] = field(default_factory=list)

    def version(self, type_url: TypeUrl, name: str, content: str) -> Version:
        made = resource(type_url, name, content)
        self.contents[type_url, made.version] = content
        if type_url is TypeUrl.SDS:
            self.secrets[made.version] = made.body
        return made.version

    def snapshot(self, line: str) -> Snapshot:
        head, _, rest = line.removeprefix("snapshot").partition(":")
        previous = self.start
        types = {}
        for part in filter(None, (p.split() for p in rest.split("|"))):
            type_url = TypeUrl[part[0]]
            pairs = [p.split("=") for p in part[1:]]
            for name, content in pairs:
                self.version(type_url, name, content)
            shelf = {n: entry(type_url, n, c) for n, c in pairs}
            old = previous.shelf(type_url)
            types[type_url] = old if dict(old) == shelf else shelf  # what did not change is the same object
        return Snapshot(int(head), types)

    def play(self, line: str) -> None:
        if line in {"delta", "sotw"}:
            self.is_delta = line == "delta"
        elif line.startswith("snapshot"):
            snapshot = self.snapshot(line)
            self.start = snapshot
            if self.conversation is not None:
                self.expect_nothing(line)
                self.take(self.conversation.receive(SnapshotChanged(snapshot)))
        elif line == "overdue":
            self.take(self.talk().receive(Overdue()))
        elif line.startswith(">>"):
            self.expect_nothing(line)
            self.request(shlex.split(line[2:]))
        elif line.startswith(("<<", "!!")):
            assert self.happened, f"expected `{line}`, but nothing more happened"
            happened = self.happened.pop(0)
            assert _normal(happened) == _normal(line), f"but this happened: {happened}"
        elif line.startswith("??"):
            self.question(line[2:].split())
        else:
            raise ValueError(f"not a playbook line: {line}")

    def talk(self) -> Conversation:
        if self.conversation is None:
            self.conversation = Conversation(self.start, secrets=lambda ref: self.secrets.get(ref.version))
        return self.conversation

    def request(self, words: list[str]) -> None:
        type_url = TypeUrl[words[0]].value if words[0] in TypeUrl.__members__ else words[0]
        fields: dict[str, object] = {"type_url": type_url}
        names: list[str] = []
        subscribe, unsubscribe, initial = [], [], {}
        rest = iter(words[1:])
        is_initial = False
        for word in rest:
            if word in {"ack", "nack", "stale-ack"}:
                fields["response_nonce"] = self.nonces[type_url][-2 if word == "stale-ack" else -1]
                if word == "nack":
                    fields["error_detail"] = {"code": 13, "message": next(rest)}
            elif word == "init":
                is_initial = True
            elif is_initial:
                name, content = word.split("=")
                initial[name] = self.version(TypeUrl(type_url), name, content)
            elif not self.is_delta:
                names.append(word)
            else:
                (subscribe if word[0] == "+" else unsubscribe).append(word[1:])
        if self.is_delta:
            fields |= {"resource_names_subscribe": subscribe, "resource_names_unsubscribe": unsubscribe}
            event, _ = read_delta(
                api.DeltaDiscoveryRequest(**fields, initial_resource_versions=initial).SerializeToString()  # type: ignore[arg-type]
            )
            self.take(self.talk().receive(event))
        else:
            event_sotw, _ = read_sotw(api.DiscoveryRequest(**fields, resource_names=names).SerializeToString())  # type: ignore[arg-type]
            self.take(self.talk().receive(event_sotw))

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    self.nonces.setdefault(action.type_url, []).append(action.nonce)
                    self.happened.append(" ".join(["<<", _short(action.type_url), *self.read(action)]))
                case Acked():
                    self.acked.append(action)
                case Rejected(type_url, versions, _):
                    told = [f"{name}={self.contents[type_url, v]}" for name, v in versions.items()]
                    self.happened.append(" ".join(["!! rejected", _short(type_url), *told]))
                case Doubted(type_url, names, _):
                    self.happened.append(" ".join(["!! doubted", _short(type_url), *names]))
                case Asked(type_url, names):
                    self.happened.append(" ".join(["!! asked", _short(type_url), *names]))
                case Closed(reason):
                    self.happened.append(f"!! closed {reason}")

    def read(self, send: Send) -> Iterator[str]:
        """The response as it is on the wire."""
        if self.is_delta:
            response = api.DeltaDiscoveryResponse.FromString(send.body)
            for r in response.resources:
                version = version_of(schema.to_bytes(r.resource))
                assert r.version == version
                yield f"{r.name}={self.contents[send.type_url, version]}"
            yield from (f"-{name}" for name in response.removed_resources)
            assert tuple(response.removed_resources) == send.removed
        else:
            whole = api.DiscoveryResponse.FromString(send.body)
            for r, name in zip(whole.resources, send.changed, strict=True):
                inside = schema.from_any(r)
                assert name == getattr(inside, "cluster_name", None) or inside.name  # type: ignore[attr-defined]
                yield f"{name}={self.contents[send.type_url, version_of(schema.to_bytes(r))]}"

    def question(self, words: list[str]) -> None:
        conversation = self.talk()
        match words:
            case ["synced", version]:
                assert conversation.synced_version == int(version), f"synced is {conversation.synced_version}"
                assert conversation.is_synced(int(version))
                assert not conversation.is_synced(int(version) + 1)
            case ["held", short, *pairs]:
                held = conversation.held.get(TypeUrl[short], {})
                assert sorted(pairs) == (
                    found := sorted(f"{n}={self.contents[TypeUrl[short], v]}" for n, v in held.items())
                ), f"but it holds {found}"
            case _:
                raise ValueError(f"not a question: {words}")

    def expect_nothing(self, before: str) -> None:
        assert self.happened == [], f"unexpected before `{before}`: {self.happened}"


def _short(type_url: str) -> str:
    return TypeUrl(type_url).name if type_url in set(TypeUrl) else type_url


def _normal(line: str) -> list[str]:
    words = line.split()
    return [*words[:2], *sorted(words[2:])] if words[0] == "<<" else words


def play(path: Path) -> Player:
    player = Player()
    for number, raw in enumerate(path.read_text().splitlines(), start=1):
        line = raw.split("  #")[0].strip()
        if not line or line.startswith("#"):
            continue
        try:
            player.play(line)
        except AssertionError as wrong:
            raise AssertionError(f"{path.name}:{number}: {line}\n{wrong}") from wrong
    player.expect_nothing("the end")
    return player
