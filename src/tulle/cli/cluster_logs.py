"""`tulle logs` in a cluster: the API's log of each container, one after the other, or all at once as they are written."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click

from tulle.cli.cluster_connection import ClusterConnection
from tulle.cli.cluster_pods import PROXY, containers, has_proxy, is_gateway, is_meant, of_the_mesh, pods_in
from tulle.cli.output import Exit, Finding, refuse, report
from tulle.cli.reaching import exit_of, refuse_with
from tulle.kube.errors import KubeError, Refused

MOST_FOLLOWED: Final = 100
"""Streams at once; kubectl's five are few for a workload."""


class EnoughError(Exception):
    """Whoever reads our output has gone. Not an OSError: those inside a stream are the API's."""


class Log(NamedTuple):
    """One container's."""

    namespace: str
    pod: str
    container: str

    @property
    def path(self) -> str:
        """In the API."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}/log"


class Wish(NamedTuple):
    """What of each log."""

    follow: bool
    since_s: int
    """0: from the beginning."""
    tail: int
    """Below 0: all lines."""
    worded: Callable[[bytes], bytes]
    """What is made of whole lines."""


def print_logs(
    connection: ClusterConnection, what: str, namespace: str, container: str, *, proxy: bool, wish: Wish
) -> int:
    """Print the logs of the pods meant. Pods whose log cannot be had are named; the command fails where none can."""
    if not what and not namespace:
        raise click.UsageError(
            "Say whose logs: a pod, a workload or an app label; or a namespace (-n) for all of its pods."
        )
    pods = connection.api(pods_in(connection.access, namespace))
    if not namespace:
        pods = of_the_mesh(pods)
    logs = [log for pod in pods if is_meant(pod, what) for log in logs_of(pod, PROXY if proxy else container)]
    if not logs:
        parts = [
            f"pod or workload {what}" if what else "pod",
            *([f"with a container {PROXY if proxy else container}"] if proxy or container else []),
        ]
        place = f"the namespace {namespace}" if namespace else "a namespace of the mesh"
        refuse_with("TUL1135", what=" ".join(parts), place=place)
    if wish.follow and len(logs) > MOST_FOLLOWED:
        refuse(
            f"{len(logs)} logs are too many to follow; {MOST_FOLLOWED} are not", Exit.USAGE, advice="Name a pod, or -c."
        )
    try:
        failures = connection.api(_all(connection, logs, wish), None)
    except EnoughError as enough:
        raise BrokenPipeError from enough
    report([Finding.of(error.problem()) for error in failures])
    return exit_of(failures[0]) if failures and len(failures) == len(logs) else Exit.OK


def logs_of(pod: Mapping[str, Any], container: str) -> list[Log]:
    """The logs of a pod: of the container named, else of the workload's own; of a gateway its proxy's."""
    metadata = pod["metadata"]
    names = containers(pod, with_proxy=True)
    if container:
        every = [*names, *(one["name"] for one in pod["spec"].get("initContainers") or () if one["name"] not in names)]
        names = [name for name in every if name == container]
    elif not (is_gateway(pod) and has_proxy(pod)):
        names = containers(pod)
    return [Log(metadata["namespace"], metadata["name"], name) for name in names]


async def _all(connection: ClusterConnection, logs: Sequence[Log], wish: Wish) -> list[KubeError]:
    """Print them; the failures."""
    names = _names(logs)
    width = max(map(len, names)) if len(logs) > 1 else 0
    if wish.follow:
        found = await asyncio.gather(
            *(_one(connection, log, wish, name, width) for log, name in zip(logs, names, strict=True))
        )
    else:
        found = [await _one(connection, log, wish, name, width) for log, name in zip(logs, names, strict=True)]
    return [error for error in found if error is not None]


def _names(logs: Sequence[Log]) -> list[str]:
    several = len({(one.namespace, one.pod) for one in logs}) < len(logs)
    return [f"{one.pod}/{one.container}" if several else one.pod for one in logs]


async def _one(connection: ClusterConnection, log: Log, wish: Wish, name: str, width: int) -> KubeError | None:
    query = {"container": log.container}
    if wish.follow:
        query["follow"] = "true"
    if wish.since_s:
        query["sinceSeconds"] = str(wish.since_s)
    if wish.tail >= 0:
        query["tailLines"] = str(wish.tail)
    try:
        async with connection.access.stream(log.path, query, accept="*/*", quiet_s=None) as pieces:
            rest = b""
            async for piece in pieces:
                whole, end, rest = (rest + piece).rpartition(b"\n")
                if end:
                    _print(wish.worded(whole), name, width)
            if rest:
                _print(wish.worded(rest), name, width)
    except Refused as error:
        if error.is_absent:
            return None  # the pod ended between the list and now
        return error
    except KubeError as error:
        return error
    return None


def _print(content: bytes, name: str, width: int) -> None:
    try:
        for line in content.decode(errors="replace").splitlines():
            click.echo(f"{name:<{width}} | {line}" if width else line)
        sys.stdout.flush()
    except BrokenPipeError as gone:
        raise EnoughError from gone
