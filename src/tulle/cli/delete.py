"""`tulle delete`: take objects out of the mesh's files, and wait until every proxy has let go of them."""

import click

from tulle.cli.answers import verdict
from tulle.cli.apply import files_of_mesh, revision_of, settled, tell
from tulle.cli.connection import connect, mesh_option, the_namespace
from tulle.cli.kinds import kind_named, slashed
from tulle.cli.manifests import CLUSTER, manifests
from tulle.cli.output import Exit, refuse, report, say
from tulle.model.keys import ObjectKey


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE|DIR|-", help="Manifests that name the objects.")
@click.option("-n", "--namespace", default=None, metavar="NAME", help="Namespace of the objects.")
@click.option("--ignore-not-found", is_flag=True, help="Objects that are not there are no failure.")
@click.option("--wait/--no-wait", default=True, help="Wait until every affected proxy has let go.")
@click.option("--timeout", default=30.0, metavar="SECONDS", help="How long to wait.")
@click.option("--dry-run", is_flag=True, help="Say what would go; write nothing.")
@mesh_option
def delete(
    *,
    kind: str | None,
    names: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str | None,
    ignore_not_found: bool,
    wait: bool,
    timeout: float,
    dry_run: bool,
    mesh: str | None,
) -> int:
    """Remove configuration and wait until every proxy has let go of it."""
    place = the_namespace(mesh, namespace)
    keys = _keys(kind, names, files, place)
    connection = connect(mesh)
    if connection.cluster is not None:
        from tulle.cli.apply_cluster import delete_objects

        return delete_objects(
            connection.cluster, keys, timeout, wait=wait, dry_run=dry_run, ignore_not_found=ignore_not_found
        )
    held = files_of_mesh(connection, place)
    removed, missing = [], []
    for key in keys:
        one = held.remove(key)
        if one is None:
            missing.append(key)
        else:
            removed.append(one)
    for key in missing:
        say(f"{slashed(key)} is in no file of the mesh {connection.places.name}")
    if missing and not ignore_not_found:
        return Exit.FAILED
    if dry_run:
        tell(removed, " (dry run)")
        return Exit.OK
    revision = revision_of(connection)
    touched = held.save()
    tell(removed)
    if not touched or not wait:
        return Exit.OK
    return verdict(settled(connection, dict.fromkeys(touched), timeout, revision), "gone from")


def _keys(kind: str | None, names: tuple[str, ...], files: tuple[str, ...], namespace: str) -> list[ObjectKey]:
    if bool(files) == bool(kind):
        raise click.UsageError("Give either -f FILE or KIND NAME.")
    if files:
        found = manifests(files, namespace)
        report([one for one in found.findings if not one.subject])
        return list(dict.fromkeys(document.key for document in found.documents))
    assert kind is not None
    word, slash, name = kind.partition("/")
    names = (name, *names) if slash else names
    if not names:
        raise click.UsageError("Name the objects to delete.")
    found_kind = kind_named(word)
    if found_kind is None:
        refuse(f"{word} is no kind of this mesh", Exit.USAGE)
    place = namespace if found_kind.is_namespaced else ""
    return [ObjectKey(CLUSTER, found_kind.group, found_kind.kind, place, name) for name in names]
