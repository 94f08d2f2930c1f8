"""The network namespaces of the fabric: the bridge's own and one per pod.

Runs inside `init`. A namespace lives as long as the descriptor held here; entering one is a `with` block. Decides no
rules (`capture`) and starts no processes (`sandbox`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from tulle.local.fabric import capture, kernel, links
from tulle.local.fabric.netlink import ROUTE, Netlink
from tulle.local.fabric.wire import BRIDGE, Network, Open, PodAdd, Vip

_OWN_NET: Final = "/proc/self/ns/net"
_POD_LINK: Final = "eth0"
_BACKLOG: Final = 128


class Pods:
    """Every network namespace of the mesh."""

    def __init__(self) -> None:
        self._bridge_ns = os.open(_OWN_NET, os.O_RDONLY | os.O_CLOEXEC)
        self._network = Network()
        self._namespaces: dict[str, int] = {}
        self._links: dict[str, str] = {}
        self._made = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pods, oldest first."""
        return tuple(self._namespaces)

    def namespace(self, pod: str | None) -> int:
        """Descriptor of a pod's network namespace, or of the bridge's for None; raises `OSError` for unknown pods."""
        if pod is None:
            return self._bridge_ns
        if pod not in self._namespaces:
            raise OSError(2, f"no pod {pod!r}")
        return self._namespaces[pod]

    @contextlib.contextmanager
    def inside(self, pod: str | None) -> Iterator[None]:
        """Run a block in a pod's network namespace."""
        kernel.setns(self.namespace(pod), kernel.NEWNET)
        try:
            yield
        finally:
            kernel.setns(self._bridge_ns, kernel.NEWNET)

    def set_up(self, network: Network) -> tuple[str, ...]:
        """Make the bridge; returns what this machine refused that rules make up for."""
        self._network = network
        prefix = IPv4Network(network.pods).prefixlen
        gateway = IPv4Address(network.gateway)
        notes = _settings()
        with Netlink(ROUTE) as netlink:
            links.raise_link(netlink, "lo")
            links.add_bridge(netlink, BRIDGE, links.hardware_address(gateway, 0xFE))
            links.add_address(netlink, BRIDGE, IPv4Interface(f"{gateway}/{prefix}"))
        capture.bridge_rules(network).commit("rules of the bridge")
        return notes

    def add(self, request: PodAdd) -> None:
        """Make a pod's namespace with its link, address, route and rules, or nothing at all."""
        if request.name in self._namespaces:
            raise OSError(17, f"pod {request.name!r} exists")
        self._made += 1
        link = f"v{self._made}"
        namespace = self._new_namespace()
        try:
            self._fill(request, link, namespace)
        except OSError:
            os.close(namespace)
            raise
        self._namespaces[request.name] = namespace
        self._links[request.name] = link

    def _new_namespace(self) -> int:
        try:
            kernel.unshare(kernel.NEWNET)
            return os.open(_OWN_NET, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            kernel.setns(self._bridge_ns, kernel.NEWNET)

    def _fill(self, request: PodAdd, link: str, namespace: int) -> None:
        address = IPv4Address(request.address)
        prefix = IPv4Network(self._network.pods).prefixlen
        kernel.setns(namespace, kernel.NEWNET)
        try:
            # Rules first: the pod is never connected without them.
            _settings()
            capture.pod_rules(self._network, request.capture).commit(f"rules of pod {request.name}")
        finally:
            kernel.setns(self._bridge_ns, kernel.NEWNET)
        with Netlink(ROUTE) as netlink:
            mac = links.hardware_address(address, 0)
            links.add_veth(netlink, link, BRIDGE, peer=_POD_LINK, peer_mac=mac, peer_netns=namespace)
        kernel.setns(namespace, kernel.NEWNET)
        try:
            with Netlink(ROUTE) as netlink:
                links.raise_link(netlink, "lo")
                links.add_address(netlink, _POD_LINK, IPv4Interface(f"{address}/{prefix}"))
                links.raise_link(netlink, _POD_LINK)
                links.add_default_route(netlink, IPv4Address(self._network.gateway))
        finally:
            kernel.setns(self._bridge_ns, kernel.NEWNET)

    def delete(self, name: str) -> None:
        """Take a pod off the bridge and let go of its namespace; processes must be gone or dying."""
        namespace = self.namespace(name)
        with Netlink(ROUTE) as netlink:
            links.delete_link(netlink, self._links.pop(name))
        del self._namespaces[name]
        os.close(namespace)

    def set_vips(self, pod: str, vips: tuple[Vip, ...]) -> None:
        """Replace the VIP rules of a pod."""
        with self.inside(pod):
            capture.vip_rules(vips).commit(f"service addresses of pod {pod}")

    def open(self, request: Open) -> socket.socket:
        """A socket in a namespace; non-blocking, a connection may be in progress."""
        stream = request.kind != "udp-bind"
        with self.inside(request.pod):
            opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            if request.kind == "tcp-connect":
                with contextlib.suppress(BlockingIOError):
                    opened.connect((request.host, request.port))
                return opened
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((request.host, request.port))
            if stream:
                opened.listen(_BACKLOG)
        except OSError:
            opened.close()
            raise
        return opened


def _settings() -> tuple[str, ...]:
    """Switch IPv6 off on every link to come, and forwarding off; `lo` keeps ::1. The filter drops the rest anyway.

    Low ports are everybody's in a pod, as container runtimes have it: manifests listen on port 80.
    """
    notes = []
    wanted = {
        "net/ipv6/conf/default/disable_ipv6": "1",
        "net/ipv4/ip_forward": "0",
        "net/ipv4/ip_unprivileged_port_start": "0",
    }
    for path, value in wanted.items():
        try:
            kernel.write_file(f"/proc/sys/{path}", value)
        except OSError as error:
            notes.append(str(error))
    return tuple(notes)
