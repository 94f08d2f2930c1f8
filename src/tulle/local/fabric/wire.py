"""What `client` and `init` say to each other: one JSON message per packet of a SOCK_SEQPACKET pair.

File descriptors travel beside a message (SCM_RIGHTS): the log descriptors of a `Spawn`, the socket of an `Open`, the
pidfd of a started process. Each request carries a `seq`, repeated by its one answer (`Done`, `Refused` or `Listing`);
`Exited` comes unasked. Types only.
"""

from __future__ import annotations

import array
import socket
from typing import Final, Literal

import msgspec

PACKET_LIMIT: Final = 200_000
"""Longest message in bytes: what fits the default socket buffer (net.core.wmem_max)."""
DESCRIPTOR_LIMIT: Final = 4
BRIDGE: Final = "tulle0"

Kind = Literal["sidecar", "workload"]
SocketKind = Literal["tcp-connect", "tcp-listen", "udp-bind"]


class Network(msgspec.Struct, frozen=True):
    """The addresses of one mesh on this machine."""

    pods: str = "10.244.0.0/16"
    """Pod CIDR: one link for all pods, which is the bridge."""
    services: str = "10.96.0.0/16"
    """VIP CIDR: never routed; sidecars (or `Vip` rules) translate."""
    gateway: str = "10.244.0.1"
    """The bridge's address: default route, DNS server and edge."""
    egress_port: int | None = 15001
    """Port in the bridge's namespace that gets TCP leaving the mesh; None leaves it unanswered."""
    dns_port: int = 53
    """UDP port that pods may send to, at `gateway`: names as the mesh has them."""
    world_dns_port: int = 5353
    """The only other one: names as the world has them, for sidecars that look for an external host's address."""


class Capture(msgspec.Struct, frozen=True):
    """Which TCP goes through the sidecar; the fields are Istio's `traffic.sidecar.istio.io/*` annotations."""

    outbound: bool = True
    inbound: bool = True
    include_outbound_ranges: tuple[str, ...] | None = None
    """CIDRs; None is all (`includeOutboundIPRanges: "*"`)."""
    exclude_outbound_ranges: tuple[str, ...] = ()
    include_outbound_ports: tuple[int, ...] = ()
    """Captured whatever the range."""
    exclude_outbound_ports: tuple[int, ...] = ()
    include_inbound_ports: tuple[int, ...] | None = None
    """None is all (`includeInboundPorts: "*"`)."""
    exclude_inbound_ports: tuple[int, ...] = ()


NO_CAPTURE: Final = Capture(outbound=False, inbound=False)
"""For gateways and for pods without a sidecar."""


class Bind(msgspec.Struct, frozen=True):
    """A path of the host shown inside a sandbox."""

    source: str
    target: str | None = None
    """None is the same path."""
    writable: bool = False


class Vip(msgspec.Struct, frozen=True):
    """A service address as a pod without a sidecar sees it: TCP to it goes to one endpoint at random."""

    address: str
    port: int
    endpoints: tuple[tuple[str, int], ...]


class Setup(msgspec.Struct, tag="setup", frozen=True):
    """First request: make the bridge."""

    seq: int
    network: Network


class PodAdd(msgspec.Struct, tag="pod_add", frozen=True):
    """Make a pod's network namespace."""

    seq: int
    name: str
    address: str
    capture: Capture


class PodDelete(msgspec.Struct, tag="pod_delete", frozen=True):
    """Kill what runs in a pod and delete its network namespace."""

    seq: int
    name: str


class VipSet(msgspec.Struct, tag="vip_set", frozen=True):
    """Replace all VIP rules of a pod."""

    seq: int
    pod: str
    vips: tuple[Vip, ...]


class Spawn(msgspec.Struct, tag="spawn", frozen=True):
    """Start a process; its stdout and stderr come as two descriptors."""

    seq: int
    kind: Kind
    pod: str | None
    """None is the bridge's network namespace."""
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str = "/"
    uid: int = 1000
    gid: int = 1000
    """What a workload sees as its own user and group; a sidecar is always 0 of the fabric."""
    hostname: str = "localhost"
    binds: tuple[Bind, ...] = ()
    hidden: tuple[str, ...] = ()
    """Paths inside the sandbox covered by an empty directory, after all binds."""
    into: int | None = None
    """Pid of a running process whose sandbox is joined instead of making one (exec probes)."""


class Signal(msgspec.Struct, tag="signal", frozen=True):
    """Send a signal to a process that `Spawn` started."""

    seq: int
    pid: int
    signal: int


class Open(msgspec.Struct, tag="open", frozen=True):
    """Open a socket in a network namespace; a TCP connection may still be in progress when it arrives."""

    seq: int
    pod: str | None
    kind: SocketKind
    host: str
    port: int


class ListAll(msgspec.Struct, tag="list", frozen=True):
    """Ask what exists now."""

    seq: int


class Done(msgspec.Struct, tag="done", frozen=True):
    """The request succeeded."""

    seq: int
    pid: int = 0
    """Of a `Spawn`: the pid as the fabric's init counts, valid in later requests."""
    notes: tuple[str, ...] = ()
    """What this machine refused although the request succeeded."""


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The request failed and left nothing behind."""

    seq: int
    errno: int
    reason: str


class Running(msgspec.Struct, frozen=True):
    """One process in a `Listing`."""

    pid: int
    kind: Kind
    pod: str | None


class Listing(msgspec.Struct, tag="listing", frozen=True):
    """Answer to `ListAll`."""

    seq: int
    pods: tuple[str, ...]
    processes: tuple[Running, ...]


class Exited(msgspec.Struct, tag="exited", frozen=True):
    """A process ended. Exactly one of `code` and `signal` is set."""

    pid: int
    code: int | None
    signal: int | None
    cpu_seconds: float
    peak_memory_bytes: int


Request = Setup | PodAdd | PodDelete | VipSet | Spawn | Signal | Open | ListAll
Answer = Done | Refused | Listing | Exited

encode = msgspec.json.Encoder().encode
request_of = msgspec.json.Decoder(Request).decode
answer_of = msgspec.json.Decoder(Answer).decode


def descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """File descriptors that came beside a packet (SCM_RIGHTS); the receiver owns them."""
    received = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
    return received.tolist()


def reason_of(error: OSError) -> str:
    """An error's own words with the path it concerns."""
    words = error.strerror or str(error)
    return f"{words}: {error.filename}" if error.filename is not None else words
