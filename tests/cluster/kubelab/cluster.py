"""A running cluster as tests use it: start one, ask kubectl, bring images, hurt it, take it down."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from . import builds, cgroups, images, network, nodes, processes, record, stores
from .builds import UnavailableError
from .keeper import Wishes
from .layout import Layout, clusters
from .saying import say

PROGRAMS = (
    "containerd",
    "runc",
    "ctr",
    "nft",
    "iptables",
    "busybox",
    "conntrack",
    "ip",
    "nsenter",
    "unshare",
    "setpriv",
    "tcpdump",
)
UP_S = 300.0
LOAD_S = 300.0
DOWN_S = 60.0
STEP_S = 0.05
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


_keepers: dict[str, subprocess.Popen[bytes]] = {}
"""Children of this process, by cluster: somebody has to wait for them."""


class Cluster:
    """One that is ready. All methods are bounded in time and raise with what the program said."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.kubernetes = builds.built("k")

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; keys are inside."""
        return self.layout.kubeconfig

    def kubectl(self, *arguments: str, text: str | None = None, limit_s: float = 60.0) -> str:
        """Its output. Raises subprocess.CalledProcessError with its complaint as a note."""
        line = [str(self.kubernetes), "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(line, input=text, check=False, capture_output=True, text=True, timeout=limit_s)
        if done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, ["kubectl", *arguments], done.stdout, done.stderr)
            error.add_note(done.stderr[-3000:])
            raise error
        return done.stdout

    def apply(self, text: str, *arguments: str) -> str:
        """`kubectl apply` of YAML."""
        return self.kubectl("apply", "-f", "-", *arguments, text=text)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`, decoded."""
        return dict(json.loads(self.kubectl("get", *arguments, "-o", "json")))

    def wait(self, *arguments: str, limit_s: float = 60.0) -> str:
        """`kubectl wait`, with kubectl's own limit."""
        return self.kubectl("wait", f"--timeout={limit_s:.0f}s", *arguments, limit_s=limit_s + 5)

    def load(self, *names: str | Path) -> None:
        """Images of `images.IMAGES` by name, or archives by path, onto every node; made when they are not yet."""
        archives = [name if isinstance(name, Path) else images.archive(name) for name in names]
        for node in self.layout.nodes:
            for archive in archives:
                at = str(nodes.socket_of(self.layout, node))
                subprocess.run(
                    ["ctr", "-a", at, "-n", "k8s.io", "images", "import", str(archive)],
                    check=True,
                    capture_output=True,
                    timeout=LOAD_S,
                )

    def stop(self, part: str) -> None:
        """Kill a part: server (etcd and the API), controllers, scheduler, balancers, node1, node2; it stays dead until `start`."""
        self._order({"order": "stop", "part": part})

    def start(self, part: str) -> None:
        """Start what was stopped."""
        self._order({"order": "start", "part": part})

    def pid(self, part: str) -> int:
        """Of a part's first process; of `switch` and `node1-network` too, which hold the namespaces of the networks."""
        found = record.read(self.name)
        if found is None:
            raise RuntimeError(f"no cluster {self.name}")
        return found.parts[part].pid

    def inside(self, network_of: str, *line: str) -> list[str]:
        """The command line that runs in the network of `node1`, `node2` or `switch` (whose bridge is `nodes`)."""
        part = network_of if network_of == "switch" else f"{network_of}-network"
        return network.inside(self.pid(part), *line)

    def _order(self, order: dict[str, Any]) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DOWN_S)
            connection.connect(str(self.layout.folder / "control.sock"))
            connection.sendall(json.dumps(order).encode() + b"\n")
            answer = json.loads(connection.makefile().readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])


class Choice(NamedTuple):
    """How a cluster shall be."""

    name: str = "dev"
    size: int = 1
    is_dual: bool = False
    images: tuple[str, ...] = ()
    api_flags: tuple[str, ...] = ()
    proxy_mode: str = "nftables"


def require() -> None:
    """Raises UnavailableError saying what this machine lacks; as root, Debian's packages are installed first."""
    if os.geteuid() != 0:
        raise UnavailableError("a cluster needs root: it makes namespaces, links and control groups")
    lacking = _lacking()
    if lacking:
        script = builds.REPOSITORY / "tools" / "cluster_packages.sh"
        say(f"installing what is missing: {', '.join(lacking)}")
        done = subprocess.run(["sh", str(script)], check=False, capture_output=True, text=True, timeout=900)
        if lacking := _lacking():
            raise UnavailableError(f"missing: {', '.join(lacking)}\n{done.stdout}{done.stderr}"[-1500:])
    _require_namespaces()


def _require_namespaces() -> None:
    """A container may have root and still not be allowed to."""
    line = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--uts",
        "--fork",
        "--mount-proc",
        "mount",
        "-t",
        "tmpfs",
        "tmpfs",
        "/run",
    ]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise UnavailableError(f"this root may not make namespaces: {done.stderr.strip()}")
    if not os.access(cgroups.ROOT / ("cgroup.procs" if cgroups.is_version_2() else "cpuset/cgroup.procs"), os.W_OK):
        raise UnavailableError("control groups are read-only here")


def _lacking() -> list[str]:
    lacking = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return lacking if Path(nodes.CNI_PROGRAMS, "bridge").exists() else [*lacking, "CNI plugins"]


def up(choice: Choice, *, is_detached: bool = False) -> Cluster:
    """A cluster of that name, started now; leftovers of an earlier one are removed. Without `is_detached` it dies with the caller.

    Raises UnavailableError when this machine cannot, FileExistsError when one of that name runs, RuntimeError with the
    reason when it does not start.
    """
    require()
    kubernetes = builds.built("k")
    store = stores.store([images.archive(name) for name in (*images.OF_THE_CLUSTER, *choice.images)])
    with builds.locked(clusters() / ".lock"):
        _clear_dead(choice.name)
        layout = Layout(choice.name, record.free_slot(), choice.size, choice.is_dual)
        wishes = Wishes(str(kubernetes), str(store), list(choice.api_flags), choice.proxy_mode)
        process = _start_keeper(layout, wishes, is_detached=is_detached)
        _keepers[layout.name] = process
        _until_noted(process, layout)
    _until_ready(process, layout)
    return Cluster(layout)


def attach(name: str) -> Cluster:
    """One that runs already. Raises RuntimeError when it does not."""
    found = record.read(name)
    if found is None or not found.is_kept or found.state != record.READY:
        raise RuntimeError(f"no cluster {name} runs; there are {record.names()}")
    return Cluster(found.layout)


def down(name: str) -> bool:
    """Take one down, dead or alive; False when there is none. Raises TimeoutError when something does not go."""
    found = record.read(name)
    if found is not None:
        processes.end([found.keeper], grace_s=DOWN_S)
    if (keeper := _keepers.pop(name, None)) is not None:
        keeper.wait(timeout=DOWN_S)
    (clusters() / f"{name}.log").unlink(missing_ok=True)
    if found is None:
        return False
    if (left := record.read(name)) is not None:
        record.clear(left)
    return True


def all_names() -> Iterable[str]:
    """Clusters with a run file."""
    return record.names()


def _clear_dead(name: str) -> None:
    for other in record.names():
        found = record.read(other)
        if found is None or found.is_kept:
            continue
        say(f"removing what is left of the cluster {other}")
        record.clear(found)
    if (found := record.read(name)) is not None:
        raise FileExistsError(
            f"the cluster {name} runs already (state: {found.state}); `make cluster-down NAME={name}` ends it"
        )


def _start_keeper(layout: Layout, wishes: Wishes, *, is_detached: bool) -> subprocess.Popen[bytes]:
    shutil.rmtree(layout.folder, ignore_errors=True)
    order = json.dumps({"layout": layout, "wishes": wishes})
    line = [sys.executable, "-m", "kubelab", "keep", order]
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    if is_detached:
        log = (clusters() / f"{layout.name}.log").open("wb")
        with log:
            return subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )
    return processes.spawn(line, clusters() / f"{layout.name}.log", environment=environment, death="TERM")


def _until_noted(process: subprocess.Popen[bytes], layout: Layout) -> None:
    """The slot is claimed once the run file is there."""
    end = time.monotonic() + UP_S
    while record.read(layout.name) is None:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(_complaint(layout))
        time.sleep(STEP_S)


def _until_ready(process: subprocess.Popen[bytes], layout: Layout) -> None:
    end, said = time.monotonic() + UP_S, ""
    while True:
        found = record.read(layout.name)
        if found is not None and found.message != said:
            said = found.message
            say(f"{layout.name}: {said}")
        if found is not None and found.state == record.READY:
            return
        if process.poll() is not None or time.monotonic() > end:
            processes.end([one] if (one := processes.who(process.pid)) else [], grace_s=DOWN_S)
            complaint = _complaint(layout)
            down(layout.name)
            raise RuntimeError(complaint)
        time.sleep(STEP_S)


def _complaint(layout: Layout) -> str:
    found = record.read(layout.name)
    log = (clusters() / f"{layout.name}.log").read_text(errors="replace")[-3000:]
    return f"the cluster {layout.name} does not start: {found.message if found else ''}\n{log}"
