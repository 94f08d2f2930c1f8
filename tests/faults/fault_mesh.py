"""A mesh under constant load, and windows of it: faults happen inside a window, the load's own lines judge it.

What runs is the installed wheel, by an ordinary user; everything seen comes from outside of the product (processes, Envoy's
admin pipes, the client's own count) or from the control plane's API.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fault_rows import Line, Row, counted, is_complete
from fault_shapes import DESTINATIONS, HOST, NS, credential, crowd, gateway, load, mesh, weights
from fault_window import Window, read_lines
from local_mesh import LocalMesh, over_unix

HERE = Path(__file__).resolve().parent
PROGRAMS = ("load.py", "server.py")
SECONDS = int(os.environ.get("TULLE_FAULT_SECONDS", "60"))
RATE = float(os.environ.get("TULLE_FAULT_RATE", "500"))
LATE_S = 40.0
"""Longer than a request may take, on a machine that has much else to do."""
CALM_MS, CALM_WITHIN_S = 100.0, 40.0
Fault = Callable[["FaultMesh", "Window"], str]
"""Does it, inside a window; what it returns is the proof that it happened."""


class Outside:
    """A caller on this machine, outside of the mesh."""

    def __init__(self, found: FaultMesh, rate: float, seconds: int, ca: Path) -> None:
        url = f"https://{HOST}@127.0.0.1:{found.gateway(443)}/"
        self.out = found.control / "outside.jsonl"
        self.out.unlink(missing_ok=True)
        env = {"LOAD_TARGETS": url, "LOAD_OUT": str(self.out), "LOAD_RATE": str(rate), "LOAD_SECONDS": str(seconds)}
        python = found.installed.environment / "bin" / "python"
        self.process = subprocess.Popen(
            **found.installed.command(python, found.folder / "load.py", LOAD_CA=str(ca), **env)
        )

    def lines(self) -> list[Line]:
        """What it wrote, when it has ended."""
        assert self.process.wait(timeout=120) == 0
        return read_lines(self.out)


class FaultMesh(LocalMesh):
    """Eleven services on about six pods and the load; files that faults edit lie in `folder`."""

    def __init__(self, settings: dict[str, Any], rate: float = RATE, replicas: int = 1) -> None:
        self.rate = rate
        self.ca = _Issuer()
        certificate, key = self.ca.issue()
        folder = "@folder@"
        texts = [mesh(), crowd(replicas), weights(50), gateway(), credential(certificate, key), load(rate)]
        super().__init__(*(text.replace("@faults@", folder) for text in texts), settings=settings)

    def filled(self, text: str) -> str:
        return super().filled(text).replace("@folder@", str(self.folder))

    def __enter__(self) -> FaultMesh:
        for program in PROGRAMS:
            self.installed.file_for_user(self.folder / program, (HERE / program).read_bytes())
        self.ca_file = self.installed.file_for_user(self.folder / "front-ca.pem", self.ca.pem)
        super().__enter__()
        return self

    # --- files that faults edit --------------------------------------------------------------------------------------

    def edit(self, position: int, text: str) -> None:
        """Replace one of the manifests, as an editor does."""
        path = self.folder / f"{position:02}-manifest.yaml"
        fresh = self.folder / f".{position:02}.new"
        fresh.write_text(self.filled(text.replace("@faults@", "@folder@")))
        fresh.replace(path)

    def scale(self, replicas: int) -> None:
        """The crowd, by its file."""
        self.edit(1, crowd(replicas))

    def weigh(self, first: int) -> None:
        """The shop's versions, by its file."""
        self.edit(2, weights(first))

    def replace_certificate(self) -> str:
        """A new one for the gateway, by its file; its serial."""
        certificate, key = self.ca.issue()
        self.edit(4, credential(certificate, key))
        return f"{x509.load_pem_x509_certificate(certificate).serial_number:X}"

    def aim(self, *names: str) -> None:
        """Send the load to these services from now on."""
        self._steer(targets=[f"http://{name}:8080/" for name in names or DESTINATIONS])

    def slow_to(self, rate: float) -> None:
        """Another rate from now on."""
        self._steer(rate=rate)

    def _steer(self, **words: Any) -> None:
        path = self.control / "load.json"
        said = {**(json.loads(path.read_text()) if path.exists() else {}), **words}
        self.installed.file_for_user(path.with_suffix(".new"), json.dumps(said)).replace(path)
        time.sleep(1.5)  # the load looks once a second

    # --- the load ----------------------------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        """What the load wrote until now."""
        return read_lines(self.control / "load.jsonl")

    def warm(self, seconds: float = 60.0) -> None:
        """Until the load runs at its rate and both long streams talk."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.lines()
            if found and found[-1]["sent"] >= self.rate * 0.9 and all(one["echoes"] for one in found[-1]["streams"]):
                return
            assert time.monotonic() < deadline, f"no load: {found[-1:]} {self.app_log('load')}"
            time.sleep(0.2)

    def calm(self) -> None:
        """Wait, if not for ever, until nothing of an earlier fault is left in the load."""
        deadline = time.monotonic() + CALM_WITHIN_S
        while time.monotonic() < deadline:
            last = self.lines()[-1]
            if (
                time.time() - last["at"] < 4
                and not last["failed"]
                and sorted(last["ms"])[len(last["ms"]) // 2] < CALM_MS
            ):
                return
            time.sleep(0.5)

    def row(self, name: str, fault: Fault, seconds: int = SECONDS) -> Row:
        """One window with one fault in it."""
        self.calm()
        window = Window(seconds)
        time.sleep(max(0.0, window.begin - time.time()))
        proof = fault(self, window)
        time.sleep(max(0.0, window.end - time.time()))
        return Row(name, window.when, proof, seconds, counted(self._until(window.end), window.begin, window.end))

    def row_outside(self, name: str, fault: Fault, rate: float, seconds: int = SECONDS) -> Row:
        """The same, with the counted load coming over HTTPS from outside of the mesh; inside it goes on at a tenth."""
        self.slow_to(self.rate / 10)
        caller = Outside(self, rate, seconds + 6, self.ca_file)
        time.sleep(1.0)
        window = Window(seconds)
        proof = fault(self, window)
        time.sleep(max(0.0, window.end - time.time()))
        lines = caller.lines()
        self.slow_to(self.rate)
        row = Row(name, window.when, proof, seconds, counted(lines, window.begin, window.end))
        row.beside = counted(self._until(window.end), window.begin, window.end)
        row.proof = proof + " → ".join(serial[-6:] for serial in row.counted.serials)
        return row

    def _until(self, end: int) -> list[Line]:
        deadline = time.monotonic() + LATE_S
        while not is_complete(found := self.lines(), end):
            assert time.monotonic() < deadline, f"the load stopped writing: {self.app_log('load')}"
            time.sleep(0.2)
        return found

    # --- what is seen from outside -----------------------------------------------------------------------------------

    def app_log(self, app: str) -> str:
        """The end of what an application wrote."""
        with suppress(IndexError, FileNotFoundError):
            return (self.run / "logs" / NS / self.pod(app, NS) / "app.log").read_text(errors="replace")[-2000:]
        return ""

    def control_plane(self, path: str, method: str = "GET") -> Any:
        """An answer of the control plane's API."""
        return json.loads(over_unix(self.run / "admin.sock", method, path))

    def control_plane_pid(self) -> int:
        """Its process, as it says."""
        return int(self.control_plane("/v1/version")["pid"])

    @property
    def learned_file(self) -> Path:
        """What the control plane writes down of what workloads call; there need be none."""
        return self.installed.place / "state" / "tulle" / self.name / "learned.json"

    def learned(self) -> dict[str, set[str]]:
        """Its contents: names by workload."""
        if not self.learned_file.exists():
            return {}
        return {who: set(names) for who, names in json.loads(self.learned_file.read_text())["workloads"].items()}

    def is_served(self) -> bool:
        """Whether a control plane answers and every proxy is connected and has everything."""
        try:
            proxies = self.control_plane("/v1/proxies")["proxies"]
        except (OSError, AssertionError):
            return False
        return bool(proxies) and all(proxy["connectedAt"] and proxy["isSynced"] for proxy in proxies)

    def wait(self, what: Callable[[], bool], seconds: float, words: str) -> None:
        """Until it is so."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, words
            time.sleep(0.1)

    def sidecar_pids(self, uid: str) -> list[int]:
        """Processes that are the sidecar of a pod, from the table of processes; oldest first."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = entry.read_bytes().split(b"\0")
                if words[0].endswith(b"/envoy") and f'"POD_UID":"{uid}"'.encode() in b" ".join(words):
                    found.append(int(entry.parent.name))
        return sorted(found, key=lambda pid: Path(f"/proc/{pid}").stat().st_ctime)

    def certificates(self, uid: str) -> dict[str, set[str]]:
        """Serials at a live sidecar, from Envoy's own admin pipe: `leaf` and `roots`."""
        found: dict[str, set[str]] = {"leaf": set(), "roots": set()}
        for entry in json.loads(over_unix(self.run / "envoy" / uid / "admin.sock", "GET", "/certs"))["certificates"]:
            found["leaf"] |= {one["serial_number"] for one in entry.get("cert_chain", ())}
            found["roots"] |= {one["serial_number"] for one in entry.get("ca_cert", ())}
        return found

    def weight_at(self, app: str) -> int:
        """Percent of the shop's version 1 in the routes of a live sidecar; -1 where there are none."""
        return _weight(json.loads(over_unix(self.run / "envoy" / self.uid(app) / "admin.sock", "GET", "/config_dump")))

    def uid(self, app: str) -> str:
        """Of the first pod of an application."""
        return str(self.pods_of(app, NS)[0]["metadata"]["uid"])

    def pods_in(self, app: str) -> list[str]:
        """Names of all its pods, those that leave included."""
        return [pod["metadata"]["name"] for pod in self.pods() if pod["metadata"].get("labels", {}).get("app") == app]

    def ready_pods(self, app: str) -> list[str]:
        """Names of pods that are ready and not leaving."""
        return [
            str(pod["metadata"]["name"])
            for pod in self.pods_of(app, NS)
            if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
        ]


def _weight(found: Any) -> int:
    """The weight of the shop's first subset, somewhere in a dump."""
    if isinstance(found, dict):
        if str(found.get("name", "")).startswith("outbound|8080|v1|shop.") and "weight" in found:
            return int(found["weight"])
        found = list(found.values())
    if isinstance(found, list):
        return max((_weight(one) for one in found), default=-1)
    return -1


class _Issuer:
    """The gateway's own CA: nothing to do with the mesh's."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "faults test CA")])
        self._certificate = self._signed(self._name, self._key.public_key(), is_ca=True)

    @property
    def pem(self) -> bytes:
        """The root."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self) -> tuple[bytes, bytes]:
        """A certificate for the gateway and its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        certificate = self._signed(subject, key.public_key(), is_ca=False)
        return (
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if is_ca:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        else:
            names = x509.SubjectAlternativeName([x509.DNSName(HOST)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def told(rows: Sequence[Row], text: str) -> None:
    """Print the table, and keep it for whoever reads it later."""
    print(f"\n{text}\n")
    kept = Path(os.environ.get("TULLE_FAULT_TABLE", tempfile.gettempdir() + f"/tulle-faults-{os.getpid()}.txt"))
    kept.write_text(text + "\n")


__all__ = ["NS", "RATE", "SECONDS", "FaultMesh", "Row", "Window", "told"]
