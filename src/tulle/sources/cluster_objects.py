"""Objects as the Kubernetes API sends them, decoded: only the fields that are read, straight into their structs.

Pure. Kubernetes has judged its own kinds, so their envelope is taken as it is; where an object does not fit after all, and for every
kind with rules of its own (Istio's, Secrets), `dialects.reading` reads it as it would a manifest. Which objects count is `kubernetes.py`'s.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw, Struct, defstruct, field
from msgspec.structs import fields

from tulle.dialects.kinds import KindRead
from tulle.dialects.kubernetes.schema import ObjectMeta, OwnerReference
from tulle.dialects.reading import read
from tulle.kube.discovery import Resource
from tulle.kube.reflector import Item, Name
from tulle.model.keys import Labels, ObjectKey, labels_of
from tulle.model.objects import Object
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The whole object once more, as text: read by nobody here."""


class Found(Struct, gc=False):
    """An object of the cluster, or what is wrong with it."""

    key: ObjectKey
    object: Object | None
    problems: tuple[Problem, ...] = ()
    private: Any = None
    generation: int = 0
    """metadata.generation: which edit of the spec this is, for status."""


class _Envelope(Struct, rename="camel", gc=False):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()


class _Bare(Struct):
    metadata: _Envelope


_BARE = msgspec.json.Decoder(_Bare)

Decode = Callable[[Raw], Item]


def decoder_of(kind: KindRead, resource: Resource, cluster: str) -> Decode:
    """How objects of a kind are decoded; an Item's value is a `Found`. Raises MsgspecError for what is no object at all."""
    careful = _careful(resource, cluster)
    if kind.make is not None or kind.is_strict or kind.schema is dict:
        return careful
    return _quick(kind, resource, cluster, careful)


def _quick(kind: KindRead, resource: Resource, cluster: str, careful: Decode) -> Decode:
    wire = _wire_of(kind)
    decode = msgspec.json.Decoder(wire).decode
    value_of = _part_of(kind) if kind.root else _whole_of(kind)
    is_namespaced = resource.is_namespaced

    def decoded(raw: Raw) -> Item:
        try:
            seen: Any = decode(raw)
        except msgspec.ValidationError:
            return careful(raw)
        value = value_of(seen)
        if value is None:
            return careful(raw)
        envelope: _Envelope = seen.metadata
        key = ObjectKey(cluster, kind.group, kind.kind, envelope.namespace if is_namespaced else "", envelope.name)
        problems = kind.check(value, Origin(key, kind.root)) if kind.check is not None else ()
        is_refused = any(one.severity == "error" for one in problems)
        found = Found(key, None if is_refused else _object(key, value, envelope), problems)
        return Item(Name(key.namespace, key.name), envelope.resource_version, found)

    return decoded


def _object(key: ObjectKey, value: Any, envelope: _Envelope) -> Object:
    return Object(
        key=key,
        spec=value,
        labels=labels_of(envelope.labels),
        annotations=_annotations(envelope.annotations),
        uid=envelope.uid,
        created=envelope.creation_timestamp or "",
    )


def _annotations(written: dict[str, str] | None) -> Labels:
    if written:
        written.pop(LAST_APPLIED, None)
    return labels_of(written)


def _wire_of(kind: KindRead) -> type[Struct]:
    """The kind's own fields behind an envelope that holds what `Object` holds."""
    own: list[Any]
    if kind.root:
        own = [(kind.root, kind.schema | None, None)]
    else:
        own = [
            (one.name, one.type, _like(one.encode_name, one.default, one.default_factory))
            for one in fields(kind.schema)
            if one.name != "metadata"
        ]
    return defstruct(f"_{kind.kind}OnTheWire", [("metadata", _Envelope), *own], kw_only=True)


def _like(name: str, default: Any, factory: Any) -> Any:
    made: Any = field
    return made(name=name, default=default, default_factory=factory)


def _part_of(kind: KindRead) -> Callable[[Any], Any]:
    root, schema, is_required = kind.root, kind.schema, kind.requires_root

    def value(seen: Any) -> Any:
        found = getattr(seen, root)
        return schema() if found is None and not is_required else found

    return value


def _whole_of(kind: KindRead) -> Callable[[Any], Any]:
    schema = kind.schema
    own = [one.name for one in fields(schema) if one.name != "metadata"]
    has_metadata = any(one.name == "metadata" for one in fields(schema))
    if not has_metadata:
        return lambda seen: schema(**{name: getattr(seen, name) for name in own})

    def value(seen: Any) -> Any:
        envelope: _Envelope = seen.metadata
        metadata = ObjectMeta(
            deletion_timestamp=envelope.deletion_timestamp, owner_references=envelope.owner_references
        )
        return schema(metadata=metadata, **{name: getattr(seen, name) for name in own})

    return value


def _careful(resource: Resource, cluster: str) -> Decode:
    def decoded(raw: Raw) -> Item:
        envelope = _BARE.decode(raw).metadata
        name = Name(envelope.namespace, envelope.name)
        key = ObjectKey(cluster, resource.group, resource.kind, *name)
        try:
            found = _read(raw, resource, key, envelope.generation)
        except Exception as error:  # noqa: BLE001 - a rule that breaks on one object must not stop the watch of all others
            # The text of the error might quote the object, which may be a Secret: its type alone.
            found = Found(key, None, (problem("TUL1006", Origin(key), reason=type(error).__name__),))
        return Item(name, envelope.resource_version, found)

    return decoded


def _read(raw: Raw, resource: Resource, key: ObjectKey, generation: int) -> Found:
    whole: dict[str, Any] = msgspec.json.decode(raw)
    # Items of a list do not say what they are.
    whole["apiVersion"], whole["kind"] = resource.api_version, resource.kind
    annotations = whole["metadata"].get("annotations")
    if isinstance(annotations, dict):
        annotations.pop(LAST_APPLIED, None)
    result = read(whole, key.cluster, "")
    return Found(result.key or key, result.object, result.problems, result.private, generation)
