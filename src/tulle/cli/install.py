"""`tulle install`: bring an installation into a cluster and wait until it works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import click

from tulle.cli.choosing import Choice, choosing
from tulle.cli.judging import judged
from tulle.cli.kubeconfig import reaching
from tulle.cli.output import Exit, Finding, is_error, report, say
from tulle.cli.placing import Placed, Placing, noted
from tulle.cli.reaching import Cluster, Json, in_cluster
from tulle.cli.steps import Steps
from tulle.installing.installation import Request, objects
from tulle.installing.naming import CONTROL_PLANE, DEFAULT
from tulle.installing.values import Values

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0}
_GATEWAY_CLASS: Final = ("gateway.networking.k8s.io", "GatewayClass")


class Duration(click.ParamType[float]):
    """`60s`, `2m`, or seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|)", str(value))
        if found is None:
            self.fail(f"{value} is no duration; write 60s", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@click.command()
@choosing
@click.option("--dry-run", is_flag=True, help="Ask the cluster what would change; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", "wait_s", type=Duration(), default="60s", show_default=True, help="For readiness; 0s: not.")
@click.option("--force", is_flag=True, help="In spite of what speaks against it.")
@reaching
def install(
    *,
    choice: Choice,
    dry_run: bool,
    yes: bool,
    wait_s: float,
    force: bool,
    kubeconfig: Path | None,
    context: str | None,
) -> int:
    """Install the mesh into a Kubernetes cluster, or change what is installed.

    Applying again changes what differs. What belongs to others (definitions of Istio's kinds, namespaces) stays as it is. With --revision
    the profile's gateway is left out: it is that of all revisions (`--set ingress.enabled=true` takes it over).
    """
    values = choice.values(createNamespace=True)
    overlay = choice.overlay()
    steps = Steps()

    async def work(cluster: Cluster) -> int:
        return await run(
            cluster, choice, values, overlay, steps, is_dry=dry_run, is_sure=yes, wait_s=wait_s, is_forced=force
        )

    return in_cluster(kubeconfig, context, work)


async def run(
    cluster: Cluster,
    choice: Choice,
    values: Values,
    overlay: Json,
    steps: Steps,
    *,
    is_dry: bool,
    is_sure: bool,
    wait_s: float,
    is_forced: bool = False,
) -> int:
    """Judge, ask, apply, wait. Also what `upgrade` does."""
    request = Request(values, choice.namespace, served(cluster))
    made = noted(objects(request), choice, overlay)
    found = [Finding.of(one) for one in await judged(cluster, made, choice.namespace, values.revision)]
    report(found)
    if any(map(is_error, found)) and not is_forced:
        say("nothing was changed")
        return Exit.FAILED
    if not (is_dry or is_sure) and not _is_agreed(choice, values, len(made), cluster.access.server):
        return Exit.FAILED
    placing = Placing(cluster, request, steps, wait_s=wait_s, is_dry=is_dry)
    placed = await placing.place(made)
    if is_dry:
        for line in placing.lines:
            click.echo(f"{line} (dry run)")
        return Exit.OK
    _tell(choice, values, placed, steps)
    return Exit.OK


def served(cluster: Cluster) -> frozenset[str]:
    """The kinds that the objects depend on, as far as the cluster serves them."""
    return frozenset(f"{one.api_version}/{one.kind}" for one in cluster.table.get(_GATEWAY_CLASS, ()))


def _is_agreed(choice: Choice, values: Values, count: int, server: str) -> bool:

    if not sys.stdin.isatty():
        return True
    what = f"{count} objects: profile {choice.profile}, revision {values.revision or DEFAULT}, {choice.namespace}"
    return click.confirm(f"Apply {what}, to {server}?", default=True, err=True)


def _tell(choice: Choice, values: Values, placed: Placed, steps: Steps) -> None:
    counts = ", ".join(f"{number} {word}" for word, number in sorted(placed.counts.items()))
    name = f"{CONTROL_PLANE}-{values.revision}" if values.revision else CONTROL_PLANE
    say(f"{choice.namespace}/{name}: {counts}, after {steps.seconds:.1f} s")
    label = f"istio.io/rev={values.revision}" if values.revision else "istio-injection=enabled"
    say(f"next: kubectl label namespace default {label}")
