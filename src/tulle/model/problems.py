"""Problems are values: a code of the catalogue, the arguments of its sentence, and the origin of the field at fault.

The catalogue (`messages.yaml`) is the one source of every sentence users see: CLI, status, webhook and docs.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from msgspec import Struct, convert

from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin


class Severity(StrEnum):
    """What a problem does to its object."""

    ERROR = "error"
    """The object is refused; what worked before goes on."""
    WARNING = "warning"
    """The object is accepted; something in it does not do what it says."""
    INFO = "info"


class Message(Struct, frozen=True):
    """One entry of the catalogue."""

    code: str
    """`TUL` and four digits; never reused."""
    name: str
    """CamelCase, for status conditions."""
    severity: Severity
    text: str
    """What is wrong, with `{argument}` places."""
    advice: str
    """What to do."""


class Problem(Struct, frozen=True):
    """One problem at one place."""

    code: str
    origin: Origin
    arguments: tuple[tuple[str, str], ...] = ()

    @property
    def message(self) -> Message:
        """The catalogue's entry."""
        return catalogue()[self.code]

    @property
    def severity(self) -> Severity:
        """The catalogue's severity."""
        return self.message.severity

    @property
    def text(self) -> str:
        """What is wrong, as a sentence."""
        return self.message.text.format_map(dict(self.arguments))

    @property
    def advice(self) -> str:
        """What to do about it."""
        return self.message.advice.format_map(dict(self.arguments))


def problem(code: str, origin: Origin, **arguments: object) -> Problem:
    """A problem with its sentence's arguments, stringified."""
    return Problem(code, origin, tuple((name, str(value)) for name, value in arguments.items()))


NOWHERE = Origin(ObjectKey("", "", "", "", ""))
"""For problems of text that is not an object yet."""


@cache
def catalogue() -> Mapping[str, Message]:
    """Every message by code.

    Package data read once: the one I/O of this room.
    """
    text = (files("tulle.model") / "messages.yaml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.load(text, yaml.CSafeLoader)
    messages = [convert(entry, Message) for entry in entries]
    return {message.code: message for message in messages}
