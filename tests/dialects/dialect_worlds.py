"""Objects of manifests in a fresh database, for tests."""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from msgspec import Struct

from tulle.dialects.inputs import objects
from tulle.dialects.istio.destination_rule import destination
from tulle.dialects.istio.gateway import gateway
from tulle.dialects.istio.security import authorizations, peer_authentication
from tulle.dialects.istio.virtual_service import route_set
from tulle.engine import Database
from tulle.model.keys import ObjectKey
from tulle.model.objects import Object
from tulle.policies.authorization.spec import Values
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


INTENT = {
    "VirtualService": route_set,
    "DestinationRule": destination,
    "Gateway": gateway,
    "PeerAuthentication": peer_authentication,
    "AuthorizationPolicy": authorizations,
}


def intent_of(db: Database, key: ObjectKey) -> Any:
    """What an Istio object means."""
    return INTENT[key.kind](db, key)


def _is_void(value: Any) -> bool:
    return value is None or value is False or value == "" or value == () or value == Values()


def printed(value: Any) -> Any:
    """Intent as plain values: no origins, and nothing that is as it would be anyway."""
    if isinstance(value, ObjectKey):
        return str(value)
    if isinstance(value, Struct):
        shown = {
            name: printed(getattr(value, name))
            for name in value.__struct_fields__
            if name not in ("origin", "created") and not _is_void(getattr(value, name))
        }
        return {type(value).__name__: shown} if type(value).__module__.startswith("tulle.policies") else shown
    if isinstance(value, tuple | list):
        return [printed(item) for item in value]
    return value.value if isinstance(value, Enum) else value
