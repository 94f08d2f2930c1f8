"""The networks of one cluster: a switch, a network per node, one way in from the host.

All of it hangs on processes that hold the namespaces: when they end, the kernel removes links, addresses and routes, the
host's included. Nothing on the host is named but the link `tulle<slot>`.
"""

import subprocess
import time
from pathlib import Path

from .layout import Layout
from .processes import spawn

FIRST_MS = 5
LONGEST_S = 20.0


def hold(log: Path) -> subprocess.Popen[bytes]:
    """A process whose only work is to keep a network namespace. Raises TimeoutError when the kernel gives none."""
    holder = spawn(["unshare", "--net", "sleep", "infinity"], log)
    ours = Path("/proc/self/ns/net").readlink()
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        if holder.poll() is not None:
            break
        if Path(f"/proc/{holder.pid}/ns/net").readlink() != ours and _is_sleeping(holder.pid):
            return holder
        time.sleep(FIRST_MS / 1000)
    raise TimeoutError(f"no network namespace: {log.read_text()[-500:]}")


def _is_sleeping(pid: int) -> bool:
    """The program that unshared has been replaced: the namespace is final."""
    return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"


def build(layout: Layout, switch: int, nodes: list[int]) -> None:
    """Wire the namespaces of the given pids; the routes between nodes' pods included."""
    _wire_host(layout, switch)
    for number, pid in enumerate(nodes):
        _wire_node(layout, switch, number, pid)


def inside(pid: int, *line: str) -> list[str]:
    """The command line that runs in the network of a process."""
    return ["nsenter", "-t", str(pid), "-n", *line]


def _run(*line: str) -> None:
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(line)}: {done.stderr.strip()}")


def _wire_host(layout: Layout, switch: int) -> None:
    within = inside(switch)
    _run(*within, "ip", "link", "set", "lo", "up")
    _run(*within, "ip", "link", "add", "nodes", "type", "bridge")
    _run(*within, "ip", "link", "set", "nodes", "up")
    _run("ip", "link", "add", layout.link, "type", "veth", "peer", "name", "host", "netns", str(switch))
    _run(*within, "ip", "link", "set", "host", "master", "nodes", "up")
    _run("ip", "addr", "add", f"{layout.host}/24", "dev", layout.link)
    if layout.is_dual:
        _run("ip", "-6", "addr", "add", f"{layout.host6}/64", "dev", layout.link, "nodad")
    _run("ip", "link", "set", layout.link, "up")
    first = layout.nodes[0]
    for target in (layout.services, layout.balancers):
        _run("ip", "route", "replace", target, "via", first.address, "dev", layout.link)
    for node in layout.nodes:
        _run("ip", "route", "replace", node.pods, "via", node.address, "dev", layout.link)
    if layout.is_dual:
        for target in (layout.services6, layout.balancers6):
            _run("ip", "-6", "route", "replace", target, "via", first.address6, "dev", layout.link)
        for node in layout.nodes:
            _run("ip", "-6", "route", "replace", node.pods6, "via", node.address6, "dev", layout.link)


def _wire_node(layout: Layout, switch: int, number: int, pid: int) -> None:
    node, at_switch, within = layout.nodes[number], inside(switch), inside(pid)
    port = node.name
    _run(*at_switch, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _run(*at_switch, "ip", "link", "set", port, "master", "nodes", "up")
    _run(*within, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    _run(*within, "ip", "link", "set", "lo", "up")
    _run(*within, "ip", "addr", "add", f"{node.address}/24", "dev", "eth0")
    _run(*within, "ip", "link", "set", "eth0", "up")
    _run(*within, "ip", "route", "add", "default", "via", layout.host)
    if layout.is_dual:
        _run(*within, "ip", "-6", "addr", "add", f"{node.address6}/64", "dev", "eth0", "nodad")
        _run(*within, "ip", "-6", "route", "add", "default", "via", layout.host6)
    for other in layout.nodes:
        if other != node:
            _run(*within, "ip", "route", "add", other.pods, "via", other.address)
            if layout.is_dual:
                _run(*within, "ip", "-6", "route", "add", other.pods6, "via", other.address6)
