"""What a dialect says of one kind: its names, its schema and its own rules. Types only."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from tulle.model.origin import Origin
from tulle.model.problems import Problem


class Scope(StrEnum):
    """Where names of a kind are unique."""

    NAMESPACED = "Namespaced"
    CLUSTER = "Cluster"


class NameRule(StrEnum):
    """Which names Kubernetes allows for a kind."""

    SUBDOMAIN = "subdomain"
    """RFC 1123 subdomain, up to 253 characters."""
    LABEL = "label"
    """RFC 1123 label, up to 63 characters."""


class Made(Struct, frozen=True):
    """A value that a kind made itself."""

    value: Any
    """None: refused."""
    problems: tuple[Problem, ...] = ()
    private: Any = None
    """What must never be an engine value: for the vault."""


class KindRead(Struct, frozen=True):
    """How objects of one kind are read."""

    group: str
    """API group; empty for the core group."""
    kind: str
    versions: tuple[str, ...]
    """Every served version; all of them are one object."""
    schema: Any
    """A frozen Struct (rename="camel", every field with a default unless required); `dict` keeps the body as it is."""
    scope: Scope = Scope.NAMESPACED
    root: str = "spec"
    """The part of the object the schema describes; empty: the whole object, metadata included."""
    check: Callable[[Any, Origin], tuple[Problem, ...]] | None = None
    """Rules that types cannot say. Gets the decoded struct and the origin of its root. An error refuses the object."""
    make: Callable[[dict[str, Any], Origin], "Made"] | None = None
    """Makes the value instead of decoding it, from the whole object: for kinds with bytes that must not be kept."""
    name_rule: NameRule = NameRule.SUBDOMAIN
    is_enforced: bool = True
    """False: read and kept, with a warning that nothing acts on it."""
    is_strict: bool = True
    """False: fields beside `spec` and unknown metadata pass in silence, as Kubernetes' own kinds do."""
    requires_root: bool = True
    """False: an object without `spec` means the schema's defaults."""
    counts_generation: bool = False
    """Whether the generation is part of the object, because its status is an answer of the engine."""


UNENFORCED = Meta(extra={"unenforced": True})
"""Marks a field of a foreign API that nothing acts on yet: a value other than the default is reported (TUL0201)."""

LENIENT_TEXT = Meta(extra={"lenient": True})
"""Marks text for which a YAML boolean is taken as its word, with a warning (TUL0204)."""

DEPRECATED = Meta(extra={"deprecated": True})
"""Marks a field that is honoured and reported (TUL0205) by the kind's check."""

_DURATION = r"^[-+]?(?:0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)\Z"
Duration = Annotated[str, Meta(pattern=_DURATION, extra={"is": "duration"})]
"""A protobuf or Go duration: `1.5s`, `250ms`, `1h30m`."""

PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Unsigned = Annotated[int, Meta(ge=0, le=4294967295)]
Percent = Annotated[float, Meta(ge=0, le=100)]
