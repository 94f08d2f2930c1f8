"""`tulle logs`: what workloads or their sidecars wrote."""

from __future__ import annotations

import math
import re
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import click

from tulle.cli.connection import in_cluster, mesh_named
from tulle.cli.output import Exit
from tulle.cli.ps import asked
from tulle.local.logs import last_lines
from tulle.local.places import the_mesh
from tulle.local.refusals import RefusedError, refusal

_ALL: Final = 1 << 62
_POLL: Final = 0.1
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?\Z")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


@click.command()
@click.argument("what", required=False, default="")
@mesh_named("--mesh", "--name", "name")
@click.option("-n", "--namespace", default="", help="Only this namespace.")
@click.option("-c", "--container", default="", help="Only this container.")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written.")
@click.option("--proxy", is_flag=True, help="The sidecar's access log instead (JSON): failures, or all.")
@click.option("--words", is_flag=True, help="With --proxy: lines for people: who, what, verdict, and why it failed.")
@click.option("--since", default="", metavar="10s", help="Only what was written within this time, to about a second.")
@click.option("--tail", default=-1, show_default="all", help="Only the last lines of each.")
def logs(  # noqa: PLR0917 - one parameter per option
    what: str,
    name: str | None,
    namespace: str,
    container: str,
    follow: bool,
    proxy: bool,
    words: bool,
    since: str,
    tail: int,
) -> int:
    """Print the logs of a pod, of a workload's pods, or of all pods. WHAT is a pod, a workload or an app label.

    In a cluster the API's: without -n, of pods in namespaces that have a proxy.
    """
    if in_cluster(name):
        from tulle.cli.cluster_connection import cluster_of
        from tulle.cli.cluster_logs import Wish, print_logs

        worded = _worded if words else bytes
        wish = Wish(follow, math.ceil(seconds(since)) if since else 0, tail, worded)
        return print_logs(cluster_of(name), what, namespace, container, proxy=proxy, wish=wish)
    mesh = the_mesh(name)
    query: dict[str, Any] = {"name": what, "namespace": namespace, "container": container}
    if proxy:
        query["proxy"] = "1"
    if since:
        query["since"] = seconds(since)
    target = f"/v1/logs?{urlencode(query)}"
    files = asked(mesh, "GET", target)["files"]
    if not files:
        raise RefusedError(refusal("TUL0919", name=what or "any", mesh=mesh.name))
    width = max(len(file["pod"]) for file in files) if len(files) > 1 else 0
    ends: dict[str, int] = {}
    for file in files:
        path = Path(file["path"])
        content, ends[file["path"]] = (
            last_lines(path, _ALL if tail < 0 else tail, file["offset"]) if path.exists() else (b"", 0)
        )
        _print(_worded(content) if words else content, file["pod"], width)
    sys.stdout.flush()
    if not follow:
        return Exit.OK
    while True:
        time.sleep(_POLL)
        for file in files:
            ends[file["path"]] = _go_on(Path(file["path"]), ends[file["path"]], file["pod"], width, in_words=words)
        sys.stdout.flush()


def seconds(span: str) -> float:
    """`10s`, `5m`, `1h` or plain seconds."""
    found = _SPAN.match(span)
    if found is None:
        raise click.BadParameter(f"{span} is not a time such as 10s, 5m or 1h", param_hint="--since")
    return float(found[1]) * _UNITS[found[2]]


def _go_on(path: Path, at: int, pod: str, width: int, *, in_words: bool) -> int:
    """Print the whole lines written since; a file that was rotated is read from its start."""
    if not path.exists():
        return at
    size = path.stat().st_size
    at = at if at <= size else 0
    if size == at:
        return at
    with path.open("rb") as file:
        file.seek(at)
        content = file.read(size - at)
    whole = content[: content.rfind(b"\n") + 1]
    _print(_worded(whole) if in_words else whole, pod, width)
    return at + len(whole)


def _worded(content: bytes) -> bytes:
    """Access log lines as sentences; other lines as they are."""
    from tulle.telemetry.access_log import entry, rendered

    lines = ((line, entry(line)) for line in content.decode(errors="replace").splitlines())
    return "\n".join(rendered(found) if found else line for line, found in lines).encode()


def _print(content: bytes, pod: str, width: int) -> None:
    for line in content.decode(errors="replace").splitlines():
        click.echo(f"{pod:<{width}} | {line}" if width else line)
