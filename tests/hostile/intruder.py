"""A workload that tries everything it must not be able to do. Standard library only; runs inside a mesh's sandbox.

Waits for `aims.json` in the directory given, tries, writes `outcomes.json` there: attempt -> `SUCCEEDED: …` or why it failed.
The attempts of one sandbox (raw sockets, namespaces, ptrace) are those of the fabric's own test, `programs.py`; here stand
those that need a mesh around.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import http.client
import json
import os
import platform
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import programs

Aims = dict[str, Any]
PATIENCE_S = 2.0
SO_BINDTODEVICE, IP_OPTIONS, TCP_REPAIR = 25, 4, 19
# Numbers of system calls are the machine's own.
PROCESS_VM_READV, PIDFD_OPEN = {"x86_64": (310, 434)}.get(platform.machine(), (270, 434))


class StoppedError(Exception):
    """The attempt came to nothing; the text is what was seen."""


def connected(host: str, port: int, **how: Any) -> socket.socket:
    """A connection, made in one of several crooked ways."""
    found = socket.socket()
    try:
        found.settimeout(PATIENCE_S)
        if "device" in how:
            found.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, how["device"].encode())
        if "options" in how:
            found.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, how["options"])
        if "freebind" in how:
            found.setsockopt(socket.IPPROTO_IP, 15, 1)
            found.bind((how["freebind"], 0))
        if "source_port" in how:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            found.bind(("0.0.0.0", how["source_port"]))
        found.connect((host, port))
    except BaseException:
        found.close()
        raise
    return found


def asked(
    host: str, port: int, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None, **how: Any
) -> tuple[int, str]:
    """Status and body of one request."""
    with contextlib.closing(connected(host, port, **how)) as made:
        client = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
        client.sock = made
        client.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"{host}:{port}", "Connection": "close", **(headers or {})}.items():
            client.putheader(name, value)
        client.endheaders()
        answer = client.getresponse()
        return answer.status, answer.read(100_000).decode(errors="replace")


def hoard(aims: Aims, host: str, port: int, **how: Any) -> str:
    """Ask for the treasure; whatever is not the treasure is a failure."""
    status, body = asked(host, port, **how)
    return wanted(aims, status, body)


def wanted(aims: Aims, status: int, body: str) -> str:
    if aims["treasure"] in body:
        return body[:60]
    raise StoppedError(f"{status} {body.strip()[:60]}".strip())


def over_tls(aims: Aims, host: str, port: int, certificate: str = "", alpn: tuple[str, ...] = ()) -> str:
    """Ask over a TLS connection of our own making, with a certificate we made ourselves."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if certificate:
        context.load_cert_chain(certificate)
    with connected(host, port) as plain, context.wrap_socket(plain, server_hostname=host) as made:
        made.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        heard = b"".join(iter(lambda: made.recv(4096), b""))
    return wanted(aims, 0, heard.decode(errors="replace"))


def read(path: str) -> str:
    """The first bytes of a file, or the names in a directory."""
    found = Path(path)
    if found.is_dir():
        return " ".join(sorted(one.name for one in found.iterdir()))[:60] or "empty"
    return f"{len(found.read_bytes())} bytes"


def every(paths: list[str], attempt: Callable[[str], Any]) -> str:
    """One success of several is a success; else the different failures."""
    failures: dict[str, int] = {}
    for path in paths:
        try:
            return f"{path}: {attempt(path)}"
        except OSError as error:
            words = error.strerror or str(error)
            failures[words] = failures.get(words, 0) + 1
    assert failures, "nothing to try"
    raise StoppedError(", ".join(f"{words} ({count})" if count > 1 else words for words, count in failures.items()))


def unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(PATIENCE_S)
        made.connect(path)
    return "connected"


def abstract_sockets() -> str:
    """Whatever abstract sockets there are in the own network namespace."""
    names = [line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    found = [name for name in names if name.startswith("@")]
    if not found:
        raise StoppedError(f"no abstract socket in sight, {len(names)} named")
    return every(found, lambda name: unix("\0" + name[1:]))


def processes() -> str:
    """Any process that is neither this program nor the reaper of its sandbox."""
    strangers = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(entry.name) not in (1, os.getpid()):
                strangers.append(f"{entry.name} {words[:30]}")
    if not strangers:
        raise StoppedError("only itself and its reaper in sight")
    return ", ".join(strangers)


def call(number: int, *arguments: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    found = int(libc.syscall(ctypes.c_long(number), *(ctypes.c_long(one) for one in arguments)))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def every_pid(aims: Aims, attempt: Callable[[int], Any]) -> str:
    """By the numbers the sidecar has on the machine, and by all low ones but its own."""
    pids = [*aims["sidecar_pids"], *(pid for pid in range(1, 200) if pid != os.getpid())]
    return every([str(pid) for pid in pids], lambda word: attempt(int(word)))


def memory(pid: int) -> str:
    with Path(f"/proc/{pid}/mem").open("rb") as found:
        return f"opened {found.name}"


def peek(pid: int) -> str:
    """process_vm_readv of one byte."""
    here = ctypes.create_string_buffer(8)
    local = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(here), 8))
    # An address that is ours is good enough: who may not read is told so before it is looked at.
    remote = ctypes.create_string_buffer(bytes(local))
    return f"{call(PROCESS_VM_READV, pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0)} bytes"


def stolen_port(port: int) -> str:
    """Listen where the sidecar listens, and wait for somebody else's connection to arrive here."""
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(("0.0.0.0", port))
        found.listen()
        return f"listens on {port}"


def forged(aims: Aims, header: str, value: str) -> str:
    """An allowed request with a forged header: does the server see it?"""
    status, body = asked("board", 8080, headers={header: value})
    if status != 200:
        raise StoppedError(f"{status} {body[:60]}")
    seen = {name.lower(): text for name, text in json.loads(body).items()}
    if aims["forged"] in seen.get(header, ""):
        return f"the server saw {seen[header][:60]}"
    raise StoppedError(f"the server saw {seen[header][:70] if header in seen else 'no such header'}")


def rerouted(aims: Aims) -> str:
    """Ask an allowed server for a forbidden one, by Envoy's own headers."""
    place = f"{aims['vault_ip']}:8080"
    words = ("x-envoy-original-dst-host", "x-envoy-original-host", "x-forwarded-host", "x-envoy-upstream-alt-stat-name")
    return wanted(aims, *asked("board", 8080, headers=dict.fromkeys(words, place)))


def admin_paths(host: str, port: int) -> str:
    """More of Envoy's admin interface than the one path that is offered."""
    tries = [("GET", path) for path in ("/config_dump", "/certs", "/clusters", "/server_info", "/", "/help")]
    tries += [
        ("GET", "/stats/prometheus/../../config_dump"),
        ("GET", "/stats/prometheus/%2e%2e/%2e%2e/config_dump"),
        ("GET", "//config_dump"),
        ("GET", "/stats/prometheus/config_dump"),
        ("GET", "/healthz/ready/../config_dump"),
        ("POST", "/quitquitquit"),
        ("POST", "/logging?level=trace"),
        ("POST", "/stats/prometheus"),
        ("POST", "/healthz/ready"),
        ("POST", "/drain_listeners"),
    ]
    seen: set[str] = set()
    for method, path in tries:
        try:
            status, _ = asked(host, port, path, method)
        except (OSError, http.client.HTTPException) as error:
            status = 0
            seen.add(type(error).__name__)
        if status == 200:
            return f"{method} {path}: 200"
        seen.add(str(status or ""))
    raise StoppedError(" ".join(sorted(seen - {""})))


def datagram(kind: int, protocol: int, host: str) -> str:
    """Protocols that are neither TCP nor UDP."""
    with socket.socket(socket.AF_INET, kind, protocol) as made:
        made.settimeout(PATIENCE_S)
        made.connect((host, 53))
        made.send(b"hello")
        return made.recv(10).decode() or "closed"


def repaired() -> str:
    with socket.socket() as made:
        made.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    return "set"


def attempts(aims: Aims) -> dict[str, Callable[[], Any]]:
    """Name -> attempt. One that returns has succeeded."""
    ip, me = aims["vault_ip"], "127.0.0.1"
    loose_source = struct.pack("!BBB4s4sx", 0x83, 11, 4, socket.inet_aton(aims["gateway"]), socket.inet_aton(ip))
    return {
        # --- files
        "CA key": lambda: every(aims["ca_files"], read),
        "state directory": lambda: every(aims["state"], read),
        "run directory": lambda: every(aims["run"], read),
        "files of other pods": lambda: every(aims["pod_files"], read),
        "logs of other pods": lambda: every(aims["log_files"], read),
        "Secret of another pod": lambda: every(aims["secret_files"], read),
        "Secret in the manifests": lambda: every(aims["manifests"], lambda path: _holds(path, aims["treasure"])),
        # --- sockets
        "control plane's admin socket": lambda: unix(aims["control_socket"]),
        "supervisor's socket": lambda: unix(aims["supervisor_socket"]),
        "another sidecar's xDS socket": lambda: every(aims["other_xds"], unix),
        "its own sidecar's xDS socket": lambda: every(aims["own_xds"], unix),
        "Envoy's admin sockets": lambda: every(aims["envoy_sockets"], unix),
        "sockets of the edge": lambda: every(aims["edge_sockets"], unix),
        "path-name host socket": lambda: every(aims["named"], unix),
        "abstract host socket": lambda: unix("\0" + aims["abstract"]),
        "abstract sockets of its network": abstract_sockets,
        "host's loopback": lambda: connected(me, aims["host_port"]).close(),
        "control plane's TCP ports": lambda: every(
            [str(port) for port in aims["xds_ports"]], lambda port: connected(me, int(port)).close()
        ),
        "control plane's TCP ports, by the bridge": lambda: every(
            [str(port) for port in aims["xds_ports"]], lambda port: asked(aims["gateway"], int(port))
        ),
        # --- its sidecar
        "processes in sight": processes,
        "memory of its sidecar": lambda: every_pid(aims, memory),
        "ptrace of its sidecar": lambda: every_pid(aims, lambda pid: programs._libc("ptrace", 16, pid, 0, 0)),
        "process_vm_readv of its sidecar": lambda: every_pid(aims, peek),
        "pidfd of its sidecar": lambda: every(
            [str(pid) for pid in aims["sidecar_pids"]], lambda pid: call(PIDFD_OPEN, int(pid), 0)
        ),
        "kill its sidecar": lambda: every(
            [str(pid) for pid in aims["sidecar_pids"]], lambda pid: os.kill(int(pid), signal.SIGKILL)
        ),
        "admin of its sidecar by TCP": lambda: asked(me, 15000, "/certs"),
        "more than metrics of its sidecar": lambda: admin_paths(me, 15090),
        "more than readiness of its sidecar": lambda: admin_paths(me, 15021),
        # --- around its sidecar
        "repair mode of TCP": repaired,
        "mark of the sidecar": lambda: programs._tcp(ip, 8080, mark=1337),
        "address of the sidecar": lambda: hoard(aims, ip, 8080, freebind="127.0.0.6"),
        "address of another pod": lambda: hoard(aims, ip, 8080, freebind=aims["friend_ip"]),
        "bound to the link": lambda: hoard(aims, ip, 8080, device="eth0"),
        "source routing": lambda: hoard(aims, ip, 8080, options=loose_source),
        "from the sidecar's port": lambda: hoard(aims, ip, 8080, source_port=15001),
        "pod address of the vault": lambda: hoard(aims, ip, 8080),
        "pod address of the vault, by its name": lambda: hoard(aims, ip, 8080, headers={"Host": "vault:8080"}),
        "address of the board, name of the vault": lambda: hoard(
            aims, aims["board_ip"], 8080, headers={"Host": "vault:8080"}
        ),
        "service address of the vault": lambda: hoard(aims, aims["vault_vip"], 8080),
        "name of the vault": lambda: hoard(aims, "vault", 8080),
        "undeclared port of the vault": lambda: hoard(aims, ip, 8081),
        "IPv4 in IPv6": lambda: _mapped(aims, ip),
        "vault's outbound port": lambda: hoard(aims, ip, 15001),
        "vault's inbound port": lambda: hoard(aims, ip, 15006),
        "vault's HBONE port": lambda: hoard(aims, ip, 15008),
        "vault's merged port": lambda: hoard(aims, ip, 15020),
        "vault's metrics port, other paths": lambda: admin_paths(ip, 15090),
        "vault's readiness port, other paths": lambda: admin_paths(ip, 15021),
        "sidecar's outbound port itself": lambda: hoard(aims, me, 15001, headers={"Host": "vault:8080"}),
        "sidecar's inbound port itself": lambda: hoard(aims, me, 15006, headers={"Host": "vault:8080"}),
        "SCTP": lambda: datagram(socket.SOCK_STREAM, 132, ip),
        "UDP-Lite": lambda: datagram(socket.SOCK_DGRAM, 136, ip),
        "broadcast": lambda: _broadcast("255.255.255.255"),
        "multicast": lambda: _broadcast("224.0.0.251"),
        "TCP over IPv6": lambda: socket.create_connection(("2001:db8::1", 80), PATIENCE_S).close(),
        "IPv6 switched on": lambda: Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("0"),
        # --- somebody else
        "self-made certificate, HTTP port": lambda: over_tls(aims, ip, 8080, aims["certificate"], ("istio-http/1.1",)),
        "self-made certificate, other port": lambda: over_tls(aims, ip, 8081, aims["certificate"], ("istio",)),
        "TLS without a certificate": lambda: over_tls(aims, ip, 8081),
        "forged peer header": lambda: forged(aims, "x-tulle-peer", aims["forged_peer"]),
        "forged client certificate header": lambda: forged(
            aims, "x-forwarded-client-cert", f"URI=spiffe://cluster.local/ns/hostile/sa/{aims['forged']}"
        ),
        "rerouting headers": lambda: rerouted(aims),
    }


def outlawed(aims: Aims) -> dict[str, Callable[[], Any]]:
    """From a pod without a sidecar: nothing of its own catches it, so the vault's sidecar must."""
    ip, mine = aims["vault_ip"], aims["certificate"]
    header = {"Host": "vault:8080", "x-tulle-peer": aims["forged_peer"]}
    offers = {
        "HTTP/1": ("istio-http/1.1",),
        "HTTP/2": ("istio-h2", "h2"),
        "TCP": ("istio",),
        "other TLS": ("http/1.1",),
    }
    tries: dict[str, Callable[[], Any]] = {
        f"no sidecar: self-made certificate, {name}": lambda offer=offer: over_tls(aims, ip, 8080, mine, offer)
        for name, offer in offers.items()
    }
    return {
        **tries,
        "no sidecar: TLS without a certificate": lambda: over_tls(aims, ip, 8080, "", ("istio-http/1.1",)),
        "no sidecar: plain HTTP": lambda: hoard(aims, ip, 8080),
        "no sidecar: plain HTTP, service address": lambda: hoard(aims, aims["vault_vip"], 8080),
        "no sidecar: plain HTTP, forged peer": lambda: hoard(aims, ip, 8080, headers=header),
        "no sidecar: undeclared port": lambda: hoard(aims, ip, 8081),
        "no sidecar: inbound port": lambda: hoard(aims, ip, 15006),
        "no sidecar: inbound port, TLS": lambda: over_tls(aims, ip, 15006, mine, ("istio-http/1.1",)),
        "no sidecar: outbound port": lambda: hoard(aims, ip, 15001),
        "no sidecar: HBONE port": lambda: hoard(aims, ip, 15008),
        "no sidecar: metrics port, other paths": lambda: admin_paths(ip, 15090),
        "no sidecar: mark of a sidecar": lambda: programs._tcp(ip, 8080, mark=1337),
        "no sidecar: UDP": lambda: programs._udp(socket.AF_INET, ip, 9999),
    }


def _holds(path: str, treasure: str) -> str:
    if treasure in Path(path).read_text(errors="replace"):
        return "holds it"
    raise OSError(errno.ENODATA, "not in it")


def _mapped(aims: Aims, ip: str) -> str:
    with socket.socket(socket.AF_INET6) as made:
        made.settimeout(PATIENCE_S)
        made.connect((f"::ffff:{ip}", 8080))
        made.sendall(b"GET / HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n")
        heard = b"".join(iter(lambda: made.recv(4096), b""))
    return wanted(aims, 0, heard.decode(errors="replace").partition("\r\n")[0])


def _broadcast(host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.sendto(b"hello", (host, 5353))


def controls(aims: Aims) -> dict[str, Callable[[], Any]]:
    """What must work, so that the failures mean something."""
    return {
        "control: an allowed request": lambda: asked("board", 8080)[0],
        "control: by pod address": lambda: asked(aims["board_ip"], 8080, headers={"Host": "board:8080"})[0],
        "control: names": lambda: socket.gethostbyname("vault") == aims["vault_vip"],
        "control: its own Secret": lambda: Path("/own/word").read_text(),
        "control: its own volume": lambda: (Path(sys.argv[1]) / "mark").write_text("x"),
        "control: scratch": lambda: Path("/tmp/mark").write_text("x"),
        "control: a peer's metrics": lambda: asked(aims["vault_ip"], 15090, "/stats/prometheus")[0],
        "control: a peer's readiness": lambda: asked(aims["vault_ip"], 15021, "/healthz/ready")[0],
    }


def outcome(attempt: Callable[[], Any]) -> str:
    """What became of it."""
    try:
        found = attempt()
    except StoppedError as stopped:
        return str(stopped)
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    except http.client.HTTPException as error:
        return type(error).__name__
    return f"SUCCEEDED: {found}"


def main() -> None:
    """Wait for the aims, try everything, write what happened."""
    place = Path(sys.argv[1])
    while not (place / "aims.json").exists():
        time.sleep(0.1)
    aims = json.loads((place / "aims.json").read_text())
    aims["gateway"] = next(
        line.split()[1] for line in Path("/etc/resolv.conf").read_text().splitlines() if line.startswith("nameserver")
    )
    sandbox = {**aims["sandbox"], "gateway": aims["gateway"]}
    if sys.argv[2:] == ["outlaw"]:
        found = {name: outcome(one) for name, one in outlawed(aims).items()}
        peek_at = lambda: asked(aims["vault_ip"], 15021, "/healthz/ready")[0]  # noqa: E731
        return told(place, "outlaw", {**found, "control: no sidecar, a peer's readiness": outcome(peek_at)})
    found = {name: outcome(one) for name, one in controls(aims).items()}
    found |= {name: outcome(one) for name, one in programs._attempts(sandbox).items() if name != "hidden directory"}
    found |= {name: outcome(one) for name, one in attempts(aims).items()}
    # Again: an attempt that broke its own network would make every later failure worthless.
    found |= {f"{name}, afterwards": outcome(one) for name, one in controls(aims).items()}
    found["its own sidecar's metrics port"] = outcome(lambda: stolen_port(15090))
    found["its own sidecar's outbound port"] = outcome(lambda: stolen_port(15001))
    return told(place, "intruder", found)


def told(place: Path, who: str, found: dict[str, str]) -> None:
    """Leave the outcomes, and stay."""
    fresh = place / f".{who}"
    fresh.write_text(json.dumps(found))
    fresh.rename(place / f"{who}.json")
    signal.pause()


if __name__ == "__main__":
    main()
