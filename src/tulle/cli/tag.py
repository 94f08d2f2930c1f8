"""`tulle tag`: names for revisions. Namespaces say `istio.io/rev=prod`; which revision that is can change without touching them."""

from __future__ import annotations

import copy
from pathlib import Path

import click

from tulle.cli.choosing import judged
from tulle.cli.installations import INJECTORS, Tag, belongings, labels_of, revisions, tags, users
from tulle.cli.kubeconfig import reaching
from tulle.cli.output import Column, Exit, Format, as_yaml, output_option, say, show
from tulle.cli.reaching import Cluster, Json, in_cluster, refuse_with
from tulle.cli.upgrade import installed
from tulle.installing import installation
from tulle.installing.installation import Request
from tulle.installing.naming import DEFAULT, INJECTOR, TAG, Names

_COLUMNS = (Column("TAG"), Column("REVISION"), Column("NAMESPACES"))


@click.group()
def tag() -> None:
    """Names for revisions: which one `istio.io/rev=NAME` means."""


@tag.command(name="set")
@click.argument("name")
@click.option("--revision", required=True, metavar="NAME", help="What the tag means from now on.")
@click.option("--overwrite", is_flag=True, help="Move a tag that there is.")
@reaching
def set_(*, name: str, revision: str, overwrite: bool, kubeconfig: Path | None, context: str | None) -> int:
    """Give a revision a name; `default` is that of namespaces with istio-injection=enabled."""

    async def work(cluster: Cluster) -> int:
        before = next((one for one in await tags(cluster) if one.name == name), None)
        if before is not None and before.revision != revision and not overwrite:
            refuse_with("TUL1116", Exit.FAILED, tag=name, revision=before.revision)
        if name == DEFAULT and any(one.name == DEFAULT for one in await revisions(cluster)):
            refuse_with("TUL1124")
        for one in await objects_of(cluster, name, revision):
            await cluster.applied(one)
        await _stale_gone(cluster, before, name, revision)
        say(f"{name} is {revision}; pods follow when they are restarted")
        return Exit.OK

    return in_cluster(kubeconfig, context, work)


@tag.command()
@click.argument("name")
@click.option("--revision", required=True, metavar="NAME", help="What the tag means.")
@reaching
def generate(*, name: str, revision: str, kubeconfig: Path | None, context: str | None) -> int:
    """Print the objects of a tag."""

    async def work(cluster: Cluster) -> int:
        made = await objects_of(cluster, name, revision)
        click.echo("---\n".join(as_yaml(one) for one in made), nl=False)
        return Exit.OK

    return in_cluster(kubeconfig, context, work)


@tag.command(name="list")
@output_option(Format.TABLE, Format.JSON, Format.YAML)
@reaching
def list_(*, form: Format, kubeconfig: Path | None, context: str | None) -> int:
    """List tags, their revisions, and the namespaces that use them."""

    async def work(cluster: Cluster) -> int:
        found = [(one, await users(cluster, [one.name])) for one in await tags(cluster)]
        rows = [(one.name, one.revision, ",".join(spaces)) for one, spaces in found]
        document = [{"tag": one.name, "revision": one.revision, "namespaces": spaces} for one, spaces in found]
        show(form, _COLUMNS, rows, document=document, empty="no tags")
        return Exit.OK

    return in_cluster(kubeconfig, context, work)


@tag.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Although namespaces use it.")
@reaching
def remove(*, name: str, force: bool, kubeconfig: Path | None, context: str | None) -> int:
    """Take a name away."""

    async def work(cluster: Cluster) -> int:
        before = next((one for one in await tags(cluster) if one.name == name), None)
        if before is None:
            refuse_with("TUL1117", Exit.FAILED, tag=name)
        living = await users(cluster, [name])
        if living and not force:
            what = ", ".join(f"the namespace {one}" for one in living[:5])
            refuse_with("TUL1118", Exit.FAILED, revision=name, what=what)
        for one in await belongings(cluster):
            if labels_of(one).get(TAG) == name:
                await cluster.deleted(one)
        say(f"{name} is gone")
        return Exit.OK

    return in_cluster(kubeconfig, context, work)


async def objects_of(cluster: Cluster, name: str, revision: str) -> list[Json]:
    """The objects of a tag on an installed revision, with the certificate that the revision's own webhook has now."""
    there = await installed(cluster, "" if revision == DEFAULT else revision)
    overlay = {} if revision == DEFAULT else {"revision": revision}
    request = Request(judged("minimal", overlay), there.namespace)
    own = await cluster.read(INJECTORS, Names(there.namespace, revision).wide(INJECTOR))
    bundle = next(
        (
            hook["clientConfig"]["caBundle"]
            for hook in (own or {}).get("webhooks") or ()
            if hook["clientConfig"].get("caBundle")
        ),
        "",
    )
    return [_certified(one, bundle) for one in installation.tag(name, request)]


def _certified(one: Json, bundle: str) -> Json:
    if not bundle or "webhooks" not in one:
        return one
    made = copy.deepcopy(one)
    for hook in made["webhooks"]:
        hook["clientConfig"]["caBundle"] = bundle
    return made


async def _stale_gone(cluster: Cluster, before: Tag | None, name: str, revision: str) -> None:
    """Objects of the tag in the name of a control plane of another namespace."""
    there = await installed(cluster, "" if revision == DEFAULT else revision)
    if before is None or before.namespace == there.namespace:
        return
    for one in await belongings(cluster):
        if labels_of(one).get(TAG) == name and one["metadata"]["name"].endswith(f"-{before.namespace}"):
            await cluster.deleted(one)
