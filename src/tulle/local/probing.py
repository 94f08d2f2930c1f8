"""Asking a container how it is: HTTP, TCP and command probes, from inside its pod.

A probe connects from the pod to its own address and so meets the workload, not its sidecar, as kubelet's probes do
once Istio has rewritten them. How results are counted is `supervision`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tulle.local.asking import ask_on
from tulle.local.fabric.client import Command, Fabric, FabricError, Process
from tulle.local.manifests import Container, Exec, HttpGet, Probe
from tulle.local.published import named_port

_FIRST_PAUSE: Final = 0.05
_GROWTH: Final = 1.5
_MAX_EXEC_WORDS: Final = 200


@dataclass(frozen=True)
class Patient:
    """A running container."""

    fabric: Fabric
    pod: str
    """As the fabric names it."""
    ip: str
    container: Container
    process: Process
    env: Mapping[str, str]
    directory: str


@dataclass(frozen=True)
class Finding:
    """What a probe saw."""

    is_well: bool
    words: str


async def probe_for_ever(patient: Patient, probe: Probe, tell: Callable[[Finding], None], *, eagerly: bool) -> None:
    """Probe until cancelled: after the initial delay, then every period.

    `eagerly`: until it succeeds for the first time, in short and growing pauses, so that a program that is up after
    100 ms is not waited for until the period is over.
    """
    await asyncio.sleep(probe.initial_delay_seconds)
    pause = _FIRST_PAUSE if eagerly else float(probe.period_seconds)
    while True:
        finding = await probe_once(patient, probe)
        tell(finding)
        if finding.is_well:
            eagerly = False
        await asyncio.sleep(pause if eagerly else probe.period_seconds)
        pause = min(pause * _GROWTH, probe.period_seconds)


async def probe_once(patient: Patient, probe: Probe) -> Finding:
    """One probe; everything that goes wrong is a finding."""
    try:
        async with asyncio.timeout(probe.timeout_seconds + 0.5):
            return await _probe(patient, probe)
    except TimeoutError:
        return Finding(is_well=False, words=f"no answer within {probe.timeout_seconds} s")
    except (OSError, EOFError, ValueError) as error:
        return Finding(is_well=False, words=str(error) or type(error).__name__)


async def _probe(patient: Patient, probe: Probe) -> Finding:
    if probe.http_get is not None:
        return await http_get(patient, probe.http_get)
    if probe.exec is not None:
        return await run(patient, probe.exec, probe.timeout_seconds)
    port: int | str | None = None
    if probe.tcp_socket is not None:
        port = probe.tcp_socket.port
    elif probe.grpc is not None:
        port = probe.grpc.port
    if port is None:
        return Finding(is_well=True, words="")
    opened = await patient.fabric.open_socket("tcp-connect", patient.ip, _number(port, patient), patient.pod)
    opened.close()
    return Finding(is_well=True, words="")


async def http_get(patient: Patient, request: HttpGet) -> Finding:
    """A GET to the container; 200 to 399 is well."""
    port = _number(request.port, patient)
    connected = await patient.fabric.open_socket("tcp-connect", patient.ip, port, patient.pod)
    headers = tuple((header.name, header.value) for header in request.http_headers or ())
    path = request.path if request.path.startswith("/") else f"/{request.path}"
    reply = await ask_on(connected, "GET", path, f"{patient.ip}:{port}", (("User-Agent", "kube-probe/1.0"), *headers))
    return Finding(200 <= reply.status < 400, f"HTTP status {reply.status}")


async def run(patient: Patient, command: Exec, timeout: float) -> Finding:  # noqa: ASYNC109 - kills the command too
    """A command in the container's sandbox; status 0 is well."""
    wanted = Command(command.command, patient.pod, env=patient.env, cwd=patient.directory)
    try:
        finished = await patient.fabric.run_in_pod(wanted, timeout, patient.process)
    except FabricError as error:
        return Finding(is_well=False, words=str(error))
    words = (finished.stderr or finished.stdout).decode(errors="replace")[:_MAX_EXEC_WORDS].strip()
    return Finding(finished.exited.code == 0, words)


def _number(port: int | str, patient: Patient) -> int:
    if isinstance(port, int):
        return port
    return int(port) if port.isdecimal() else named_port(port, (patient.container,))
