"""Objects of manifests in a fresh database, for tests."""

from collections.abc import Iterable
from pathlib import Path

from tulle.dialects.inputs import objects
from tulle.engine import Database
from tulle.model.objects import Object
from tulle.sources.files import FileSource


def world_of(found: Iterable[Object]) -> Database:
    """A database that runs every query twice."""
    db = Database(check_purity=True)
    with db.edit() as edit:
        for one in found:
            edit.set(objects, one.key, one)
    return db


def loaded(*paths: Path) -> tuple[FileSource, Database]:
    """A source of the files, and their objects."""
    source = FileSource(paths)
    return source, world_of(source.reload().sets)
