"""`tulle apply`: check manifests here, write them into the mesh's files, and wait until every proxy acknowledged."""

from pathlib import Path

import click

from tulle.cli.answers import verdict
from tulle.cli.connection import Connection, connect, mesh_option, the_namespace
from tulle.cli.kinds import slashed
from tulle.cli.manifests import Files, Manifests, Written, manifests
from tulle.cli.output import Exit, is_error, report, say

SLACK_S = 5.0
"""What the control plane may take beyond the time it was given."""


@click.command()
@click.option(
    "-f", "--filename", "names", multiple=True, required=True, metavar="FILE|DIR|-", help="Manifests; - is stdin."
)
@click.option("-n", "--namespace", default=None, metavar="NAME", help="For objects that name none.")
@click.option("--wait/--no-wait", default=True, help="Wait until every affected proxy has it.")
@click.option("--timeout", default=30.0, metavar="SECONDS", help="How long to wait.")
@click.option("--dry-run", is_flag=True, help="Check and say what would change; write nothing.")
@mesh_option
def apply(
    *, names: tuple[str, ...], namespace: str | None, wait: bool, timeout: float, dry_run: bool, mesh: str | None
) -> int:
    """Change configuration and wait until every proxy has it."""
    place = the_namespace(mesh, namespace)
    found = checked(manifests(names, place))
    if found is None:
        return Exit.BAD_INPUT
    connection = connect(mesh)
    if connection.cluster is not None:
        from tulle.cli.apply_cluster import apply_objects

        return apply_objects(connection.cluster, found.documents, place, timeout, wait=wait, dry_run=dry_run)
    files = files_of_mesh(connection, place)
    written = [files.put(document) for document in found.documents]
    if dry_run:
        tell(written, " (dry run)")
        return Exit.OK
    revision = revision_of(connection)
    touched = files.save()
    tell(written)
    if not wait:
        return Exit.OK
    paths = dict.fromkeys([*touched, *(one.path for one in written)])
    return verdict(settled(connection, paths, timeout, revision))


def checked(found: Manifests) -> Manifests | None:
    """The manifests, with their warnings told; None (and the errors told) where something in them is refused."""
    report(found.findings)
    errors = sum(is_error(one) for one in found.findings)
    if errors:
        say(f"nothing was changed: {errors} error{'s' if errors > 1 else ''}")
        return None
    return found


def files_of_mesh(connection: Connection, namespace: str = "default") -> Files:
    """The manifests a mesh runs on."""
    watched = [Path(name) for name in connection.places.described().get("manifests", ())]
    return Files(watched, connection.places.config_directory, namespace)


def revision_of(connection: Connection) -> int:
    """The revision before anything is written, which also shows that the control plane is there."""
    return int(connection.get("/v1/version")["revision"])


def settled(connection: Connection, paths: dict[Path, None], timeout_s: float, revision: int) -> dict[str, object]:
    """The control plane's answer when it has read these files and proxies have answered."""
    body = {"paths": [str(path) for path in paths], "timeoutSeconds": timeout_s, "sinceRevision": revision}
    answer: dict[str, object] = connection.post("/v1/apply", body, timeout_s + SLACK_S)
    return answer


def tell(written: list[Written], note: str = "") -> None:
    """One line per object, as kubectl has it."""
    for one in written:
        click.echo(f"{slashed(one.key)} {one.what}{note}")
