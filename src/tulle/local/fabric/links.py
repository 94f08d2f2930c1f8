"""Links, addresses and routes over rtnetlink (linux/rtnetlink.h, linux/if_link.h).

Each function acts in the network namespace of the `Netlink` socket it is given. Knows nothing of pods.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from tulle.local.fabric.netlink import CREATE, EXCLUSIVE, Netlink, attribute, nested, text

_NEWLINK: Final = 16
_DELLINK: Final = 17
_NEWADDR: Final = 20
_NEWROUTE: Final = 24
_UP: Final = 1

_IFLA_ADDRESS: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_MASTER: Final = 10
_IFLA_LINKINFO: Final = 18
_IFLA_NET_NS_FD: Final = 28
_INFO_KIND: Final = 1
_INFO_DATA: Final = 2
_VETH_PEER: Final = 1
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_RTA_GATEWAY: Final = 5


def _interface(index: int = 0, *, up: bool = False) -> bytes:
    flags = _UP if up else 0
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def hardware_address(address: IPv4Address, first: int) -> bytes:
    """A locally administered MAC derived from the IP, so that a pod that comes back is not hidden by old ARP entries."""
    return bytes((0x02, first)) + address.packed


def raise_link(netlink: Netlink, name: str) -> None:
    """Set a link up."""
    netlink.ask(_NEWLINK, 0, _interface(socket.if_nametoindex(name), up=True), f"set {name} up")


def add_bridge(netlink: Netlink, name: str, mac: bytes) -> None:
    """A bridge, up, with a fixed MAC: otherwise it takes the lowest of its ports and changes as pods come and go."""
    payload = (
        _interface(up=True)
        + text(_IFLA_IFNAME, name)
        + attribute(_IFLA_ADDRESS, mac)
        + nested(_IFLA_LINKINFO, text(_INFO_KIND, "bridge"))
    )
    netlink.ask(_NEWLINK, CREATE | EXCLUSIVE, payload, f"add bridge {name}")


def add_veth(netlink: Netlink, name: str, bridge: str, *, peer: str, peer_mac: bytes, peer_netns: int) -> None:
    """A veth pair: `name` up on `bridge` here, `peer` in the namespace behind the descriptor `peer_netns`."""
    far = (
        _interface()
        + text(_IFLA_IFNAME, peer)
        + attribute(_IFLA_ADDRESS, peer_mac)
        + attribute(_IFLA_NET_NS_FD, struct.pack("=I", peer_netns))
    )
    payload = (
        _interface(up=True)
        + text(_IFLA_IFNAME, name)
        + attribute(_IFLA_MASTER, struct.pack("=I", socket.if_nametoindex(bridge)))
        + nested(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, nested(_VETH_PEER, far)))
    )
    netlink.ask(_NEWLINK, CREATE | EXCLUSIVE, payload, f"add veth {name}")


def delete_link(netlink: Netlink, name: str) -> None:
    """Delete a link; of a veth pair both ends go."""
    netlink.ask(_DELLINK, 0, _interface(socket.if_nametoindex(name)), f"delete {name}")


def add_address(netlink: Netlink, name: str, interface: IPv4Interface) -> None:
    """Give a link an address; the route to its network comes with it."""
    header = struct.pack("=BBBBI", socket.AF_INET, interface.network.prefixlen, 0, 0, socket.if_nametoindex(name))
    packed = interface.ip.packed
    netlink.ask(
        _NEWADDR,
        CREATE | EXCLUSIVE,
        header + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed),
        f"add address {interface} to {name}",
    )


def add_default_route(netlink: Netlink, gateway: IPv4Address) -> None:
    """The default route by `gateway`."""
    # family, dst_len, src_len, tos, table main, protocol boot, scope universe, type unicast, flags
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
    payload = header + attribute(_RTA_GATEWAY, gateway.packed)
    netlink.ask(_NEWROUTE, CREATE | EXCLUSIVE, payload, f"add default route by {gateway}")
