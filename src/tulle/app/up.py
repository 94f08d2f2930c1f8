"""`tulle up` as a process: order of starting, signals, and the end.

The control plane and the fabric are children that take a second to import their code, so they are started before this
process imports its own. Everything that decides is in `local`; everything that prints is in `cli.up`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tulle.local.addresses import network
from tulle.local.books import applied_folder, choose_network
from tulle.local.control import ControlPlane
from tulle.local.fabric.client import Fabric
from tulle.local.places import Places
from tulle.local.refusals import RefusedError, refusal

if TYPE_CHECKING:
    from tulle.local.supervisor import Supervisor

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Options:
    """What the command line said."""

    places: Places
    paths: tuple[Path, ...]
    host_ports: Mapping[int, int] = field(default_factory=dict)
    addresses: tuple[str, ...] = ("127.0.0.1",)
    control_arguments: tuple[str, ...] = ()
    is_isolated: bool = True
    """False: `--isolation none`."""


class Timings:
    """When things happened, in seconds since this process was executed."""

    def __init__(self) -> None:
        self.marks: dict[str, float] = {}
        self._zero = time.monotonic() - _age()

    def mark(self, name: str) -> None:
        """Something happened now."""
        self.marks.setdefault(name, round(time.monotonic() - self._zero, 3))


def _age() -> float:
    """Seconds this process has existed (man proc: stat, uptime)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return float(Path("/proc/uptime").read_text().split()[0]) - int(fields[19]) / _TICKS


During = Callable[["Supervisor", Timings], Awaitable[None]]
"""What to do while the mesh runs; when it returns the mesh is stopped."""


def run(options: Options, during: During) -> None:
    """Run a mesh until `during` returns, a signal comes or somebody says `down`. Raises `RefusedError`."""
    timings = Timings()
    timings.mark("imports")
    places = options.places
    places.make()
    hold = places.hold()
    if hold is None:
        raise RefusedError(refusal("TUL0910", mesh=places.name, pid=places.described().get("pid", "?")))
    try:
        places.clear()
        places.make()
        asyncio.run(_run(options, during, timings))
    finally:
        places.remove()
        os.close(hold)


async def _run(options: Options, during: During, timings: Timings) -> None:
    places, loop = options.places, asyncio.get_running_loop()
    paths = options.paths
    if not any(path.is_dir() for path in paths):
        paths = (*paths, applied_folder(places))
    lost = asyncio.Event()
    fabric = _fabric(choose_network(places), lost.set, is_isolated=options.is_isolated)
    said = (*options.control_arguments, "--service-cidr", fabric.network.services)
    control = ControlPlane(places, (*said, *(str(path) for path in paths)), _control_ended)
    control_started = loop.create_task(control.start())
    fabric_started = loop.create_task(fabric.start())
    await asyncio.sleep(0)
    await control_started
    timings.mark("children started")
    # Half a second of imports, while both children do the same on the other core.
    from tulle.local.api import Api  # noqa: PLC0415
    from tulle.local.asking import serve  # noqa: PLC0415
    from tulle.local.settings import find_settings  # noqa: PLC0415
    from tulle.local.supervisor import Supervisor, Wishes  # noqa: PLC0415

    timings.mark("code loaded")
    first = options.paths[0]
    wishes = Wishes(
        paths=paths,
        host_ports=options.host_ports,
        addresses=options.addresses,
        tulle_yaml=find_settings(first if first.is_dir() else first.parent),
    )
    made = Supervisor
    if not options.is_isolated:
        from tulle.local.unfenced_supervisor import UnfencedSupervisor  # noqa: PLC0415

        made = UnfencedSupervisor
    supervisor = made(places, wishes, control, fabric, timings.mark)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, supervisor, number)
    try:
        await supervisor.start(fabric_started)
        server = await serve(places.supervisor_socket, Api(supervisor, timings.marks).handle)
        await _first_of(during(supervisor, timings), supervisor.is_stopping, lost)
        server.close()
        if lost.is_set():
            raise RefusedError(refusal("TUL0921", mesh=places.name))
    finally:
        await supervisor.stop()


def _fabric(slot: int, lost: Callable[[], None], *, is_isolated: bool) -> Fabric:
    if is_isolated:
        return Fabric(network(slot), on_lost=lost)
    from tulle.local.unfenced import Unfenced, loopback_network  # noqa: PLC0415 - seldom needed

    return Unfenced(loopback_network(slot))


def _stop(supervisor: Supervisor, number: int) -> None:
    """The first signal stops the mesh; the second one does not wait."""
    if supervisor.is_stopping.is_set():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    supervisor.is_stopping.set()


async def _first_of(work: Awaitable[None], *ends: asyncio.Event) -> None:
    doing = asyncio.ensure_future(work)
    waiting = [asyncio.ensure_future(end.wait()) for end in ends]
    await asyncio.wait((doing, *waiting), return_when=asyncio.FIRST_COMPLETED)
    for task in (doing, *waiting):
        task.cancel()
    if doing.done() and not doing.cancelled():
        doing.result()


def _control_ended(how: str, log: Path) -> None:
    ended = refusal("TUL0916", how=how, log=log)
    print(f"{ended.code}  {ended.text}\n  {ended.advice}", file=sys.stderr, flush=True)


async def wait_ready(supervisor: Supervisor, tell: Callable[[int, int], None], patience: float) -> bool:
    """Wait until every pod is ready (or ended well), and every proxy knows; False when patience ended or some pod cannot."""
    deadline = time.monotonic() + patience
    before = (-1, -1)
    while time.monotonic() < deadline:
        pods = list(supervisor.pods.values())
        ready = sum(pod.is_ready or pod.state.stage.value == "Ended" for pod in pods)
        if (ready, len(pods)) != before:
            before = (ready, len(pods))
            tell(*before)
        if pods and ready == len(pods) and all(pod.is_live or not pod.is_ready for pod in pods):
            return True
        await asyncio.sleep(0.01)
    return False
