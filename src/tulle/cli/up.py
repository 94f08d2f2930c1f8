"""`tulle up`: run manifests as a mesh on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tulle.app.up import Options, Timings, run, wait_ready
from tulle.cli.connection import HERE, only_here
from tulle.local.places import Places, mesh_name, places_of
from tulle.local.refusals import RefusedError, refusal

if TYPE_CHECKING:
    from tulle.local.supervisor import Supervisor

_PATIENCE: Final = 60.0


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Name of the mesh; the folder's name if not given.")
@click.option("--detach", "-d", is_flag=True, help="Return when the mesh is up, and leave it running.")
@click.option("--port", "ports", multiple=True, metavar="80=8080", help="Where a gateway's port is offered.")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address gateway ports are offered on.")
@click.option("--once", is_flag=True, help="Stop as soon as everything is ready.")
@click.option("--timings", "with_timings", is_flag=True, help="Print when each part was ready.")
@click.option("--timeout", "patience", default=_PATIENCE, show_default=True, help="Seconds to wait for pods.")
@click.option("--xds-plaintext", metavar="HOST:PORT", help="Serve xDS without secrets on a TCP port, too.")
@click.option("--xds-tls", metavar="HOST:PORT", help="Serve xDS over TLS on a TCP port, too.")
@click.option(
    "--isolation",
    type=click.Choice(["namespaces", "none"]),
    default="namespaces",
    show_default=True,
    help="none: where user namespaces are not allowed; says what it cannot do.",
)
@click.option("--settings", type=click.Path(exists=True, path_type=Path), help="Mesh settings for the control plane.")
def up(  # noqa: PLR0917 - one parameter per option
    paths: tuple[Path, ...],
    name: str | None,
    detach: bool,
    ports: tuple[str, ...],
    bind: str,
    once: bool,
    with_timings: bool,
    patience: float,
    xds_plaintext: str | None,
    xds_tls: str | None,
    isolation: str,
    settings: Path | None,
) -> int:
    """Run the manifests of PATHS (folders or files) as a mesh on this machine.

    Files are watched: saving one is enough to change what runs. Ctrl-C stops everything.
    """
    if not name:
        only_here(None, "up", f"`tulle install` brings the mesh into a cluster. {HERE}")
    resolved = tuple(path.resolve() for path in paths)
    first = resolved[0]
    places = places_of(mesh_name(name or (first.name if first.is_dir() else first.parent.name)))
    extra = [("--xds-plaintext", xds_plaintext), ("--xds-tls", xds_tls), ("--settings", settings)]
    arguments = tuple(str(word) for option, value in extra if value is not None for word in (option, value))
    options = Options(places, resolved, host_ports(ports), (bind,), arguments, isolation != "none")
    if isolation == "none":
        say_what_is_lost()
    if detach:
        return _detached(places, patience)
    screen = Screen(is_once=once, with_timings=with_timings, patience=patience)
    run(options, screen.during)
    return screen.code


def host_ports(ports: tuple[str, ...]) -> Mapping[int, int]:
    """`80=8080` -> {80: 8080}."""
    found: dict[int, int] = {}
    for text in ports:
        left, _, right = text.partition("=")
        if not (left.isdecimal() and right.isdecimal()):
            raise click.BadParameter(f"{text} is not SERVICE_PORT=HOST_PORT", param_hint="--port")
        found[int(left)] = int(right)
    return found


class Screen:
    """What `up` prints."""

    def __init__(self, *, is_once: bool, with_timings: bool, patience: float) -> None:
        self.code = 0
        self._is_once = is_once
        self._with_timings = with_timings
        self._patience = patience
        self._is_terminal = sys.stderr.isatty()

    async def during(self, supervisor: Supervisor, timings: Timings) -> None:
        """Wait for the pods, say what there is, stay until stopped."""
        is_ready = await wait_ready(supervisor, self._progress, self._patience)
        timings.mark("everything ready")
        if self._is_terminal:
            click.echo("\r\033[K", nl=False, err=True)
        for line in [*await complaints(supervisor), *report(supervisor)]:
            click.echo(line)
        if self._with_timings:
            for mark, seconds in timings.marks.items():
                click.echo(f"  {seconds:6.3f} s  {mark}", err=True)
        if not is_ready:
            self.code = 75
        if self._is_once:
            return
        click.echo("Ctrl-C stops the mesh.", err=True)
        sys.stdout.flush()
        await supervisor.is_stopping.wait()

    def _progress(self, ready: int, total: int) -> None:
        if self._is_terminal:
            click.echo(f"\r\033[K{ready} of {total} pods ready", nl=False, err=True)


def say_what_is_lost() -> None:
    """What a mesh without isolation does not do."""
    from tulle.local.unfenced import LOST

    for words in LOST:
        click.secho(f"isolation none: {words}", fg="yellow", err=True)


def report(supervisor: Supervisor) -> list[str]:
    """What runs: one line per workload, then addresses, problems and what to do next."""
    lines: list[str] = []
    of: dict[str, list[Any]] = {}
    for pod in supervisor.pods.values():
        of.setdefault(f"{pod.namespace}/{pod.workload.key.name}", []).append(pod)
    width = max((len(name) for name in of), default=0)
    for name, pods in sorted(of.items()):
        ready = sum(pod.is_ready for pod in pods)
        lines.append(f"  {name:<{width}}  {ready}/{len(pods)} ready  {pods[0].workload.role.value}")
    for found in supervisor.problems():
        place = f"{found['file']}:{found['line']}: " if found["file"] else ""
        lines += [f"{found['code']}  {place}{found['text']}", f"  {found['advice']}"]
    lines += supervisor.links()
    lines.append(f"next: tulle ps --mesh {supervisor.places.name}")
    return lines


async def complaints(supervisor: Supervisor) -> list[str]:
    """What the control plane refused or does otherwise than written; nothing while it is away."""
    from tulle.local.asking import ask

    try:
        reply = await ask(supervisor.places.admin_socket, "GET", "/v1/problems")
    except (OSError, EOFError):
        return []
    found = json.loads(reply.body).get("problems", []) if reply.status == 200 else []
    own = {(one["code"], one["file"], one["line"]) for one in supervisor.problems()}
    lines: list[str] = []
    for one in found:
        if one["severity"] != "info" and (one["code"], one.get("file"), one.get("line")) not in own:
            place = f"{one['file']}:{one['line']}: " if one.get("file") else ""
            lines.append(f"{one['code']}  {place}{one['severity']}: {one['text']}. {one.get('advice', '')}".rstrip())
    return lines


def _detached(places: Places, patience: float) -> int:
    """Start this very command again in the background and wait until it is up."""
    if places.is_running:
        raise RefusedError(refusal("TUL0910", mesh=places.name, pid=places.described().get("pid", "?")))
    words = [word for word in sys.argv[1:] if word not in ("--detach", "-d")]
    places.make()
    log = places.state / "up.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "tulle", *words, "--timeout", str(patience)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + patience + 5
    while time.monotonic() < deadline and child.poll() is None:
        text = log.read_text(errors="replace")
        if "next: tulle " in text:
            click.echo(text, nl=False)
            return 0
        time.sleep(0.02)
    click.echo(log.read_text(errors="replace"), err=True, nl=False)
    return child.returncode or 75
