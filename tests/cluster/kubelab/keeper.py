"""The process that owns one cluster: starts everything, starts again what ends, takes it down on SIGTERM.

All processes of the cluster are its children and die with it, whatever kills it. One thread only: the kernel ties a child's
death to the thread that started it. Orders (stop and start a part) come as JSON lines over `control.sock`.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from . import certificates, cgroups, control, network, nodes, processes, record, stores
from .api import Api
from .layout import DOMAIN, Layout, Node
from .processes import Started, spawn

READY_S = 240.0  # 10 on idle cores
STEP_S = 0.05
LOOK_S = 0.5
MOST_RESTARTS = 20
OBJECTS = Path(__file__).parent / "objects"


class StoppedError(Exception):
    """SIGTERM or SIGINT: take everything down."""


class Wishes(NamedTuple):
    """What the caller chose."""

    kubernetes: str
    store: str
    api_flags: list[str]
    proxy_mode: str


class Keeper:
    """One cluster, from nothing to nothing."""

    def __init__(self, layout: Layout, wishes: Wishes) -> None:
        self.layout, self.wishes = layout, wishes
        self.kubernetes = Path(wishes.kubernetes)
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: set[str] = set()
        self.restarts = 0
        self.state, self.message = record.STARTING, ""

    def run(self) -> None:
        """Until told to stop; then nothing is left. Raises what went wrong, after the same."""
        try:
            self._start()
            self._serve()
        except StoppedError:
            return
        except BaseException as error:
            self._note(f"{type(error).__name__}: {error}", record.FAILED)
            raise
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            self._end()

    def _note(self, message: str, state: str | None = None) -> None:
        self.message, self.state = message, state or self.state
        keeper = processes.who(os.getpid()) or Started(os.getpid(), 0)
        pairs = {name: processes.who(process.pid) for name, process in self.parts.items()}
        parts = {name: pair for name, pair in pairs.items() if pair is not None}
        record.write(record.Record(self.layout, keeper, self.state, message, parts))

    # ---- up

    def _start(self) -> None:
        layout = self.layout
        began = time.monotonic()
        self._note("networks and keys")
        certificates.write_all(layout)
        self._hold_networks()
        for part in control.PARTS[:1]:
            self._start_part(part)
        for node in layout.nodes:
            cgroups.create(node.cgroup)
            stores.link(Path(self.wishes.store), nodes.folder_of(layout, node) / "containerd")
            self._start_part(node.name)
        self._note("the API")
        api = Api(layout)
        self._until("the API answers", lambda: api.get("/readyz") == "ok", "server")
        for part in control.PARTS[1:]:
            self._start_part(part)
        self._apply_names()
        self._note("nodes")
        self._until("nodes are ready", lambda: api.ready_nodes() == layout.size, "node1")
        self._until("names are served", api.serves_names, "node1")
        self._note(f"ready after {time.monotonic() - began:.1f} s", record.READY)

    def _hold_networks(self) -> None:
        log = self.layout.logs / "networks.log"
        for name in ("switch", *(f"{node.name}-network" for node in self.layout.nodes)):
            self.parts[name] = network.hold(log)
        self._note("networks")
        holders = [self._network(node) for node in self.layout.nodes]
        network.build(self.layout, self.parts["switch"].pid, holders)

    def _network(self, node: Node) -> int:
        return self.parts[f"{node.name}-network"].pid

    def _start_part(self, name: str) -> None:
        layout = self.layout
        found = [node for node in layout.nodes if node.name == name]
        if found:
            self.parts[name] = self._spawn_node(found[0])
        else:
            line = control.line(layout, name, self.kubernetes, self.wishes.api_flags)
            line = network.inside(self._network(layout.nodes[0]), *line)
            log = layout.logs / f"{name}.log"
            self.parts[name] = spawn(line, log, environment=control.environment(layout))
        self.stopped.discard(name)
        self._note(self.message)

    def _spawn_node(self, node: Node) -> subprocess.Popen[bytes]:
        first = nodes.prepare(self.layout, node, kubernetes=self.kubernetes, proxy_mode=self.wishes.proxy_mode)
        apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", str(first)]
        line = network.inside(self._network(node), *apart)
        return spawn(line, self.layout.logs / f"{node.name}.log")

    def _apply_names(self) -> None:
        text = (OBJECTS / "coredns.yaml").read_text()
        text = text.replace("$DNS", self.layout.dns).replace("$DOMAIN", DOMAIN)
        line = [str(self.kubernetes), "kubectl", f"--kubeconfig={self.layout.kubeconfig}", "apply", "-f", "-"]
        done = subprocess.run(line, input=text, check=False, capture_output=True, text=True, timeout=READY_S)
        if done.returncode != 0:
            raise RuntimeError(f"CoreDNS: {done.stderr}")

    def _until(self, what: str, is_so: Callable[[], bool], log: str) -> None:
        end = time.monotonic() + READY_S
        while not is_so():
            if time.monotonic() > end:
                file = self.layout.logs / f"{log}.log"
                tail = file.read_text(errors="replace")[-2000:] if file.exists() else ""
                raise TimeoutError(f"not within {READY_S:.0f} s: {what}\n{tail}")
            self._look()
            time.sleep(STEP_S)

    # ---- while it runs

    def _serve(self) -> None:
        path = self.layout.folder / "control.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            while True:
                readable, _, _ = select.select([listener], [], [], LOOK_S)
                self._look()
                if readable:
                    connection, _ = listener.accept()
                    with connection:
                        self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(LOOK_S)
        try:
            order = json.loads(connection.makefile().readline())
            answer = self._obey(order)
        except (OSError, ValueError, KeyError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        try:
            connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError as error:
            print(f"who asked is gone: {error}", file=sys.stderr)

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        part = order["part"]
        if part not in self.parts:
            return {"error": f"no such part; there are {sorted(self.parts)}"}
        if order["order"] == "stop":
            self.stopped.add(part)
            self.parts[part].send_signal(order.get("signal", signal.SIGKILL))
            self.parts[part].wait(timeout=order.get("limitSeconds", 30))
        elif order["order"] == "start" and part in self.stopped:
            self._start_part(part)
        return {"pid": self.parts[part].pid}

    def _look(self) -> None:
        """Start again what ended by itself."""
        for name, process in list(self.parts.items()):
            if process.poll() is None or name in self.stopped:
                continue
            self.restarts += 1
            if self.restarts > MOST_RESTARTS or name.endswith(("network", "switch")):
                raise RuntimeError(f"{name} ended with {process.returncode}; see {self.layout.logs}")
            print(f"{name} ended with {process.returncode}: again", file=sys.stderr, flush=True)
            self._start_part(name)

    # ---- down

    def _end(self) -> None:
        alive = [found for process in self.parts.values() if (found := processes.who(process.pid)) is not None]
        processes.end(alive, grace_s=0.0)
        for process in self.parts.values():
            process.wait()
        if self.state == record.FAILED:
            kept = self.layout.folder.with_name(f"{self.layout.name}-failed")
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.layout.logs, kept)
            return  # the caller reads why, then clears
        written = record.read(self.layout.name)
        if written is not None:
            record.clear(written)


def keep(layout: Layout, wishes: Wishes) -> None:
    """Run a cluster until a signal says otherwise."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise StoppedError

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    Keeper(layout, wishes).run()
