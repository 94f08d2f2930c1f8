"""nftables over netlink: tables, chains, rules and the expressions the fabric uses (linux/netfilter/nf_tables.h).

A rule is a sequence of expressions, each already encoded. `Batch.commit` is atomic: all of it or nothing. Knows no
policy; which packets go where is written in `capture`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from tulle.local.fabric.netlink import (
    ACK,
    APPEND,
    CREATE,
    NETFILTER,
    REQUEST,
    Netlink,
    attribute,
    message,
    nested,
    text,
)

INET: Final = 1
IPV4: Final = 2
PREROUTING: Final = 0
FORWARD: Final = 2
OUTPUT: Final = 3
DROP: Final = 0
ACCEPT: Final = 1
RETURN: Final = -5
TCP: Final = 6
UDP: Final = 17

_SUBSYSTEM: Final = 10
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NEWTABLE: Final = 0
_DELTABLE: Final = 2
_NEWCHAIN: Final = 3
_NEWRULE: Final = 6

_MARK: Final = 3
_IIFNAME: Final = 6
_OIFNAME: Final = 7
_NFPROTO: Final = 15
_L4PROTO: Final = 16
_NETWORK_HEADER: Final = 1
_TRANSPORT_HEADER: Final = 2
_LOCAL_ADDRESS: Final = 2

Expression = bytes


def _be32(value: int) -> bytes:
    return struct.pack(">I", value & 0xFFFF_FFFF)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, _be32(value))


def _expression(name: str, *attributes: bytes) -> Expression:
    return nested(1, text(1, name), nested(2, *attributes))


def _compare(value: bytes, *, equal: bool = True) -> Expression:
    return _expression("cmp", _number(1, 1), _number(2, 0 if equal else 1), nested(3, attribute(1, value)))


def _meta(key: int) -> Expression:
    return _expression("meta", _number(1, 1), _number(2, key))


def _payload(header: int, offset: int, length: int) -> Expression:
    return _expression("payload", _number(1, 1), _number(2, header), _number(3, offset), _number(4, length))


def _immediate(register: int, value: bytes) -> Expression:
    return _expression("immediate", _number(1, register), nested(2, attribute(1, value)))


def mark_is(value: int) -> Expression:
    """`meta mark N`."""
    return _meta(_MARK) + _compare(struct.pack("=I", value))


def protocol_is(number: int) -> Expression:
    """`meta l4proto N`."""
    return _meta(_L4PROTO) + _compare(bytes((number,)))


def is_ipv4() -> Expression:
    """`meta nfproto ipv4`."""
    return _meta(_NFPROTO) + _compare(bytes((IPV4,)))


def into_link(name: str) -> Expression:
    """`oifname NAME`."""
    return _meta(_OIFNAME) + _compare(name.encode().ljust(16, b"\0"))


def from_link(name: str) -> Expression:
    """`iifname NAME`."""
    return _meta(_IIFNAME) + _compare(name.encode().ljust(16, b"\0"))


def _address(offset: int, network: IPv4Network, *, equal: bool) -> Expression:
    load = _payload(_NETWORK_HEADER, offset, 4)
    if network.prefixlen < 32:
        mask, zero = nested(4, attribute(1, network.netmask.packed)), nested(5, attribute(1, b"\0" * 4))
        load += _expression("bitwise", _number(1, 1), _number(2, 1), _number(3, 4), mask, zero)
    return load + _compare(network.network_address.packed, equal=equal)


def source_in(network: IPv4Network) -> Expression:
    """`ip saddr NETWORK`; the packet must be IPv4."""
    return _address(12, network, equal=True)


def target_in(network: IPv4Network) -> Expression:
    """`ip daddr NETWORK`; the packet must be IPv4."""
    return _address(16, network, equal=True)


def target_outside(network: IPv4Network) -> Expression:
    """`ip daddr != NETWORK`; the packet must be IPv4."""
    return _address(16, network, equal=False)


def target_port_is(port: int) -> Expression:
    """`th dport N`; the packet must be TCP or UDP."""
    return _payload(_TRANSPORT_HEADER, 2, 2) + _compare(struct.pack(">H", port))


def target_is_local() -> Expression:
    """`fib daddr type local`."""
    return _expression("fib", _number(1, 1), _number(2, 3), _number(3, 2)) + _compare(struct.pack("=I", _LOCAL_ADDRESS))


def one_in(count: int) -> Expression:
    """`numgen random mod COUNT == 0`: true once in `count` times."""
    return _expression("numgen", _number(1, 1), _number(2, count), _number(3, 1)) + _compare(struct.pack("=I", 0))


def verdict(code: int) -> Expression:
    """`accept`, `drop` or `return`."""
    return _expression("immediate", _number(1, 0), nested(2, nested(2, _number(1, code))))


def reset() -> Expression:
    """`reject with tcp reset`: the caller's `connect` is refused at once."""
    return _expression("reject", _number(1, 1), attribute(2, b"\0"))


def redirect_to(port: int) -> Expression:
    """`redirect to :PORT`: to this namespace's own address."""
    return _immediate(1, struct.pack(">H", port)) + _expression("redir", _number(1, 1), _number(2, 1))


def dnat_to(address: IPv4Address, port: int) -> Expression:
    """`dnat to ADDRESS:PORT`."""
    load = _immediate(1, address.packed) + _immediate(2, struct.pack(">H", port))
    registers = (_number(3, 1), _number(4, 1), _number(5, 2), _number(6, 2))
    return load + _expression("nat", _number(1, 1), _number(2, IPV4), *registers)


@dataclass(frozen=True)
class Hook:
    """Where packets enter a base chain."""

    kind: str
    """"nat" or "filter"."""
    place: int
    """`PREROUTING`, `FORWARD` or `OUTPUT`."""
    priority: int
    policy: int
    """`ACCEPT` or `DROP`: the fate of packets no rule decided."""


class Batch:
    """Changes to one namespace's rules, applied together."""

    def __init__(self) -> None:
        self._changes: list[tuple[int, int, int, bytes]] = []

    def _add(self, kind: int, flags: int, family: int, body: bytes) -> None:
        self._changes.append((kind, flags, family, body))

    def table(self, family: int, name: str) -> None:
        """Make a table; one that exists stays."""
        self._add(_NEWTABLE, CREATE, family, text(1, name))

    def delete_table(self, family: int, name: str) -> None:
        """Delete a table with all it holds; it must exist (`table` before makes sure)."""
        self._add(_DELTABLE, 0, family, text(1, name))

    def chain(self, family: int, table: str, name: str, hook: Hook) -> None:
        """A base chain."""
        hooked = nested(4, _number(1, hook.place), _number(2, hook.priority))
        self._add(
            _NEWCHAIN,
            CREATE,
            family,
            text(1, table) + text(3, name) + hooked + _number(5, hook.policy) + text(7, hook.kind),
        )

    def rule(self, family: int, table: str, chain: str, *expressions: Expression) -> None:
        """Append a rule."""
        body = text(1, table) + text(2, chain) + nested(4, *expressions)
        self._add(_NEWRULE, CREATE | APPEND, family, body)

    def commit(self, what: str) -> None:
        """Apply everything in the network namespace of the caller; raises `OSError` naming `what`."""
        if not self._changes:
            return
        with Netlink(NETFILTER) as netlink:
            edge = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
            packet = message(_BATCH_BEGIN, REQUEST, netlink.next_sequence(), edge)
            for position, (kind, flags, family, body) in enumerate(self._changes, start=1):
                # One acknowledgement, for the last change: the kernel reports a refused change without being asked.
                asked = REQUEST | flags | (ACK if position == len(self._changes) else 0)
                head = struct.pack(">BBH", family, 0, 0)
                packet += message(_SUBSYSTEM << 8 | kind, asked, netlink.next_sequence(), head + body)
            packet += message(_BATCH_END, REQUEST, netlink.next_sequence(), edge)
            netlink.send(packet, what)
