"""Intent and plan as plain values for YAML: what differs from the default, origins as words. Knows no kind of piece."""

from enum import Enum
from typing import Any

from msgspec import NODEFAULT, Struct, structs

from tulle.model.keys import ObjectKey, ServiceKey, WorkloadKey
from tulle.model.origin import Origin


def readable(value: Any) -> Any:
    """Dictionaries, lists, text and numbers; tagged structs say which they are. O(size)."""
    if isinstance(value, Origin | ObjectKey):
        return str(value)
    if isinstance(value, ServiceKey):
        return f"{value.namespace}/{value.host}"
    if isinstance(value, WorkloadKey):
        return f"{value.namespace}/{value.name}"
    if isinstance(value, Struct):
        return _struct(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [readable(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _struct(value: Struct) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    tag = value.__struct_config__.tag
    if tag or not _is_plan(value):
        shown["is"] = type(value).__name__
    for field in structs.fields(value):
        item = getattr(value, field.name)
        if item in ((), None, "") or (field.default is not NODEFAULT and item == field.default):
            continue
        shown[field.name] = readable(item)
    return shown


def _is_plan(value: Struct) -> bool:
    """Policies are told apart by their class only."""
    return type(value).__module__.startswith("tulle.model.")
