"""A mesh of the tests' own: `tulle up` as an ordinary user, everything through the command a user has.

    with LocalMesh(manifest(...)) as mesh:
        mesh.client("caller").http("echo", n=2000).share("200 v1")

Must not import tulle: what runs is the installed wheel.
"""

import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clients import Client
from installed import Installed, installed

Problem = dict[str, Any]
READY_SECONDS = 90.0
SETTINGS = "TULLE_TEST_SETTINGS"
"""Settings of every mesh that says nothing else, JSON: to run the same tests in another mode (`{"discovery": "on-demand"}`)."""
LABEL = re.compile(r'(\w+)="([^"]*)"')


def over_unix(path: Path, method: str, target: str, body: Any = None) -> str:
    """The body of an HTTP answer over a Unix socket; fails unless it is 200."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    try:
        connection.sock.connect(str(path))
        connection.request(method, target, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, f"{target}: {answer.status} {text}"
        return text
    finally:
        connection.close()


class LocalMesh:
    """One mesh; its manifests are a folder of its own, `apply` adds to it."""

    def __init__(
        self,
        *manifests: str | Path,
        settings: dict[str, Any] | None = None,
        images: dict[str, Sequence[str]] | None = None,
        resolver: str = "",
    ) -> None:
        """A text is a manifest with `@programs@` and `@control@` filled in; a path is a file taken as it is.

        `resolver` (address:port) stands for this machine's resolvers.
        """
        self.installed: Installed = installed()
        self.name = f"t{secrets.token_hex(4)}"
        self.folder = self.installed.place / "meshes" / self.name
        self.control = self.installed.place / "control" / self.name
        self.run = self.installed.place / "run" / "tulle" / self.name
        self._manifests = [*manifests]
        self._environ = {"TULLE_RESOLVERS": resolver} if resolver else {}
        self._settings = {"accessLog": "all", **json.loads(os.environ.get(SETTINGS, "{}")), **(settings or {})}
        self._images = images or {}
        self._applied = 0
        self._host: subprocess.Popen[bytes] | None = None

    @property
    def is_on_demand(self) -> bool:
        """Whether its sidecars ask for what they call."""
        return self._settings.get("discovery", "on-demand") == "on-demand"

    def add(self, manifest: str) -> None:
        """One more manifest, before the start."""
        self._manifests.append(manifest)

    # --- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "LocalMesh":
        self.installed.directory_for_user(self.control)
        self.installed.directory_for_user(self.folder)
        for number, manifest in enumerate(self._manifests):
            content = manifest.read_bytes() if isinstance(manifest, Path) else self.filled(manifest).encode()
            name = manifest.name if isinstance(manifest, Path) else "manifest.yaml"
            self.installed.file_for_user(self.folder / f"{number:02}-{name}", content)
        if self._images:
            images = {image: [self.filled(word) for word in command] for image, command in self._images.items()}
            self.installed.file_for_user(self.folder / "tulle.yaml", json.dumps({"images": images}))
        try:
            words = ("--name", self.name, "--detach", "--timeout", str(READY_SECONDS))
            done = self.tulle("up", self.folder, *self._up_settings(), *words, check=False, timeout=READY_SECONDS + 15)
            assert not self.unready(), f"{done.stdout}{done.stderr}\n{self.evidence()}"
        except BaseException:
            self._down()
            raise
        return self

    def _up_settings(self) -> list[str | Path]:
        if not self._settings:
            return []
        path = self.installed.file_for_user(
            self.installed.place / "meshes" / f"{self.name}.json", json.dumps(self._settings)
        )
        return ["--settings", path]

    def __exit__(self, *_: object) -> None:
        if self._host is not None:
            self._host.terminate()
            self._host.wait()
        self._down()

    def _down(self) -> None:
        done = self.tulle("down", "--name", self.name, check=False, timeout=30)
        if done.returncode and self.supervisor_pid:
            with suppress(ProcessLookupError):
                os.kill(self.supervisor_pid, signal.SIGKILL)

    @property
    def supervisor_pid(self) -> int:
        """Process of the supervisor; 0 where none runs."""
        path = self.run / "mesh.json"
        return int(json.loads(path.read_text())["pid"]) if path.exists() else 0

    # --- commands ----------------------------------------------------------------------------------------------------

    def filled(self, text: str) -> str:
        """A manifest with the places of this machine."""
        places = {"@programs@": self.installed.programs, "@control@": self.control}
        for word, path in places.items():
            text = text.replace(word, str(path))
        return text

    def tulle(
        self, *words: str | Path, check: bool = True, timeout: float = 60.0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of the product, for this mesh."""
        started = self.installed.command(
            self.installed.environment / "bin" / "tulle", *words, TULLE_MESH=self.name, **self._environ
        )
        done = subprocess.run(
            **started, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, errors="replace"
        )
        if check:
            assert done.returncode == 0, (
                f"tulle {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def apply(self, manifest: str | Path, name: str = "", *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`tulle apply -f`: returns when every affected proxy has it."""
        if isinstance(manifest, str):
            self._applied += 1
            path = self.installed.place / "meshes" / f"{self.name}-applied" / (name or f"edit{self._applied}.yaml")
            manifest = self.installed.file_for_user(path, self.filled(manifest))
        else:
            path = self.installed.place / "meshes" / f"{self.name}-applied" / manifest.name
            manifest = self.installed.file_for_user(path, manifest.read_bytes())
        return self.tulle("apply", "-f", manifest, check=check)

    def delete(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`tulle delete KIND NAME -n NAMESPACE`."""
        return self.tulle("delete", *words, check=check)

    def exec(
        self, pod: str, *command: str, ns: str = "default", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A command inside a workload's sandbox."""
        return self.tulle("exec", "-n", ns, self.pod(pod, ns), "--", *command, check=check)

    # --- who runs ----------------------------------------------------------------------------------------------------

    def pods(self) -> list[dict[str, Any]]:
        """Every Pod as the control plane sees it."""
        items = json.loads((self.run / "runtime.json").read_text())["items"]
        return [item for item in items if item["kind"] == "Pod"]

    def pods_of(self, app: str, ns: str = "default") -> list[dict[str, Any]]:
        """Pods that live, by their label `app`."""
        return [
            pod
            for pod in self.pods()
            if pod["metadata"]["namespace"] == ns
            and pod["metadata"].get("labels", {}).get("app") == app
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def pod(self, app: str, ns: str = "default") -> str:
        """Name of the first pod of an application."""
        return str(self.pods_of(app, ns)[0]["metadata"]["name"])

    def address(self, app: str, ns: str = "default") -> str:
        """Its IP address."""
        return str(self.pods_of(app, ns)[0]["status"]["podIP"])

    def cluster_ip(self, name: str, ns: str = "default") -> str:
        """Address of a Service."""
        items = json.loads((self.run / "runtime.json").read_text())["items"]
        for item in items:
            if item["kind"] == "Service" and (item["metadata"]["name"], item["metadata"]["namespace"]) == (name, ns):
                return str(item["spec"]["clusterIP"])
        raise KeyError(name)

    def gateway(self, port: int = 80) -> int:
        """The port of this machine that a port of the ingress gateway is published at."""
        described = json.loads((self.run / "mesh.json").read_text())
        for published in described["ports"]:
            if published["port"] == port:
                return int(published["hostPort"])
        raise KeyError(f"{port}: {described}")

    def client(self, name: str) -> Client:
        """A resident client (`shapes.client`)."""
        return Client(self.control / f"{name}.sock").wait()

    @property
    def outside(self) -> Client:
        """A client on this machine, outside the mesh."""
        path = self.control / "outside.sock"
        if self._host is None:
            program = self.installed.programs / "requester.py"
            self._host = subprocess.Popen(
                **self.installed.command(self.installed.environment / "bin" / "python", program, path)
            )
        return Client(path).wait()

    def unready(self) -> list[str]:
        """Pods that are not ready; all of them where nothing runs."""
        if not (self.run / "runtime.json").exists():
            return ["nothing runs"]
        states = {pod["metadata"]["name"]: pod["status"].get("conditions", []) for pod in self.pods()}
        return [
            name
            for name, conditions in states.items()
            if not any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        ]

    def evidence(self) -> str:
        """What the logs of everything end with."""
        logs = sorted((self.run / "logs").rglob("*.log"))
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)

    # --- what they say ----------------------------------------------------------------------------------------------

    def log(self, app: str, ns: str = "default", name: str = "proxy") -> list[dict[str, Any]]:
        """JSON lines of the access logs of an application's pods."""
        found = []
        for pod in self.pods_of(app, ns):
            path = self.run / "logs" / ns / pod["metadata"]["name"] / f"{name}.log"
            for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
                with suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def logged(self, app: str, ns: str = "default", seconds: float = 10.0, **expected: Any) -> dict[str, Any]:
        """Wait for an access log line with these fields; the last of them."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.log(app, ns)
            for line in reversed(lines):
                if all(line.get(name) == value for name, value in expected.items()):
                    return line
            assert time.monotonic() < deadline, f"no line of {app} with {expected}; the last: {lines[-3:]}"
            time.sleep(0.2)

    def admin(self, app: str, path: str, ns: str = "default") -> str:
        """An answer of a sidecar's admin pipe."""
        (pod,) = self.pods_of(app, ns)[:1]
        pipe = self.run / "envoy" / pod["metadata"]["uid"] / "admin.sock"
        return over_unix(pipe, "GET", path)

    def metrics(
        self, app: str, ns: str = "default", name: str = "istio_requests_total"
    ) -> Iterator[tuple[dict[str, str], float]]:
        """Samples of one metric at a sidecar: labels, value."""
        (pod,) = self.pods_of(app, ns)[:1]
        whose = {"pod": pod["metadata"]["name"], "namespace": ns}
        noted = self.run / "metrics-port"
        self.wait_for(noted.exists, "the mesh's metrics")
        port = int(noted.read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            exposed = answer.read().decode()
        for line in exposed.splitlines():
            if line.startswith(f"{name}{{"):
                labels, _, value = line.removeprefix(f"{name}{{").rpartition("} ")
                found = dict(LABEL.findall(labels))
                if whose.items() <= found.items():
                    yield {label: text for label, text in found.items() if label not in whose}, float(value)

    def wait_for(self, is_so: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        """Ask again and again until it is so."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.1)

    def logged_with(self, app: str, text: str, ns: str = "default", seconds: float = 10.0) -> dict[str, Any]:
        """Wait for an access log line in which a text stands; the last of them."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [line for line in self.log(app, ns) if text in json.dumps(line)]
            return bool(found)

        self.wait_for(is_there, f"{text} in the log of {app}", seconds)
        return found[-1]
