"""The Envoy API as a private descriptor pool: message classes, packing into `Any`, and JSON for people.

Knows protobuf and where the schema lies; knows no resource, no mesh. `api.py` names the messages people use;
`extract.py` makes the file read here. Reading that file (package data, once, at first use) is the one exception to
"a pure room does no I/O": it is as constant as the code beside it.
"""

import functools
import importlib.resources
import lzma
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from tulle.xds.glue import field

if TYPE_CHECKING:
    from tulle.xds import api

TYPE_URL_PREFIX = "type.googleapis.com/"
_WELL_KNOWN = (
    descriptor_pb2,
    any_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)


class SchemaMissingError(RuntimeError):
    """This checkout has no schema yet; wheels always carry it."""

    def __init__(self) -> None:
        super().__init__("the Envoy API is missing from this source tree; run: python -m tulle.xds.extract")


@functools.cache
def pool() -> DescriptorPool:
    """The private pool with Envoy's whole API. About 0.1 s once; it shares nothing with protobuf's default pool."""
    try:
        packed = importlib.resources.files("tulle.xds").joinpath("data", "envoy.fds.xz").read_bytes()
    except FileNotFoundError as missing:
        raise SchemaMissingError from missing
    private = DescriptorPool()
    for module in _WELL_KNOWN:
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        private.Add(file)
    for file in FileDescriptorSet.FromString(lzma.decompress(packed)).file:  # dependencies come first
        private.Add(file)
    return private


@functools.cache
def message(full_name: str) -> type[Message]:
    """The class of e.g. `envoy.config.cluster.v3.Cluster`; `KeyError` when this Envoy has no such message."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(full_name))


@functools.cache
def enum(full_name: str) -> EnumTypeWrapper:
    """The names and numbers of e.g. `envoy.config.core.v3.RoutingPriority`; `KeyError` when there is none."""
    return EnumTypeWrapper(pool().FindEnumTypeByName(full_name))


def type_url_of(value: Message) -> str:
    """`type.googleapis.com/` and the full name of the message."""
    return TYPE_URL_PREFIX + str(value.DESCRIPTOR.full_name)


def to_bytes(value: Message) -> bytes:
    """The one serialisation of `value`: equal messages give equal bytes (map keys are sorted)."""
    return value.SerializeToString(deterministic=True)


def _any_class() -> "type[api.Any]":
    return cast("type[api.Any]", message("google.protobuf.Any"))


def to_any(value: Message) -> "api.Any":
    """`value` inside a `google.protobuf.Any` of the private pool, deterministically: for `typed_config` fields."""
    return _any_class()(type_url=type_url_of(value), value=to_bytes(value))


def any_bytes(type_url: str, value: bytes) -> bytes:
    """The serialised `Any` around an already serialised message."""
    return field(1, type_url.encode()) + (field(2, value) if value else b"")


def struct(fields: Mapping[str, Any]) -> "api.Struct":
    """A `google.protobuf.Struct` from plain JSON values (a bare dict would be read as the Struct's own fields)."""
    made = cast("api.Struct", message("google.protobuf.Struct")())
    made.update(dict(fields))
    return made


def duration(span: timedelta) -> "api.Duration":
    """A `google.protobuf.Duration`."""
    made = cast("api.Duration", message("google.protobuf.Duration")())
    made.FromTimedelta(span)
    return made


def to_any_bytes(value: Message) -> bytes:
    """The serialised `Any` holding `value`: the form resources are kept and sent in."""
    return any_bytes(type_url_of(value), to_bytes(value))


def from_any(packed: "api.Any | bytes") -> Message:
    """The message inside an `Any` (message or its bytes); `KeyError` for a type this Envoy does not have."""
    if isinstance(packed, bytes):
        packed = _any_class().FromString(packed)
    return message(str(packed.type_url).removeprefix(TYPE_URL_PREFIX)).FromString(packed.value)


def to_dict(value: Message) -> dict[str, Any]:
    """`value` as proto3 JSON with field names as in the .proto files; slow: for people, not for pushes."""
    shown: dict[str, Any] = json_format.MessageToDict(value, preserving_proto_field_name=True, descriptor_pool=pool())
    return shown


def any_to_dict(packed: bytes) -> dict[str, Any]:
    """The resource inside the bytes of an `Any` as JSON, with its `@type`; nested `Any`s are opened too."""
    return to_dict(_any_class().FromString(packed))


def from_dict(full_name: str, fields: Mapping[str, Any]) -> Message:
    """The message written as proto3 JSON (`@type` inside nested `Any`s).

    Raises `json_format.ParseError`, which names the field, when `fields` do not fit the schema.
    """
    return json_format.ParseDict(dict(fields), message(full_name)(), descriptor_pool=pool())
