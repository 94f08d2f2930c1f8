"""What a sidecar costs a pod in a real cluster: memory of sidecars and control plane, and the time from scheduled to ready.

Needs a cluster with tulle in it whose processes run on this machine (`make cluster IMAGES=all`, `tulle install`; KUBECONFIG says which).
The same small pods are made in a namespace without injection and then in one with it: some one after the other, which is what
a pod waits for, then the rest at once, which is what the machine carries. Ready and scheduled are timed by a watch in this process.
Memory is PSS (what is shared counts by shares) as the kernel says, a while after the last pod was ready.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.building import CannotMeasureError
from bench.figures import median, percentile, rounded
from bench.machine import kilobytes
from bench.results import Recorder, Row, table
from tulle.kube.access import Access
from tulle.kube.errors import KubeError, Refused

NAME = "pod-cost"
SPACES = {"without": "tulle-cost-without", "with": "tulle-cost-with"}
SYSTEM = "tulle-system"
HEAD = (
    "sidecar",
    "pods",
    "ready ms, one by one",
    "most",
    "all at once s",
    "sidecar PSS MiB",
    "private",
    "control plane PSS MiB",
    "containers",
)
_IMAGE = "docker.io/tulle/echo:dev"
_FEW = 10
_PATIENCE_S = 600.0
_SETTLE_S = 8.0
_POLL_S = 0.5
_SIDECAR, _PLANE = b"/usr/local/bin/envoy", b"tulle.app.cluster"
Json = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command line."""
    parser.add_argument("--pods", type=int, default=50)
    parser.add_argument("--image", default=_IMAGE, help="of a server on 8080 that is there on the nodes")
    parser.add_argument("--kubeconfig", type=Path, default=None)


def run(given: argparse.Namespace) -> list[Row]:
    """Both ways. Raises CannotMeasureError."""
    path = given.kubeconfig or Path(os.environ.get("KUBECONFIG", ""))
    if not path.is_file():
        raise CannotMeasureError("KUBECONFIG names no file: `make cluster` prints one")
    try:
        return asyncio.run(_both(path, given.pods, given.image))
    except KubeError as error:
        raise CannotMeasureError(str(error)) from error


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    return table(HEAD, map(cells, rows))


def cells(row: Row) -> tuple[object, ...]:
    """A line of the table."""
    single, memory = row["oneByOneMs"], row["memoryMib"]
    return (
        row["key"]["sidecar"],
        row["key"]["pods"],
        round(median(single)),
        round(max(single)),
        row["allAtOnceSeconds"],
        memory.get("sidecarPss", "-"),
        memory.get("sidecarPrivate", "-"),
        memory["controlPlanePss"],
        ", ".join(row["containers"]),
    )


async def _both(kubeconfig: Path, pods: int, image: str) -> list[Row]:
    recorder = Recorder()
    rows = []
    async with Access.from_kubeconfig(kubeconfig) as access:
        for way, space in SPACES.items():
            async with _space(access, space, is_injected=way == "with"):
                found = await _measured(access, space, pods, image)
                rows.append(recorder.row({"sidecar": way, "pods": pods}, found))
    return rows


async def _measured(access: Access, space: str, pods: int, image: str) -> Json:
    watched = Watched(access, space)
    watching = asyncio.create_task(watched.run())
    try:
        few = min(_FEW, pods)
        for number in range(few):
            await _make(access, space, number, image)
            await watched.until(number + 1)
        began = time.monotonic()
        await asyncio.gather(*(_make(access, space, number, image) for number in range(few, pods)))
        await watched.until(pods)
        took = time.monotonic() - began
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    await asyncio.sleep(_SETTLE_S)
    times = [round((watched.ready[name] - watched.scheduled[name]) * 1000) for name in sorted(watched.ready)]
    made = json.loads(await access.get(f"/api/v1/namespaces/{space}/pods/p-000"))["spec"]
    replicas = await access.get(f"/api/v1/namespaces/{SYSTEM}/pods", {"labelSelector": "app=tulled"})
    planes = [one["metadata"]["name"] for one in json.loads(replicas)["items"]]
    return {
        "oneByOneMs": times[:few],
        "allAtOnceSeconds": rounded(took),
        "allAtOnceMs": {"p50": round(median(times[few:])), "p99": round(percentile(times[few:], 0.99))}
        if pods > few
        else {},
        "memoryMib": _memory(space, pods, planes),
        "containers": [one["name"] for one in (*made.get("initContainers", ()), *made["containers"])],
    }


class Watched:
    """When each pod of a namespace was first seen scheduled, and ready."""

    def __init__(self, access: Access, space: str) -> None:
        self._access, self._space = access, space
        self.scheduled: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled; a watch that ends is opened again."""
        while True:
            query = {"watch": "true", "timeoutSeconds": "300"}
            async with self._access.stream(f"/api/v1/namespaces/{self._space}/pods", query) as pieces:
                async for line in _lines(pieces):
                    self._take(json.loads(line)["object"], time.monotonic())

    async def until(self, count: int) -> None:
        """Wait for so many. Raises CannotMeasureError when they do not come."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while len(self.ready) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise CannotMeasureError(f"{len(self.ready)} of {count} pods are ready after {_PATIENCE_S:.0f} s") from None

    def _take(self, pod: Json, now: float) -> None:
        for condition in pod["status"].get("conditions", ()):
            if condition["status"] == "True" and condition["type"] in ("PodScheduled", "Ready"):
                seen = self.scheduled if condition["type"] == "PodScheduled" else self.ready
                seen.setdefault(pod["metadata"]["name"], now)
                self._changed.set()


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    tail = b""
    async for piece in pieces:
        *whole, tail = (tail + piece).split(b"\n")
        for line in whole:
            if line:
                yield line


@asynccontextmanager
async def _space(access: Access, name: str, *, is_injected: bool) -> AsyncIterator[None]:
    """A namespace that goes away with its pods."""
    labels = {"istio-injection": "enabled" if is_injected else "disabled"}
    await _post(access, "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    try:
        await _until_account(access, name)
        yield
    finally:
        await access.send("DELETE", f"/api/v1/namespaces/{name}")
        for _ in range(round(_PATIENCE_S / _POLL_S)):
            if await access.read(f"/api/v1/namespaces/{name}") is None:
                break
            await asyncio.sleep(_POLL_S)


async def _until_account(access: Access, space: str) -> None:
    """Pods are refused until the namespace has its account; sidecars wait for their trust root."""
    end = time.monotonic() + _PATIENCE_S
    while await access.read(f"/api/v1/namespaces/{space}/serviceaccounts/default") is None:
        if time.monotonic() > end:
            raise CannotMeasureError(f"the namespace {space} gets no account")
        await asyncio.sleep(_POLL_S)
    await asyncio.sleep(_SETTLE_S)


async def _make(access: Access, space: str, number: int, image: str) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    container = {"name": "echo", "image": image, "ports": [{"containerPort": 8080}], "readinessProbe": probe}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    await _post(
        access,
        f"/api/v1/namespaces/{space}/pods",
        {"metadata": {"name": f"p-{number:03}", "labels": {"app": "p"}}, "spec": spec},
    )


async def _post(access: Access, path: str, document: Json) -> None:
    try:
        await access.send("POST", path, body=json.dumps(document).encode())
    except Refused as refused:
        raise CannotMeasureError(f"{path}: {refused}") from refused


def _memory(space: str, pods: int, replicas: Sequence[str]) -> dict[str, float]:
    """MiB: the middle of the sidecars' PSS and private memory, and PSS of the control plane's processes together."""
    sidecars = [_pss(pid) for pid in processes(_SIDECAR, "TULLE_NAMESPACE", space)]
    # by name: other clusters of this machine have control planes, too
    planes = [_pss(pid) for name in replicas for pid in processes(_PLANE, "POD_NAME", name)]
    if not planes:
        raise CannotMeasureError(f"no control plane of {SYSTEM} runs on this machine")
    found = {"controlPlanePss": rounded(sum(pss for pss, _ in planes)), "replicas": float(len(planes))}
    if sidecars:
        if len(sidecars) != pods:
            raise CannotMeasureError(f"{len(sidecars)} sidecars run here, not {pods}")
        found["sidecarPss"] = rounded(median([pss for pss, _ in sidecars]))
        found["sidecarPrivate"] = rounded(median([private for _, private in sidecars]))
        found["sidecarsPssTogether"] = rounded(sum(pss for pss, _ in sidecars))
    return found


def processes(program: bytes, variable: str, value: str) -> Iterator[int]:
    """Processes of this machine, whatever their namespaces, whose command line and environment say so."""
    wanted = f"{variable}={value}".encode()
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal():
            continue
        try:
            line, environment = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue  # it ended
        if program in line and wanted in environment.split(b"\0"):
            yield int(path.name)


def _pss(pid: int) -> tuple[float, float]:
    found = kilobytes(Path(f"/proc/{pid}/smaps_rollup"))
    return found["Pss"] / 1024, (found["Private_Clean"] + found["Private_Dirty"]) / 1024
