"""Answers to DNS questions about the mesh's names, as bytes in and bytes out.

Pure. Written out because a resolver library costs 0.1 s at the start of every mesh and only three answers are needed:
an address, no address, no such name. What is not a name of the mesh is not answered here (`dns` forwards it).
Source: RFC 1035 §4; RFC 2308 (no data); RFC 6761 (search domains are the resolver's business).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import Struct

A: Final = 1
AAAA: Final = 28
ANY: Final = 255
_IN: Final = 1
_HEADER: Final = struct.Struct("!HHHHHH")
_TYPE_CLASS: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_CNAME: Final = 5
_NO_SUCH_NAME: Final = 3
_SERVER_FAILURE: Final = 2
_RESPONSE: Final = 0x8000
_AUTHORITATIVE: Final = 0x0400
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
_TO_QUESTION: Final = b"\xc0\x0c"
_TTL: Final = 5
"""Seconds: names change when manifests do."""
_NAME_LIMIT: Final = 255


class Host(Struct, frozen=True):
    """What a name stands for."""

    a: tuple[str, ...] = ()
    cname: str = ""


Names = Mapping[str, Host]
"""Lower-case full name, without the last dot -> host; `*.example.com` for every name below."""


class Question(NamedTuple):
    """The one question of a query."""

    id: int
    flags: int
    name: str
    """Lower case, without the last dot."""
    kind: int
    end: int
    """Where it ends in the message."""


def question(message: bytes) -> Question | None:
    """The question of a query; None for anything that is not one plain question."""
    if len(message) < _HEADER.size:
        return None
    identifier, flags, questions, _answers, _authorities, _additional = _HEADER.unpack_from(message)
    if flags & _RESPONSE or flags & 0x7800 or questions != 1:
        return None
    labels: list[str] = []
    at = _HEADER.size
    while at < len(message) and at - _HEADER.size <= _NAME_LIMIT:
        length = message[at]
        at += 1
        if length == 0:
            break
        if length > 63 or at + length > len(message):
            return None
        labels.append(message[at : at + length].decode("ascii", errors="replace").lower())
        at += length
    if at + _TYPE_CLASS.size > len(message):
        return None
    kind, category = _TYPE_CLASS.unpack_from(message, at)
    return Question(identifier, flags, ".".join(labels), kind, at + 4) if category == _IN else None


def answer(message: bytes, asked: Question, names: Names, domain: str) -> bytes | None:
    """The answer to a question about the mesh; None when somebody else has to know.

    A name of the mesh without an address of the kind asked for is no error, so that resolvers that ask for IPv6 first
    go on to IPv4. Unknown names below `domain` do not exist.
    """
    host = found(names, asked.name)
    if host is None:
        if asked.name == domain or asked.name.endswith(f".{domain}"):
            return _reply(message, asked, code=_NO_SUCH_NAME)
        return None
    if host.cname:
        target = names.get(host.cname)
        if target is None:
            return None
        alias = _record(_CNAME, _encoded(host.cname))
        addresses = _addresses(target, asked.kind, owner=_encoded(host.cname))
        return _reply(message, asked, records=[alias, *addresses])
    return _reply(message, asked, records=_addresses(host, asked.kind, owner=_TO_QUESTION))


def alias_of(asked: Question, names: Names) -> str:
    """The outside name that a name of the mesh is another word for; empty for all others."""
    host = found(names, asked.name)
    return host.cname if host is not None and host.cname not in names else ""


def aliased(message: bytes, asked: Question, cname: str, addresses: tuple[str, ...]) -> bytes:
    """The answer for a name that is another word for an outside one with these addresses."""
    records = _addresses(Host(addresses), asked.kind, owner=_encoded(cname))
    return _reply(message, asked, records=[_record(_CNAME, _encoded(cname)), *records])


def query(identifier: int, name: str) -> bytes:
    """A question for the IPv4 addresses of a name."""
    head = _HEADER.pack(identifier, _RECURSION_DESIRED, 1, 0, 0, 0)
    return head + _encoded(name) + _TYPE_CLASS.pack(A, _IN)


def addresses_in(message: bytes) -> tuple[str, ...]:
    """The IPv4 addresses of an answer, whatever names they are of; empty for anything that is no answer."""
    try:
        _id, flags, questions, answers, _authorities, _additional = _HEADER.unpack_from(message)
        if flags & 0xF or not flags & _RESPONSE:
            return ()
        at = _HEADER.size
        for _ in range(questions):
            at = _past_name(message, at) + _TYPE_CLASS.size
        found: list[str] = []
        for _ in range(answers):
            at = _past_name(message, at)
            kind, _category, _ttl, length = _RECORD.unpack_from(message, at)
            at += _RECORD.size
            if kind == A and length == 4:
                found.append(".".join(str(part) for part in message[at : at + 4]))
            at += length
    except (struct.error, IndexError):
        return ()
    return tuple(found)


def _past_name(message: bytes, at: int) -> int:
    """Where a name ends: labels and a zero, or a pointer (RFC 1035 §4.1.4)."""
    while length := message[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def failed(message: bytes, asked: Question) -> bytes:
    """The answer when whoever should know did not answer."""
    return _reply(message, asked, code=_SERVER_FAILURE)


def found(names: Names, name: str) -> Host | None:
    """The host of a name, by itself or by the nearest wildcard above it."""
    if name in names:
        return names[name]
    _, _, above = name.partition(".")
    while above:
        if (wildcard := f"*.{above}") in names:
            return names[wildcard]
        _, _, above = above.partition(".")
    return None


def _addresses(host: Host, kind: int, owner: bytes) -> list[bytes]:
    if kind not in (A, ANY):
        return []
    return [_record(A, bytes(int(part) for part in address.split(".")), owner) for address in host.a]


def _record(kind: int, content: bytes, owner: bytes = _TO_QUESTION) -> bytes:
    return owner + _RECORD.pack(kind, _IN, _TTL, len(content)) + content


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _reply(message: bytes, asked: Question, records: list[bytes] | None = None, code: int = 0) -> bytes:
    flags = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (asked.flags & _RECURSION_DESIRED) | code
    kept = records or []
    head = _HEADER.pack(asked.id, flags, 1, len(kept), 0, 0)
    return head + message[_HEADER.size : asked.end] + b"".join(kept)
