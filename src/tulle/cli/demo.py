"""`tulle demo`: the bundled book shop, and what a mesh does with it, shown by real requests."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tulle.app.up import Options, Timings, run, wait_ready
from tulle.cli.connection import HERE, only_here
from tulle.cli.up import report
from tulle.local.asking import Reply, ask_on
from tulle.local.places import places_of

if TYPE_CHECKING:
    from tulle.local.supervisor import Supervisor

_NAME: Final = "demo"
_FOLDER: Final = "tulle-demo"
_PATIENCE: Final = 90.0
_REQUESTS: Final = 200
_GATEWAY_PORT: Final = 80


@click.command()
@click.option("--once", is_flag=True, help="Show everything, tear it down, and return.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Where the manifests are copied to.")
@click.option("--name", default=_NAME, show_default=True, help="Name of the mesh.")
@click.option("--timings", "with_timings", is_flag=True, help="Print when each part was ready.")
def demo(once: bool, folder: Path | None, name: str, with_timings: bool) -> int:
    """Run the bundled book shop: three versions of reviews, one stranger who must be denied.

    On a terminal it stays up until Ctrl-C; elsewhere, with --once or ONCE=1, it shows one of everything and ends.
    """
    if name == _NAME:
        only_here(
            None,
            "demo",
            f"`tulle install`, then `kubectl apply -f` the book shop's manifests (README, On Kubernetes). {HERE}",
        )
    is_once = once or os.environ.get("ONCE") == "1" or not sys.stdout.isatty()
    scratch = None
    if folder is None and is_once:
        scratch = folder = Path(tempfile.mkdtemp(prefix="tulle-demo-"))
    folder = (folder or Path(_FOLDER)).resolve()
    try:
        copy(folder)
        show = Show(folder, is_once=is_once, with_timings=with_timings)
        run(Options(places_of(name), (folder,)), show.during)
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return show.code


def copy(folder: Path) -> None:
    """Put the manifests into a folder of the user's own; what is there already stays as it is."""
    source = files("tulle.examples.bookinfo")
    for inside in ("", "edits"):
        target = folder / inside
        target.mkdir(parents=True, exist_ok=True)
        for entry in (source / inside if inside else source).iterdir():
            if entry.name.endswith((".yaml", ".md")) and not (target / entry.name).exists():
                (target / entry.name).write_bytes(entry.read_bytes())


class Show:
    """The demonstration."""

    def __init__(self, folder: Path, *, is_once: bool, with_timings: bool) -> None:
        self.code = 0
        self._folder = folder
        self._is_once = is_once
        self._with_timings = with_timings

    async def during(self, supervisor: Supervisor, timings: Timings) -> None:
        """While the mesh runs."""
        began = time.monotonic()
        if not await wait_ready(supervisor, _progress, _PATIENCE):
            click.echo("not everything became ready", err=True)
            self.code = 75
        timings.mark("everything ready")
        for line in report(supervisor):
            click.echo(line)
        if self._with_timings:
            for mark, seconds in timings.marks.items():
                click.echo(f"  {seconds:6.3f} s  {mark}", err=True)
        if not self._is_once:
            click.echo(f"manifests: {self._folder}   try: tulle apply -f {self._folder}/edits/reviews-v3.yaml")
            click.echo("Ctrl-C stops everything.", err=True)
            await supervisor.is_stopping.wait()
            return
        for step in (self._versions, self._denial, self._edit):
            if not await step(supervisor):
                self.code = 1
        click.echo(f"done after {time.monotonic() - began:.1f} s; everything is torn down")

    async def _versions(self, supervisor: Supervisor) -> bool:
        """Ask the page until every version of reviews has answered."""
        found = await _answers(supervisor, lambda seen: {"v1", "v2", "v3"} <= seen.keys())
        shown = ", ".join(f"{version} {count}x" for version, count in sorted(found.items()))
        click.echo(f"{supervisor.links()[0]}/productpage: reviews answered as {shown or 'nobody'}")
        return {"v1", "v2", "v3"} <= found.keys()

    async def _denial(self, supervisor: Supervisor) -> bool:
        """What the stranger was told."""
        pod = next((pod for pod in supervisor.pods.values() if pod.labels.get("app") == "stranger"), None)
        if pod is None:
            return False
        log = pod.log_path(pod.workload.spec.containers[0].name)
        for _ in range(100):
            lines = [line for line in log.read_text().splitlines() if "DENIED" in line] if log.exists() else []
            if lines:
                click.echo(f"stranger: {lines[-1]}")
                return True
            await asyncio.sleep(0.1)
        click.echo("stranger: was not denied")
        return False

    async def _edit(self, supervisor: Supervisor) -> bool:
        """Apply one edit and see that every proxy has it and the page shows it."""
        applying = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tulle", "apply", "--mesh", supervisor.places.name),
            *("-f", str(self._folder / "edits" / "reviews-v3.yaml")),
        )
        if await applying.wait() != 0:
            return False
        found = await _answers(supervisor, lambda seen: seen.total() >= 20)
        shown = ", ".join(f"{version} {count}x" for version, count in sorted(found.items()))
        click.echo(f"after the edit: reviews answered as {shown}")
        return found.keys() == {"v3"}


async def _answers(supervisor: Supervisor, enough: Callable[[Counter[str]], bool]) -> Counter[str]:
    """Which versions of reviews answered the page."""
    found: Counter[str] = Counter()
    for _ in range(_REQUESTS):
        try:
            reply = await page(supervisor.host_ports[_GATEWAY_PORT])
        except (OSError, EOFError):
            await asyncio.sleep(0.05)
            continue
        version = reply.fields.get("x-reviews-version", "")
        if reply.status == 200 and version:
            found[version] += 1
        else:
            await asyncio.sleep(0.05)
        if enough(found):
            break
    return found


async def page(port: int) -> Reply:
    """One request for the page through the gateway."""
    connected = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", port))
    except OSError:
        connected.close()
        raise
    return await asyncio.wait_for(ask_on(connected, "GET", "/productpage", f"localhost:{port}"), 10.0)


def _progress(ready: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{ready} of {total} pods ready{'' if ready < total else chr(10)}", nl=False, err=True)
