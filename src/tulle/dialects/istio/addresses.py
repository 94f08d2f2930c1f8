"""Addresses for hosts that have none: the same host gets the same address in every mesh, whatever else there is.

Pure. An address moves only when two hosts want the same one, and then for the later of the two in order of name.
"""

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network
from typing import Final

_PROBES: Final = 4096
"""Tries per host; with a range less than nine tenths full, the odds that all miss are below 1e-180."""


def assigned(names: Iterable[tuple[str, str]], cidr: str) -> dict[tuple[str, str], str]:
    """An IPv4 address of the range for every (namespace, host).

    Addresses that end in .0 or .255 are left out, as Istio does. Names that find no free address in a full range are
    missing from the answer. Raises ValueError where `cidr` is no IPv4 range.
    """
    network = ip_network(cidr)
    if not isinstance(network, IPv4Network):
        raise ValueError(f"{cidr} is not an IPv4 range")
    taken: set[str] = set()
    given: dict[tuple[str, str], str] = {}
    for name in sorted(set(names)):
        address = _first_free(name, network, taken)
        if address:
            taken.add(address)
            given[name] = address
    return given


def _first_free(name: tuple[str, str], network: IPv4Network, taken: set[str]) -> str:
    text = "/".join(name).encode()
    for attempt in range(_PROBES):
        number = int.from_bytes(hashlib.sha256(attempt.to_bytes(2, "big") + text).digest()[:8], "big")
        address = str(network[number % network.num_addresses])
        if address not in taken and address.rpartition(".")[2] not in ("0", "255"):
            return address
    return ""
