"""`tulle upgrade`: what is installed, in this version, with the choices it was installed with."""

from __future__ import annotations

from pathlib import Path

import click

from tulle.cli.choosing import Choice, beside, choosing, judged
from tulle.cli.install import Duration, run
from tulle.cli.installations import Revision, chosen_of, revisions
from tulle.cli.kubeconfig import reaching
from tulle.cli.output import Exit, say
from tulle.cli.reaching import Cluster, in_cluster, refuse_with
from tulle.cli.steps import Steps
from tulle.installing.naming import DEFAULT, SETTINGS
from tulle.installing.release import VERSION
from tulle.installing.values import laid
from tulle.kube.resources import CONFIG_MAPS


@click.command()
@choosing
@click.option("--dry-run", is_flag=True, help="Ask the cluster what would change; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", "wait_s", type=Duration(), default="120s", show_default=True, help="For readiness; 0s: not.")
@reaching
@click.pass_context
def upgrade(
    ctx: click.Context,
    *,
    choice: Choice,
    dry_run: bool,
    yes: bool,
    wait_s: float,
    kubeconfig: Path | None,
    context: str | None,
) -> int:
    """Bring an installation to this version, in place, with the choices it was installed with; options change them.

    For a canary, install the new version beside the old one (`tulle install --revision NEW`), move namespaces or a tag
    (`tulle tag set prod --revision NEW --overwrite`), and uninstall the old revision.
    """
    is_named = ctx.get_parameter_source("profile") is not click.core.ParameterSource.DEFAULT
    steps = Steps()

    async def work(cluster: Cluster) -> int:
        before = await installed(cluster, choice.revision, choice.namespace)
        name = f"{SETTINGS}-{choice.revision}" if choice.revision else SETTINGS
        noted = chosen_of(await cluster.read(CONFIG_MAPS, name, before.namespace))
        profile, overlay = noted or (choice.profile, {})
        taken = choice._replace(profile=choice.profile if is_named else profile, namespace=before.namespace)
        overlay = laid(overlay, choice.overlay())
        values = judged(taken.profile, {"createNamespace": True, **beside(choice.revision)}, overlay)
        say(f"{before.namespace}/{before.name}: {before.version} ({before.image}) to {VERSION}")
        return await run(cluster, taken, values, overlay, steps, is_dry=dry_run, is_sure=yes, wait_s=wait_s)

    return in_cluster(kubeconfig, context, work)


async def installed(cluster: Cluster, revision: str, namespace: str = "") -> Revision:
    """The revision of a name (empty: the one without). Ends the command with TUL1108."""
    named = [one for one in await revisions(cluster) if one.name == (revision or DEFAULT)]
    found = [one for one in named if one.namespace == namespace] or named
    if not found:
        refuse_with("TUL1108", Exit.FAILED, what=f"of the revision {revision or DEFAULT}")
    return found[0]
