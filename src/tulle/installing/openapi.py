"""Frozen structs to structural OpenAPI v3 schemas, as CustomResourceDefinitions want them.

Pure. Knows no kind. What a schema cannot say is judged by the kind's check. Source: Kubernetes, "Specifying a structural schema";
patterns are Go's there, so Python's end of text is spelled `$`.
"""

from typing import Any, Final

from msgspec import inspect

_ANYTHING: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_ANY: Final = {"x-kubernetes-preserve-unknown-fields": True}
_SCALARS: Final[dict[type[inspect.Type], str]] = {
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "boolean",
}


def schema_of(struct: Any) -> dict[str, Any]:
    """The schema of a struct's wire form; `dict`: any object. Raises TypeError for what a schema cannot hold."""
    if struct is dict:
        return dict(_ANYTHING)
    return _schema(inspect.type_info(struct))


def _schema(kind: inspect.Type) -> dict[str, Any]:
    if isinstance(kind, inspect.Metadata):
        # what we take with a warning must reach us: a schema that says "string" would have the API server refuse it
        return dict(_ANY) if (kind.extra or {}).get("lenient") else _schema(kind.type)
    if isinstance(kind, inspect.UnionType):
        return _union(kind)
    if isinstance(kind, inspect.StructType):
        return _struct(kind)
    if isinstance(kind, inspect.DictType):
        return _mapping(kind)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return {"type": "array", "items": _schema(kind.item_type)}
    if isinstance(kind, inspect.LiteralType):
        return {"type": "string", "enum": sorted(kind.values)}
    if isinstance(kind, inspect.AnyType):
        return dict(_ANY)
    return _scalar(kind)


def _union(kind: inspect.UnionType) -> dict[str, Any]:
    options = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
    if len(options) == 1:
        return _schema(options[0])
    found = {_SCALARS.get(type(one), "") for one in options}
    if found == {"integer", "string"}:
        return {"x-kubernetes-int-or-string": True}
    raise TypeError(f"a structural schema cannot say {kind}")


def _struct(kind: inspect.StructType) -> dict[str, Any]:
    properties = {field.encode_name: _schema(field.type) for field in kind.fields}
    required = [field.encode_name for field in kind.fields if field.required]
    made: dict[str, Any] = {"type": "object"}
    if properties:
        made["properties"] = properties
    if required:
        made["required"] = required
    return made


def _mapping(kind: inspect.DictType) -> dict[str, Any]:
    if isinstance(kind.value_type, inspect.AnyType):
        return dict(_ANYTHING)
    return {"type": "object", "additionalProperties": _schema(kind.value_type)}


def _scalar(kind: inspect.Type) -> dict[str, Any]:
    name = _SCALARS.get(type(kind))
    if name is None:
        raise TypeError(f"a structural schema cannot say {kind}")
    made: dict[str, Any] = {"type": name}
    for attribute, word in (
        ("ge", "minimum"),
        ("le", "maximum"),
        ("min_length", "minLength"),
        ("max_length", "maxLength"),
    ):
        limit = getattr(kind, attribute, None)
        if limit is not None:
            made[word] = limit
    pattern = getattr(kind, "pattern", None)
    if pattern:
        made["pattern"] = pattern.replace(r"\Z", "$")
    return made
