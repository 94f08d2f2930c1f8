"""One local Prometheus endpoint for a whole mesh: every sidecar's metrics, with the control plane's own beside them.

Adapter. Reads `runtime.json` (who runs) and the sidecars' admin pipes of a run directory, or asks sidecars that are somebody else's to
reach (a cluster's); `exposition` joins the texts, `rates` reads them. Every series of a sidecar gets the labels `pod` and `namespace`, as Prometheus' Kubernetes discovery gives
them; names and labels of the series themselves stay as Envoy prints them.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from msgspec import Struct

from tulle.compile.envoy.series import expanded
from tulle.telemetry import pipe
from tulle.telemetry.exposition import NotExpositionError, Text, joined, samples
from tulle.telemetry.rates import USED, Reading, Reporter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PORT = 15020
"""Istio's port of merged metrics."""
TIMEOUT_S = 5.0
_AT_ONCE = 16
_MESH_ONLY = {"usedonly": "", "filter": r"istio_(requests|request_duration|tcp)"}
"""Envoy admin, `GET /stats/prometheus`: names of its own statistics, before the format changes them."""


Ask = Callable[[str, dict[str, str], float], pipe.Answer]


class Sidecar(Struct, frozen=True):
    """A proxy whose metrics can be asked for."""

    reporter: Reporter
    ask: Ask
    """Path, query and time limit in seconds; raises OSError."""


class Scrape(Struct, frozen=True):
    """What one sidecar answered."""

    sidecar: Sidecar
    text: str
    failure: str = ""
    """Why there is no text; empty when there is."""


def sidecars(run_dir: Path) -> tuple[Sidecar, ...]:
    """Every pod of `runtime.json` with a proxy's admin pipe, by name. No file: no pods yet. Raises `ValueError` for a file that is not JSON."""
    try:
        listed: dict[str, Any] = json.loads((run_dir / "runtime.json").read_bytes())
    except FileNotFoundError:
        return ()
    found = []
    for item in listed.get("items", ()):
        metadata = item.get("metadata", {})
        socket = run_dir / "envoy" / str(metadata.get("uid", "")) / "admin.sock"
        if item.get("kind") == "Pod" and metadata.get("uid") and socket.exists():
            reporter = Reporter(metadata.get("namespace", "default"), metadata.get("name", ""))
            found.append(Sidecar(reporter, _asking(socket)))
    return tuple(sorted(found, key=lambda one: one.reporter))


def _asking(socket: Path) -> Ask:
    def ask(path: str, query: dict[str, str], timeout_s: float) -> pipe.Answer:
        return pipe.ask(socket, "GET", path, query=query, timeout_s=timeout_s)

    return ask


async def scrape(found: Sequence[Sidecar], *, mesh_only: bool = False) -> tuple[Scrape, ...]:
    """Every sidecar's metrics, at most 16 asked at once, 5 s each. `mesh_only`: only what `rates` reads."""
    query = _MESH_ONLY if mesh_only else {"usedonly": ""}
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(await asyncio.gather(*(loop.run_in_executor(pool, _scrape, one, query) for one in found)))


async def reading(found: Sequence[Sidecar]) -> tuple[Reading, tuple[Scrape, ...]]:
    """What the mesh's sidecars say now, for `rates`, and the scrapes that failed."""
    scrapes = await scrape(found, mesh_only=True)
    at_s = time.monotonic()
    read = {}
    failed = [one for one in scrapes if one.failure]
    for one in scrapes:
        if one.failure:
            continue
        try:
            read[one.sidecar.reporter] = [sample for sample in samples(one.text) if sample.name in USED]
        except NotExpositionError as error:
            failed.append(Scrape(one.sidecar, "", str(error)))
    return Reading(at_s, read), tuple(failed)


def merged(scrapes: Iterable[Scrape], own: str = "") -> str:
    """One text of every scrape; `own` is the control plane's. `up` says which sidecars answered, as Prometheus' own series does."""
    texts, states = [Text(own)], ["# TYPE up gauge"]
    for one in scrapes:
        labels = {"pod": one.sidecar.reporter.pod, "namespace": one.sidecar.reporter.namespace}
        texts.append(Text(one.text, labels))
        pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
        states.append(f"up{{{pairs}}} {0 if one.failure else 1}")
    return joined([Text("\n".join(states)) if len(states) > 1 else Text(""), *texts])


def endpoint(run_dir: Path, own: Callable[[], str | Awaitable[str]] = str) -> Any:
    """The ASGI application: `/metrics` and `/stats/prometheus`. `own` gives the control plane's text."""
    from starlette.applications import Starlette  # noqa: PLC0415 - only servers need it, and it takes 0.1 s to import
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    async def metrics(_: Request) -> Response:
        scrapes = await scrape(await asyncio.to_thread(sidecars, run_dir))
        mine = own()
        text = merged(scrapes, mine if isinstance(mine, str) else await mine)
        return Response(text, media_type=CONTENT_TYPE)

    return Starlette(routes=[Route(path, metrics) for path in ("/metrics", "/stats/prometheus")])


def _scrape(sidecar: Sidecar, query: dict[str, str]) -> Scrape:
    try:
        answer = sidecar.ask("/stats/prometheus", query, TIMEOUT_S)
    except OSError as error:
        return Scrape(sidecar, "", str(error) or type(error).__name__)
    return Scrape(sidecar, "", f"HTTP {answer.status}") if answer.is_error else Scrape(sidecar, expanded(answer.text))
