"""Programs that run inside pods. Standard library only: also run as a file, inside a sandbox."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def server(port: int, name: str) -> str:
    """An application that says its name and who called."""
    return f"""
import socket
listener = socket.create_server(("0.0.0.0", {port}), backlog=64)
while True:
    connection, peer = listener.accept()
    connection.sendall(b"{name} called by " + peer[0].encode())
    connection.close()
"""


def witness(port: int, name: str) -> str:
    """In a sidecar's place: says where a redirected connection was meant to go (SO_ORIGINAL_DST)."""
    return f"""
import socket, struct
listener = socket.create_server(("0.0.0.0", {port}), backlog=64)
while True:
    connection, peer = listener.accept()
    meant = connection.getsockopt(socket.SOL_IP, 80, 16)
    port, address = struct.unpack("!2xH4s8x", meant)
    connection.sendall(f"{name} {{socket.inet_ntoa(address)}}:{{port}}".encode())
    connection.close()
"""


def udp_echo(port: int) -> str:
    return f"""
import socket
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("0.0.0.0", {port}))
while True:
    packet, peer = listener.recvfrom(100)
    listener.sendto(packet, peer)
"""


def client(host: str, port: int) -> str:
    return f"""
import socket
try:
    with socket.create_connection(("{host}", {port}), 2) as connection:
        print(connection.recv(100).decode() or "closed")
except OSError as error:
    print(type(error).__name__)
"""


UDP_CLIENT = """
import socket
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(5)
asking.sendto(b"who", ("10.244.0.1", 53))
print(asking.recv(100).decode())
"""

SIDECAR = """
import json, os, pathlib, socket
def outcome(attempt):
    try:
        attempt()
        return "works"
    except OSError as error:
        return error.strerror
def marked():
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, 36, 1337)
def low_port():
    socket.create_server(("0.0.0.0", 443)).close()
def own_socket():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/xds/xds.sock")
print(json.dumps({{
    "processes": sorted(name for name in os.listdir("/proc") if name.isdigit()),
    "own socket": outcome(own_socket),
    "mark": outcome(marked),
    "low port": outcome(low_port),
    "raw socket": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)),
    "other sidecar's directory": outcome(lambda: os.listdir("{other}")),
    "run directory": outcome(lambda: os.listdir("{run}")),
    "write beside its socket": outcome(lambda: open("/run/xds/x", "w")),
    "chown": outcome(lambda: os.chown("/tmp", 5, 5)),
    "mount": outcome(lambda: os.unshare(0x20000) if hasattr(os, "unshare") else os.chroot("/tmp")),
    "core": [line.split()[4:6] for line in pathlib.Path("/proc/self/limits").read_text().splitlines()
             if line.startswith("Max core")][0],
}}))
"""

FILES = """
import json, os
def attempt(path):
    try:
        open(path, "w").write("mine")
        return "written"
    except OSError as error:
        return error.strerror
print(json.dumps({
    "id": [os.getuid(), os.getgid()],
    "resolv.conf": open("/etc/resolv.conf").read(),
    "hosts": open("/etc/hosts").read(),
    "volume": attempt("/data/new"),
    "read-only views": [open("/etc/tulle-config/deep/new").read(), open("/usr/share/tulle-test/new").read()],
    "refused": {path: attempt(path) for path in (
        "/etc/tulle-config/deep/other", "/usr/share/tulle-test/other", "/etc/x", "/usr/x", "/x", "/dev/x",
        "/etc/resolv.conf", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger")},
    "scratch": [attempt(path) for path in ("/tmp/x", "/run/x", "/var/tmp/x", "/dev/shm/x", "/var/run/y")],
    "still there": [os.path.exists(path) for path in ("/etc/passwd", "/usr/share", "/usr/bin/env")],
}))
"""


def _listener(port: int, cluster: str) -> dict[str, Any]:
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": cluster,
        "cluster": cluster,
    }
    original = {"@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"}
    return {
        "name": cluster,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [{"name": "envoy.filters.listener.original_dst", "typed_config": original}],
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    }


def _readiness() -> dict[str, Any]:
    """A port that can be asked without making Envoy connect to itself."""
    answer = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config",
        "response": {"inline_string": "ready"},
    }
    return {
        "name": "readiness",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 15021}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.direct_response", "typed_config": answer}]}],
    }


def _cluster(name: str, source: str) -> dict[str, Any]:
    mark = {"level": 1, "name": 36, "int_value": 1337, "state": "STATE_PREBIND"}
    return {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "1s",
        "upstream_bind_config": {
            "source_address": {"address": source, "port_value": 0},
            "socket_options": [mark],
        },
    }


ENVOY: dict[str, Any] = {
    "node": {"id": "test", "cluster": "test"},
    "static_resources": {
        "listeners": [_listener(15001, "outbound"), _listener(15006, "inbound"), _readiness()],
        "clusters": [_cluster("outbound", "0.0.0.0"), _cluster("inbound", "127.0.0.6")],
    },
}


def _connect_unix(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)


def _udp(family: int, host: str, port: int) -> str:
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        sender.sendto(b"hello", (host, port))
        return sender.recv(100).decode()


def _tcp(host: str, port: int, source: str | None = None, mark: int | None = None) -> str:
    with socket.socket() as connection:
        connection.settimeout(1)
        if mark is not None:
            connection.setsockopt(socket.SOL_SOCKET, 36, mark)
        if source is not None:
            connection.bind((source, 0))
        connection.connect((host, port))
        return connection.recv(100).decode()


def _ipv6_loopback() -> str:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("::1", port), 1):
            return "works"


def _libc(name: str, *arguments: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _delete_rules() -> None:
    """NFT_MSG_DELTABLE for everything, as `nft flush ruleset` sends it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        edge = struct.pack(">BBH", 0, 0, 10)
        packet = b""
        for kind, flags in ((0x10, 1), (10 << 8 | 2, 5), (0x11, 1)):
            packet += struct.pack("=IHHII", 20, kind, flags, kind, 0) + edge
        netlink.send(packet)
        (code,) = struct.unpack_from("=i", netlink.recv(4096), 16)
        if code:
            raise OSError(-code, os.strerror(-code))


def _link_down() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex("eth0"), 0, 1)
        netlink.send(struct.pack("=IHHII", 16 + len(body), 16, 5, 1, 0) + body)
        (code,) = struct.unpack_from("=i", netlink.recv(4096), 16)
        if code:
            raise OSError(-code, os.strerror(-code))


def _attempts(aims: dict[str, Any]) -> dict[str, Callable[[], object]]:
    raw = socket.SOCK_RAW
    return {
        "raw socket": lambda: socket.socket(socket.AF_INET, raw, socket.IPPROTO_TCP),
        "packet socket": lambda: socket.socket(socket.AF_PACKET, raw, 0x300),
        "ping socket": lambda: _udp_ping(aims["peer"]),
        "flush the rules": _delete_rules,
        "take the link down": _link_down,
        "mark of the sidecar": lambda: _tcp(aims["peer"], 9080, mark=1337),
        "address of the sidecar": lambda: _tcp(aims["peer"], 9080, source="127.0.0.6"),
        "udp to a peer": lambda: _udp(socket.AF_INET, aims["peer"], 9999),
        "udp to the world": lambda: _udp(socket.AF_INET, "192.0.2.1", 443),
        "udp to the gateway": lambda: _udp(socket.AF_INET, aims["gateway"], 54),
        "ipv6 to the world": lambda: _udp(socket.AF_INET6, "2001:db8::1", 53),
        "ipv6 on the link": lambda: _udp(socket.AF_INET6, "fe80::1%eth0", 53),
        "user namespace": lambda: _libc("unshare", 0x1000_0000),
        "mount namespace": lambda: _libc("unshare", 0x2_0000),
        "mount": lambda: _libc("mount", b"x", b"/tmp", b"tmpfs", 0, 0),
        "become root": lambda: os.setuid(0),
        "ptrace the reaper": lambda: _libc("ptrace", 16, 1, 0, 0),
        "memory of the reaper": lambda: Path("/proc/1/mem").open("rb"),
        "root of the reaper": lambda: list(Path("/proc/1/root/").iterdir()),
        "network namespace of the reaper": lambda: Path("/proc/1/ns/net").readlink(),
        "ptrace by the host's pid": lambda: _libc("ptrace", 16, aims["host_pid"], 0, 0),
        "kill by the host's pid": lambda: os.kill(aims["host_pid"], 0),
        "state directory": lambda: list(Path(aims["state"]).iterdir()),
        "named host socket": lambda: _connect_unix(aims["named"]),
        "abstract host socket": lambda: _connect_unix("\0" + aims["abstract"]),
        "host's loopback": lambda: _tcp("127.0.0.1", aims["host_port"]),
        "hidden directory": (Path(aims["manifests"]) / "run" / "control.sock").stat,
        "write a manifest": lambda: (Path(aims["manifests"]) / "app.yaml").write_text("x"),
        "shadow": lambda: Path("/etc/shadow").read_bytes() or _raise_empty(),
        "sysctl": lambda: Path("/proc/sys/kernel/hostname").write_text("x"),
        "device node": lambda: os.mknod("/tmp/mem", 0o020666, os.makedev(1, 1)),
    }


def _raise_empty() -> None:
    raise OSError(2, "empty")


def _udp_ping(peer: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sender:
        sender.settimeout(1)
        sender.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1), (peer, 1))
        sender.recv(100)


def main() -> None:
    """Try everything; print what happened: the error's name, or SUCCEEDED."""
    aims = json.loads(sys.argv[1])
    outcomes: dict[str, str] = {}
    for name, attempt in _attempts(aims).items():
        try:
            attempt()
        except OSError as error:
            outcomes[name] = error.strerror or str(error)
        else:
            outcomes[name] = "SUCCEEDED"
    # What must work, so that the failures above mean something.
    outcomes["control: dns"] = _udp(socket.AF_INET, aims["gateway"], 53)
    outcomes["control: tcp goes to the sidecar"] = _tcp(aims["peer"], 9080)
    outcomes["control: manifests are visible"] = (Path(aims["manifests"]) / "app.yaml").read_text()
    outcomes["control: ipv6 loopback"] = _ipv6_loopback()
    outcomes["processes in sight"] = " ".join(sorted(one.name for one in Path("/proc").glob("[0-9]*")))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
