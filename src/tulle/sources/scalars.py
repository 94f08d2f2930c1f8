"""What a plain YAML scalar means, as Kubernetes reads it: YAML 1.1 booleans and octal numbers, but no dates and no sixties.

Pure. Knows no document.
"""

import re

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {
    word: truth
    for truth, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for lower in words
    for word in (lower, lower.capitalize(), lower.upper())
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)\Z")
_BASED = re.compile(r"([-+]?)0(?:x([0-9a-fA-F_]+)|b([01_]+)|o?([0-7_]+))\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_MAX_DIGITS = 100

Scalar = str | int | float | bool | None


class Unfit(Exception):  # noqa: N818 - the caller turns it into a problem
    """A scalar that cannot be read: a code of the catalogue and its arguments."""

    def __init__(self, code: str, **arguments: str) -> None:
        super().__init__(code)
        self.code = code
        self.arguments = arguments


def plain_scalar(text: str) -> Scalar:
    """The value of a scalar without quotes and tag."""
    if text in _NULL:
        return None
    first = text[0]
    if first.isalpha():
        return _BOOLEANS.get(text, text)
    if first.isdigit() or first in "+-.":
        return _number(text)
    return text


def _number(text: str) -> Scalar:
    if _INTEGER.match(text):
        if len(text) > _MAX_DIGITS:
            raise Unfit("TUL0018", digits=str(_MAX_DIGITS))
        return int(text.replace("_", ""))
    based = _BASED.match(text)
    if based and len(text) <= _MAX_DIGITS:
        sign, hexadecimal, binary, octal = based.groups()
        digits, radix = next((d, r) for d, r in ((hexadecimal, 16), (binary, 2), (octal, 8)) if d is not None)
        digits = digits.replace("_", "")
        return int(sign + digits, radix) if digits else text
    if _FLOAT.match(text):
        value = float(text.replace("_", ""))
        # What JSON cannot say stays text: the kind's own types then refuse it.
        return text if value in (float("inf"), float("-inf")) else value
    return text


def tagged_scalar(tag: str, text: str) -> Scalar:
    """The value of a scalar with an explicit tag of YAML's core schema."""
    match tag.removeprefix("tag:yaml.org,2002:"):
        case "str" | "binary":
            return text
        case "int" | "float" | "bool" | "null" as kind:
            value = plain_scalar(text)
            names = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
            if isinstance(value, names[kind]):  # type: ignore[arg-type]
                return value
            raise Unfit("TUL0012", tag=tag)
        case _:
            raise Unfit("TUL0012", tag=tag)
