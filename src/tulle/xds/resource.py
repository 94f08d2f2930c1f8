"""One xDS resource as bytes named by their hash, and a reference to one whose bytes must not be kept.

Knows nothing of streams (`conversation.py`) nor of what the message says.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

from google.protobuf.message import Message

from tulle.xds import glue, schema
from tulle.xds.names import ResourceName, TypeUrl, Version


def version_of(content: bytes) -> Version:
    """Sixteen hex digits of the content's BLAKE2b: the same on every replica."""
    return Version(blake2b(content, digest_size=8).hexdigest())


def framed(name: str, version: str, body: bytes, alias: str = "") -> bytes:
    """One resource of a DeltaDiscoveryResponse, field tag included; `body` is its serialised `Any`.

    With `alias`, an on-demand lookup under that name is answered by it (docs/facts/envoy.md §1).
    """
    named = glue.field(3, name.encode()) + glue.field(1, version.encode())
    if alias:
        named += glue.field(4, alias.encode())
    named += glue.head(2, len(body))
    return b"".join((glue.head(2, len(named) + len(body)), named, body))


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """A serialised `Any` under its name; two are equal when type, name and content hash are."""

    type_url: TypeUrl
    name: ResourceName
    version: Version
    frame: bytes = field(repr=False)
    """`framed`, once for all who are sent it; it ends with the body."""
    body_size: int = field(repr=False)
    is_empty: bool = False
    """Offers nothing (a cluster without endpoints): to get it is to lose what was there before, as by a removal."""
    is_door: bool = False
    """Ends a wait: only who asks for it by name gets it, and gets it behind everything else of the snapshot."""

    @classmethod
    def of(cls, message: Message, name: str, *, is_door: bool = False) -> "Resource":
        """Serialise `message`; `ValueError` when it is not a resource type a stream can ask for."""
        return cls._of_body(TypeUrl(schema.type_url_of(message)), name, schema.to_any_bytes(message), is_door=is_door)

    @classmethod
    def glued(cls, type_url: TypeUrl, name: str, value: bytes, *, is_empty: bool = False) -> "Resource":
        """A resource from its serialised message (endpoint fragments concatenate), wrapped without parsing it."""
        return cls._of_body(type_url, name, schema.any_bytes(type_url.value, value), is_empty=is_empty)

    @classmethod
    def _of_body(
        cls, type_url: TypeUrl, name: str, body: bytes, *, is_empty: bool = False, is_door: bool = False
    ) -> "Resource":
        version = version_of(body)
        frame = framed(name, version, body, name if type_url is TypeUrl.VHDS else "")
        return cls(type_url, ResourceName(name), version, frame, len(body), is_empty, is_door)

    @property
    def body(self) -> bytes:
        """The `google.protobuf.Any`, serialised: what goes into a response's `resource` field."""
        return self.frame[-self.body_size :]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resource):
            return NotImplemented
        return (self.version, self.name, self.type_url) == (other.version, other.name, other.type_url)

    def __hash__(self) -> int:
        return hash((self.version, self.name))


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret as the graph knows it: its name and the digest of its content, never the content."""

    name: ResourceName
    digest: str
    """Changes exactly when the secret's bytes do; serves as the resource's version."""

    @property
    def type_url(self) -> TypeUrl:
        """Always SDS."""
        return TypeUrl.SDS

    @property
    def is_empty(self) -> bool:
        """Never: a secret without bytes is absent."""
        return False

    @property
    def is_door(self) -> bool:
        """Never: nobody waits for a secret by an on-demand lookup."""
        return False

    @property
    def version(self) -> Version:
        """The digest, in the form other resources have."""
        return Version(self.digest)


Entry = Resource | SecretRef
"""What a snapshot holds under a name."""

SecretBytes = Callable[[SecretRef], bytes | None]
"""Joins a reference to the bytes of its `Any` at send time; None when this identity may not have it (any more)."""
