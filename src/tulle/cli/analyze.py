"""`tulle analyze`: what is wrong in a running mesh, in files, or in a mesh as it would be with files applied."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from tulle.cli.connection import Connection, connect, mesh_option
from tulle.cli.output import Exit, Finding, as_yaml, count, report, say
from tulle.cli.written import shown_path
from tulle.local.refusals import RefusedError
from tulle.model.keys import ObjectKey
from tulle.model.objects import MeshSettings, Object
from tulle.sources.files import FileSource

_RANK = {"info": 0, "warning": 1, "error": 2}
_NEEDS_PODS = frozenset(("TUL0631",))
"""Said of objects that select no running pod: nonsense where nothing runs."""


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE|DIR]...")
@click.option(
    "--use-mesh/--no-mesh", default=True, help="Together with what runs (if a mesh runs), or the files alone."
)
@click.option("-n", "--namespace", default=None, metavar="NAME", help="For objects that name none.")
@click.option("--failure-threshold", type=click.Choice(list(_RANK)), default="warning", help="What ends with code 79.")
@click.option("--output-threshold", type=click.Choice(list(_RANK)), default="info", help="What is shown.")
@click.option("-S", "--suppress", multiple=True, metavar="CODE=KIND/NS/NAME", help="Leave out; * stands for anything.")
@click.option("-o", "--output", "form", type=click.Choice(["log", "json", "yaml"]), default="log", help="Form.")
@mesh_option
def analyze(*, files: tuple[str, ...], use_mesh: bool, namespace: str | None, **rest: Any) -> int:
    """Look for mistakes: in the running mesh, in files, or in the mesh as it would be with these files applied.

    Ends with code 79 when something is found.
    """
    connection = _connection(rest["mesh"], is_needed=not files) if use_mesh else None
    if not files and connection is None:
        raise click.UsageError("Give files, or leave --no-mesh out.")
    if connection and not files:
        found = live(connection)
    else:
        place = namespace or (connection.default_namespace if connection else "default")
        found = together(connection, files, place)
    shown = [
        one
        for one in found
        if _RANK[one.severity] >= _RANK[rest["output_threshold"]] and not _is_suppressed(one, rest["suppress"])
    ]
    _print(shown, rest["form"])
    failed = [one for one in shown if _RANK[one.severity] >= _RANK[rest["failure_threshold"]]]
    return Exit.FINDINGS if failed else Exit.OK


def live(connection: Connection) -> list[Finding]:
    """Every problem of the running mesh."""
    return [Finding.told(raw) for raw in connection.get("/v1/problems")["problems"]]


def together(connection: Connection | None, files: Sequence[str], namespace: str) -> list[Finding]:
    """The problems of files, and of all objects among each other with these in place of what runs."""
    fresh = FileSource([Path(name) for name in files], namespace=namespace)
    fresh.reload()
    sources = [fresh]
    objects: dict[ObjectKey, Object] = {}
    if connection is not None and connection.cluster is not None:
        from tulle.cli.cluster_objects import objects_of

        objects |= objects_of(connection.cluster)
    elif connection is not None:
        places = connection.places
        watched = [Path(name) for name in places.described().get("manifests", ())]
        for paths in ([places.runtime], [*watched, places.config_directory]):
            sources.append(FileSource([path for path in dict.fromkeys(paths) if path.exists()], namespace=namespace))
            sources[-1].reload()
    for source in reversed(sources):
        objects.update(source.objects)
    found = [Finding.of(one.problem, one.place.file, one.place.line) for one in fresh.problems]
    return [*found, *_among(objects, sources)]


def _among(objects: Mapping[ObjectKey, Object], sources: Iterable[FileSource]) -> Iterable[Finding]:
    from tulle.dialects.analysis import problems_of
    from tulle.dialects.inputs import objects as objects_input
    from tulle.dialects.inputs import settings
    from tulle.engine import Database

    db = Database()
    with db.edit() as tx:
        tx.set(settings, MeshSettings())
        for key, value in objects.items():
            tx.set(objects_input, key, value)
    has_pods = any(key.kind == "Pod" for key in objects)
    for key in sorted(objects):
        for found in problems_of(db, key):
            if not has_pods and found.code in _NEEDS_PODS:
                continue
            place = next((place for source in sources if (place := source.locate(found.origin))), None)
            yield Finding.of(found, *((place.file, place.line) if place else ("", 0)))


def _connection(mesh: str | None, *, is_needed: bool) -> Connection | None:
    try:
        return connect(mesh)
    except RefusedError:
        if is_needed or mesh:
            raise
        return None


def _is_suppressed(one: Finding, words: Iterable[str]) -> bool:
    for word in words:
        code, equals, pattern = word.partition("=")
        if code == one.code and (not equals or fnmatchcase(one.subject, pattern)):
            return True
    return False


def _print(found: Sequence[Finding], form: str) -> None:
    seen = [one._replace(file=shown_path(one.file)) for one in found]
    documents = [one.document() for one in found]
    if form == "json":
        import json

        click.echo(json.dumps(documents, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(as_yaml(documents), nl=False)
    else:
        report(seen, sys.stdout)
        numbers = {kind: sum(one.severity == kind for one in found) for kind in reversed(_RANK)}
        words = [count(number, kind) for kind, number in numbers.items() if number and kind != "info"]
        say(f"{', '.join(words)} found" if words else "nothing is wrong")
