"""`tulle uninstall`: remove what install, Helm and the control plane made, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import click

from tulle.cli.awaiting import until
from tulle.cli.install import Duration
from tulle.cli.installations import (
    PART,
    Revision,
    belongings,
    foreign,
    is_shared,
    labels_of,
    revisions,
    sidecars,
    tags,
    users,
)
from tulle.cli.judging import of_helm
from tulle.cli.kubeconfig import reaching
from tulle.cli.output import Exit, Finding, count, refuse, report, say
from tulle.cli.reaching import Cluster, Json, in_cluster, refuse_with, together
from tulle.cli.steps import Steps
from tulle.model.problems import NOWHERE, problem

_WEBHOOKS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_RUNNING: Final = ("HorizontalPodAutoscaler", "PodDisruptionBudget", "Deployment", "DaemonSet", "ReplicaSet", "Pod")
_LAST: Final = ("Namespace", "CustomResourceDefinition")


@click.command()
@click.option("--revision", default="", metavar="NAME", help="This one only; what all revisions share stays.")
@click.option("--all", "is_all", is_flag=True, help="Every revision.")
@click.option("--purge", is_flag=True, help="Every revision, and our definitions of kinds with all objects of them.")
@click.option("--force", is_flag=True, help="Although a tag or namespaces use the revision.")
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", "wait_s", type=Duration(), default="120s", show_default=True, help="Until all of it is gone.")
@reaching
def uninstall(
    *,
    revision: str,
    is_all: bool,
    purge: bool,
    force: bool,
    dry_run: bool,
    yes: bool,
    wait_s: float,
    kubeconfig: Path | None,
    context: str | None,
) -> int:
    """Remove an installation from a cluster.

    Nothing of it stays but definitions of kinds and the objects users made of them; --purge removes those too.
    """
    removal = Removal(revision, is_all=is_all or purge, purges=purge, is_forced=force, wait_s=wait_s)

    async def work(cluster: Cluster) -> int:
        return await removal.run(cluster, is_dry=dry_run, is_sure=yes)

    return in_cluster(kubeconfig, context, work)


class Removal:
    """One uninstall."""

    def __init__(self, revision: str, *, is_all: bool, purges: bool, is_forced: bool, wait_s: float) -> None:
        self._revision = revision
        self._is_all = is_all
        self._purges = purges
        self._is_forced = is_forced
        self._wait_s = wait_s
        self._steps = Steps()

    async def run(self, cluster: Cluster, *, is_dry: bool, is_sure: bool) -> int:
        """Find, judge, ask, delete in order, wait, and say what is left."""
        going, staying = self._chosen(await revisions(cluster))
        is_whole = not staying
        if not is_whole:
            await self._judge_use(cluster, going)
        found = await self._objects(cluster, going, is_whole=is_whole)
        if not found:
            refuse_with(
                "TUL1108", Exit.FAILED, what=f"of the revision {self._revision}" if self._revision else "of tulle"
            )
        doomed, kept = await self._without_full_namespaces(cluster, found)
        report(kept)
        if is_dry:
            for one in doomed:
                click.echo(f"{_called(one)} (dry run)")
            return Exit.OK
        if not is_sure and not _is_agreed(len(doomed), cluster.access.server):
            return Exit.FAILED

        async def there_now() -> list[Json]:
            return (
                await self._without_full_namespaces(cluster, await self._objects(cluster, going, is_whole=is_whole))
            )[0]

        doomed = await self._delete(cluster, doomed, there_now)
        with self._steps.step("gone") as step:
            await self._wait(cluster, doomed, step.say)
        await _tell_sidecars(cluster)
        say(f"{count(len(doomed), 'object')} removed after {self._steps.seconds:.1f} s")
        return Exit.OK

    def _chosen(self, there: Sequence[Revision]) -> tuple[list[Revision], list[Revision]]:
        """Revisions that go and that stay."""
        if self._is_all:
            going = list(there)
        elif self._revision:
            going = [one for one in there if one.name == self._revision]
        elif len({one.name for one in there}) > 1:
            refuse_with("TUL1110", Exit.USAGE, revisions=", ".join(one.name for one in there))
        else:
            going = list(there)
        helms = [one for one in going if one.release]
        if helms:
            found = of_helm(helms[0])
            refuse(found.text, Exit.FAILED, advice=found.advice, code=found.code)
        if self._revision and not going:
            refuse_with("TUL1108", Exit.FAILED, what=f"of the revision {self._revision}")
        return going, [one for one in there if one not in going]

    async def _judge_use(self, cluster: Cluster, going: Sequence[Revision]) -> None:
        names = {one.name for one in going}
        pointing = [f"the tag {one.name}" for one in await tags(cluster) if one.revision in names]
        living = [f"the namespace {one}" for one in await users(cluster, names)]
        if (pointing or living) and not self._is_forced:
            what = ", ".join([*pointing, *living][:5])
            refuse_with("TUL1118", Exit.FAILED, revision=", ".join(sorted(names)), what=what)

    async def _objects(self, cluster: Cluster, going: Sequence[Revision], *, is_whole: bool) -> list[Json]:
        """What goes: of the last revision everything, else what is the revision's own."""
        names = {one.name for one in going}
        found = await belongings(cluster)
        return [
            one
            for one in found
            if (is_whole or (not is_shared(one) and labels_of(one).get("tulle.dev/install") in names))
            and (self._purges or one["kind"] != "CustomResourceDefinition")
        ]

    async def _without_full_namespaces(
        self, cluster: Cluster, found: Sequence[Json]
    ) -> tuple[list[Json], list[Finding]]:
        """Namespaces that hold what is not ours stay."""
        doomed, kept = [], []
        for one in found:
            if one["kind"] == "Namespace" and (theirs := await self._theirs(cluster, one["metadata"]["name"])):
                what = ", ".join(theirs[:3]) + (f" and {len(theirs) - 3} more" if len(theirs) > 3 else "")
                place = one["metadata"]["name"]
                kept.append(Finding.of(problem("TUL1119", NOWHERE, namespace=place, what=what)))
            else:
                doomed.append(one)
        return doomed, kept

    async def _theirs(self, cluster: Cluster, namespace: str) -> list[str]:
        if not self._purges:
            return await foreign(cluster, namespace)
        ours = {
            one["spec"]["names"]["kind"]
            for one in await belongings(cluster)
            if one["kind"] == "CustomResourceDefinition"
        }
        return [one for one in await foreign(cluster, namespace) if one.partition("/")[0] not in ours]

    async def _delete(
        self, cluster: Cluster, doomed: Sequence[Json], there_now: Callable[[], Awaitable[Sequence[Json]]]
    ) -> list[Json]:
        """Webhooks first, so that no pod waits for them; then what runs, so that nothing is made anew; then the rest.

        Returns what was removed: also what a control plane made until it was gone.
        """
        stages: tuple[tuple[str, Callable[[Json], bool]], ...] = (
            ("webhooks", lambda one: one["kind"] in _WEBHOOKS),
            ("what runs", lambda one: one["kind"] in _RUNNING),
            ("everything else", lambda one: one["kind"] not in (*_WEBHOOKS, *_RUNNING, *_LAST)),
            ("namespaces and kinds", lambda one: one["kind"] in _LAST),
        )
        uids = {one["metadata"]["uid"] for one in doomed}
        for name, belongs in stages:
            batch = [one for one in doomed if belongs(one)]
            if not batch:
                continue
            with self._steps.step(name) as step:
                step.say(count(len(batch), "object"))
                owned = [one for one in batch if _has_owner_among(one, uids)]
                await together((lambda one=one: cluster.deleted(one)) for one in batch if one not in owned)  # type: ignore[misc]
                if name == "what runs":
                    await self._wait(cluster, batch, step.say)
                    made = [one for one in await there_now() if one["metadata"]["uid"] not in uids]
                    doomed = [*doomed, *made]
                    uids.update(one["metadata"]["uid"] for one in made)
        return list(doomed)

    async def _wait(self, cluster: Cluster, doomed: Sequence[Json], told: Callable[[str], None]) -> None:
        """Until none of these is there. Ends the command with TUL1115."""
        left = {one["metadata"]["uid"]: one for one in doomed}

        async def gone() -> bool:
            kinds = {(one["apiVersion"], one["kind"]): one for one in left.values()}
            resources = [resource for one in kinds.values() if (resource := cluster.resource(one)) is not None]
            lists = await together((lambda one=one: cluster.listed(one, PART)) for one in resources)  # type: ignore[misc]
            there = {item["metadata"]["uid"] for items in lists for item in items}
            for uid in set(left) - there:
                del left[uid]
            told(f"{len(doomed) - len(left)} of {len(doomed)}")
            return not left

        if self._wait_s and not await until(gone, self._wait_s):
            what = ", ".join(sorted(_called(one) for one in left.values())[:5])
            refuse_with("TUL1115", Exit.TIMEOUT, count=len(left), seconds=f"{self._wait_s:g}", what=what)


def _has_owner_among(one: Json, uids: set[str]) -> bool:
    return any(owner["uid"] in uids for owner in one["metadata"].get("ownerReferences") or ())


def _called(one: Json) -> str:
    meta = one["metadata"]
    place = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"{one['kind']} {place}{meta['name']}"


def _is_agreed(number: int, server: str) -> bool:
    if not sys.stdin.isatty():
        return True
    return click.confirm(f"Remove {count(number, 'object')} from {server}?", default=False, err=True)


async def _tell_sidecars(cluster: Cluster) -> None:
    left = await sidecars(cluster)
    if left:
        report([Finding.of(problem("TUL1123", NOWHERE, count=len(left)))])
