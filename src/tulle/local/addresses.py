"""Addresses of pods and services: deterministic by name, kept across runs.

Pure. A pod that comes back under its name has its address again, so logs and saved requests stay readable; two names
never share one. Which networks a mesh uses is decided by its name and by who runs beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from ipaddress import IPv4Network
from typing import Final

from msgspec import Struct

from tulle.local.fabric.wire import Network

_SLOTS: Final = 48
_FIRST_POD_OCTET: Final = 128
_FIRST_SERVICE_OCTET: Final = 192
_RESERVED: Final = 16
"""Low addresses of a network that are never given away: the bridge's is among them."""


def slot(mesh: str, taken: Collection[int] = ()) -> int:
    """The number that makes a mesh's networks its own: from its name, the next free one if another runs on it."""
    start = _number(mesh) % _SLOTS
    return next((found for i in range(_SLOTS) if (found := (start + i) % _SLOTS) not in taken), start)


def network(number: int) -> Network:
    """The networks of a slot: 10.128.0.0/16 and on for pods, 10.192.0.0/16 and on for services."""
    pods, services = f"10.{_FIRST_POD_OCTET + number}", f"10.{_FIRST_SERVICE_OCTET + number}"
    return Network(pods=f"{pods}.0.0/16", services=f"{services}.0.0/16", gateway=f"{pods}.0.1")


class Book(Struct):
    """Which name has which address of one network; saved as it is."""

    cidr: str
    given: dict[str, str] = {}

    def address(self, name: str) -> str:
        """The address of a name: the one it had, else a free one near its hash. O(1) unless the network is full."""
        found = self.given.get(name)
        if found is not None:
            return found
        block = IPv4Network(self.cidr)
        usable = block.num_addresses - _RESERVED - 1
        used = set(self.given.values())
        start = _number(name) % usable
        for step in range(usable):
            candidate = str(block[_RESERVED + (start + step) % usable])
            if candidate not in used:
                self.given[name] = candidate
                return candidate
        raise OverflowError(f"{self.cidr} has no free address")

    def claim(self, name: str, address: str) -> None:
        """Give a name the address it asks for; whoever else had it gets another when asked again."""
        for other in [one for one, given in self.given.items() if given == address and one != name]:
            del self.given[other]
        self.given[name] = address

    def keep_only(self, names: Iterable[str], limit: int = 4096) -> None:
        """Forget names beyond `limit` that are not in use."""
        if len(self.given) > limit:
            kept = set(names)
            self.given = {name: given for name, given in self.given.items() if name in kept}


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
