"""The mesh of the hostile workload, and where everything it must not reach lies."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from certificates import self_signed
from local_mesh import LocalMesh
from shapes import Object, account, client, deployment, manifest, namespace, port, service

HERE = Path(__file__).resolve().parent
NS = "hostile"
FORGED = "crown-prince"
PROGRAMS = (HERE / "intruder.py", HERE / "board.py", HERE.parent / "local" / "fabric" / "programs.py")
TREASURE = base64.b32encode(os.urandom(20)).decode()
"""Only the vault has it."""


def mesh() -> str:
    """Vault, board, friend and intruder, each with an account of its own."""
    accounts = ("vault", "board", "friend", "intruder", "outlaw")
    strict = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": NS},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    friends = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "friends-only", "namespace": NS},
        "spec": {
            "selector": {"matchLabels": {"app": "vault"}},
            "rules": [{"from": [{"source": {"principals": [f"cluster.local/ns/{NS}/sa/friend"]}}]}],
        },
    }
    outlaw = _runs("outlaw", "intruder.py", "/lair", "outlaw", volumes={"/lair": "@control@/lair"})
    outlaw["spec"]["template"]["metadata"]["annotations"]["sidecar.istio.io/inject"] = "false"
    board = _runs("board", "board.py")
    # a sidecar that relays believes nothing, and says nothing: one that parses is to be lied to
    board["spec"]["template"]["metadata"]["annotations"]["tulle.dev/depth"] = "full"
    return manifest(
        namespace(NS),
        *(account(name, NS) for name in accounts),
        strict,
        friends,
        service("vault", NS, {"app": "vault"}, port("http", 8080)),
        service("board", NS, {"app": "board"}, port("http", 8080)),
        _mounting(_runs("vault", "board.py", "/treasure/word"), "treasure"),
        board,
        client("friend", NS, runs_as="friend"),
        _mounting(_runs("intruder", "intruder.py", "/lair", volumes={"/lair": "@control@/lair"}), "own"),
        outlaw,
    )


def secrets(word: str = TREASURE) -> str:
    """What only the vault may read, and what the intruder may."""
    found = {"treasure": word, "own": "its own word"}
    return manifest(
        *(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": NS},
                "stringData": {"word": text},
            }
            for name, text in found.items()
        )
    )


def _runs(name: str, program: str, *arguments: str, volumes: dict[str, str] | None = None) -> Object:
    ports = (8080,) if program == "board.py" else ()
    command = ["python", f"@folder@/{program}", *arguments]
    return deployment(name, NS, {"app": name, "version": "v1"}, command, *ports, runs_as=name, volumes=volumes)


def _mounting(found: Object, secret: str) -> Object:
    """The same, with a Secret below the directory of its name."""
    pod = found["spec"]["template"]["spec"]
    pod.setdefault("volumes", []).append({"name": secret, "secret": {"secretName": secret}})
    mounts = pod["containers"][0].setdefault("volumeMounts", [])
    mounts.append({"name": secret, "mountPath": f"/{secret}"})
    return found


class HostileMesh(LocalMesh):
    """Starts it, tells the intruder where everything is, waits for what it got."""

    def __init__(self) -> None:
        # a sidecar that holds everything speaks mTLS to pod addresses too: more ways to try than one on demand has
        super().__init__(mesh(), secrets(), settings={"discovery": "full"})
        self.lair = self.control / "lair"
        self.xds_ports = [_free_port(), _free_port()]
        """Without and with TLS, on the loopback of the host."""
        self._listening: list[socket.socket] = []

    def _up_settings(self) -> list[str | Path]:
        plain, tls = (f"127.0.0.1:{port}" for port in self.xds_ports)
        return [*super()._up_settings(), "--xds-plaintext", plain, "--xds-tls", tls]

    def filled(self, text: str) -> str:
        return super().filled(text).replace("@folder@", str(self.folder))

    def __enter__(self) -> HostileMesh:
        self.installed.directory_for_user(self.lair)
        for program in PROGRAMS:
            self.installed.file_for_user(self.folder / program.name, program.read_bytes())
        super().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        for one in self._listening:
            one.close()
        super().__exit__(*exc)

    def outcomes(self, seconds: float = 180.0) -> dict[str, str]:
        """Attempt -> what became of it."""
        self._hide_treasure_again()
        self.installed.file_for_user(self.lair / ".aims", json.dumps(self.aims())).rename(self.lair / "aims.json")
        found: dict[str, str] = {}
        deadline = time.monotonic() + seconds
        for who in ("intruder", "outlaw"):
            path = self.lair / f"{who}.json"
            while not path.exists():
                assert time.monotonic() < deadline, self.said(who)
                assert "Traceback" not in self.said(who), self.said(who)
                time.sleep(0.1)
            found |= json.loads(path.read_text())
        return found

    def said(self, app: str) -> str:
        """The end of an application's log."""
        with suppress(IndexError, FileNotFoundError):
            return (self.run / "logs" / NS / self.pod(app, NS) / "app.log").read_text(errors="replace")[-3000:]
        return ""

    def _hide_treasure_again(self) -> None:
        """An editor replaces files by renaming; another file comes later. Neither may show a Secret to a workload."""
        fresh = self.folder / ".fresh"
        fresh.write_text(secrets())
        fresh.replace(self.folder / "01-manifest.yaml")
        (self.folder / "02-later.yaml").write_text(secrets().replace('"name": "', '"name": "later-'))
        time.sleep(1.0)

    def aims(self) -> dict[str, Any]:
        """Everything worth trying, as the host sees it: the intruder could not know half of it."""
        mine = str(self.pods_of("intruder", NS)[0]["metadata"]["uid"])
        others = [str(pod["metadata"]["uid"]) for pod in self.pods() if pod["metadata"]["uid"] != mine]
        state = self.installed.place / "state" / "tulle"
        certificate, key = self_signed("friend", uri=f"spiffe://cluster.local/ns/{NS}/sa/friend")
        self.installed.file_for_user(self.lair / "self-made.pem", certificate + key)
        named, abstract, loopback = self._host_listeners()
        aims: dict[str, Any] = {
            "treasure": TREASURE,
            "forged": FORGED,
            "forged_peer": f"spiffe://cluster.local/ns/{NS}/sa/intruder;workload={FORGED};namespace={FORGED};"
            f"app={FORGED};version={FORGED};canonical={FORGED};revision={FORGED};cluster={FORGED};",
            "certificate": "/lair/self-made.pem",
            "ca_files": _files(state / self.name / "ca"),
            "state": [str(state), str(state / self.name), str(self.installed.place / "state")],
            "run": [str(self.run), str(self.run.parent), str(self.run / "runtime.json"), str(self.run / "mesh.json")],
            "pod_files": [str(self.run / "pods" / uid) for uid in others],
            "log_files": _files(self.run / "logs"),
            "secret_files": [path for path in _files(self.run / "pods") if mine not in path],
            "manifests": [str(path) for path in sorted(self.folder.glob("*.yaml"))],
            "control_socket": str(self.run / "admin.sock"),
            "supervisor_socket": str(self.run / "supervisor.sock"),
            "other_xds": [str(self.run / "xds" / uid / "xds.sock") for uid in others],
            "own_xds": [str(self.run / "xds" / mine / "xds.sock"), "/run/tulle/xds/xds.sock"],
            "envoy_sockets": [*map(str, self.run.glob("envoy/*/*")), "/run/tulle/envoy/admin.sock"],
            "edge_sockets": [*map(str, self.run.glob("edge/*.sock")), "/run/tulle/edge/out.sock"],
            "named": named,
            "abstract": abstract,
            "host_port": loopback,
            "xds_ports": self.xds_ports,
            "sidecar_pids": self.envoy_pids(mine),
            "vault_ip": self.address("vault", NS),
            "vault_vip": self.cluster_ip("vault", NS),
            "board_ip": self.address("board", NS),
            "friend_ip": self.address("friend", NS),
        }
        assert all(aims.values()), {name: value for name, value in aims.items() if not value}
        aims["sandbox"] = {
            "state": str(state),
            "named": named[0],
            "abstract": abstract,
            "host_port": loopback,
            "host_pid": aims["sidecar_pids"][0],
            "peer": aims["vault_ip"],
            "manifests": str(self.folder),
        }
        return aims

    def envoy_pids(self, uid: str) -> list[int]:
        """Processes of one pod's sidecar, from the table of processes."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = entry.read_bytes().split(b"\0")
                if words[0].endswith(b"/envoy") and f'"POD_UID":"{uid}"'.encode() in b" ".join(words):
                    found.append(int(entry.parent.name))
        return found

    def _host_listeners(self) -> tuple[list[str], str, int]:
        """Sockets of the host, open to everybody on it: by name in several places, abstract, and on the loopback."""
        places = [self.control / "host.sock", Path(f"/tmp/{self.name}.sock"), Path(f"/var/tmp/{self.name}.sock")]
        for place in places:
            made = socket.socket(socket.AF_UNIX)
            made.bind(str(place))
            place.chmod(0o777)
            self._listening.append(made)
        made = socket.socket(socket.AF_UNIX)
        made.bind(f"\0{self.name}")
        self._listening.append(made)
        loopback = socket.create_server(("127.0.0.1", 0))
        self._listening.append(loopback)
        for one in self._listening:
            one.listen()
        return [str(place) for place in places], self.name, int(loopback.getsockname()[1])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _files(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]
