"""A pod (10.77.0.2) and its neighbour (10.77.0.1) in network namespaces of their own, joined by a pair of links.

In the pod listen a sidecar (15001, 15006 by IPv4, 15021) and a workload (8080 by both families); each answers with its port and
where the connection was meant to go. The neighbour listens on 80 and 25, and says `outside`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
WORKLOAD, PROXY, NOBODY = 1000, 1337, 65534
SOURCE, TARGET = "10.77.0.2", "10.77.0.1"


class Pod:
    """Two namespaces, held by processes."""

    def __init__(self, pod: int, neighbour: int) -> None:
        self.pod = pod
        self.neighbour = neighbour
        self._servers: list[subprocess.Popen[bytes]] = []

    @property
    def path(self) -> str:
        """Of the pod's network namespace."""
        return f"/proc/{self.pod}/ns/net"

    def is_apart(self) -> bool:
        return all(
            Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            for pid in (self.pod, self.neighbour)
        )

    def join(self) -> None:
        self.run(
            self.pod, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(self.neighbour)
        )
        for pid, last in ((self.pod, 2), (self.neighbour, 1)):
            self.run(pid, "ip", "link", "set", "lo", "up")
            self.run(pid, "ip", "link", "set", "eth0", "up")
            self.run(pid, "ip", "addr", "add", f"10.77.0.{last}/24", "dev", "eth0")
            self.run(pid, "ip", "-6", "addr", "add", f"fd77::{last}/64", "dev", "eth0", "nodad")
        self.run(self.pod, "ip", "route", "add", "default", "via", TARGET)
        self._serve(self.pod, "15001", "15006", "15021", "8080+6")
        self._serve(self.neighbour, "80+6", "25")

    def run(self, pid: int, *words: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        done = self.tried(pid, *words, user=user)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done

    def tried(self, pid: int, *words: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        whole = ["nsenter", "-t", str(pid), "-n", *(_as(user) if user is not None else ()), *words]
        return subprocess.run(whole, capture_output=True, text=True, timeout=30, check=False)

    def rules(self) -> str:
        """The ruleset as nft prints it, without counters and handles."""
        return self.run(self.pod, "nft", "list", "ruleset").stdout

    def leaving(self, address: str, port: int, user: int = WORKLOAD, source: str = "") -> str:
        """Who answers a connection from inside the pod."""
        return self._asked(self.pod, user, address, port, source)

    def arriving(self, address: str, port: int) -> str:
        """Who answers a connection from the neighbour."""
        return self._asked(self.neighbour, WORKLOAD, address, port, "")

    def _asked(self, pid: int, user: int, address: str, port: int, source: str) -> str:
        words = (sys.executable, "-I", "-c", (HERE / "ask.py").read_text(), address, str(port), source)
        return self.run(pid, *words, user=user).stdout.strip()

    def _serve(self, pid: int, *ports: str) -> None:
        words = ["nsenter", "-t", str(pid), "-n", sys.executable, "-I", str(HERE / "answer.py"), *ports]
        server = subprocess.Popen(words, stdout=subprocess.PIPE)
        self._servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"

    def close(self) -> None:
        for server in self._servers:
            server.kill()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()


def _as(user: int) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
