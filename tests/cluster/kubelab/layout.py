"""Where things of one cluster are: addresses, names, folders. Numbers follow from the cluster's slot; no I/O.

Clusters side by side differ in slot and name only; every process listens in namespaces of its own, so ports are alike.
"""

import os
from pathlib import Path
from typing import NamedTuple

MOST_CLUSTERS = 16
API_PORT = 6443
DOMAIN = "cluster.local"


def cache() -> Path:
    """The folder of what is built once and kept: TULLE_CACHE, else the user's cache (XDG base directories)."""
    chosen = os.environ.get("TULLE_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tulle"


def clusters() -> Path:
    """The folder of running clusters, one below it each."""
    return cache() / "clusters"


class Node(NamedTuple):
    """A node: network namespace, mount and pid namespace, cgroup."""

    name: str
    address: str
    address6: str
    pods: str
    pods6: str
    cgroup: str


class Layout(NamedTuple):
    """Everything that is where; `slot` < MOST_CLUSTERS."""

    name: str
    slot: int
    size: int
    is_dual: bool

    @property
    def folder(self) -> Path:
        return clusters() / self.name

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "kubeconfig"

    @property
    def link(self) -> str:
        """The host's end of the way into the cluster."""
        return f"tulle{self.slot}"

    @property
    def host(self) -> str:
        return f"10.98.{self.slot}.1"

    @property
    def host6(self) -> str:
        return f"fd00:98:{self.slot}::1"

    @property
    def pods(self) -> str:
        return f"10.{140 + self.slot}.0.0/16"

    @property
    def pods6(self) -> str:
        return f"fd00:140:{self.slot}::/48"

    @property
    def services(self) -> str:
        return f"10.{100 + self.slot}.0.0/16"

    @property
    def services6(self) -> str:
        return f"fd00:100:{self.slot}::/112"

    @property
    def balancers(self) -> str:
        """Addresses of Services of type LoadBalancer; the host has a route to them."""
        return f"10.97.{self.slot}.0/24"

    @property
    def balancers6(self) -> str:
        return f"fd00:97:{self.slot}::/112"

    @property
    def dns(self) -> str:
        return f"10.{100 + self.slot}.0.10"

    @property
    def api_service(self) -> str:
        return f"10.{100 + self.slot}.0.1"

    @property
    def api(self) -> str:
        """The API as seen from the host, the nodes and the pods."""
        return f"https://{self.nodes[0].address}:{API_PORT}"

    @property
    def nodes(self) -> list[Node]:
        """The first node's network also holds the control plane."""
        return [
            Node(
                name=f"node{number}",
                address=f"10.98.{self.slot}.{number + 1}",
                address6=f"fd00:98:{self.slot}::{number + 1:x}",
                pods=f"10.{140 + self.slot}.{number}.0/24",
                pods6=f"fd00:140:{self.slot}:{number}::/64",
                cgroup=f"tulle-{self.name}-node{number}",
            )
            for number in range(1, self.size + 1)
        ]

    def both(self, four: str, six: str) -> str:
        """What a flag takes for the families that the cluster has."""
        return f"{four},{six}" if self.is_dual else four
