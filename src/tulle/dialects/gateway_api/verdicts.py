"""Why something is not so: what status says, and traffic rests on."""

from msgspec import Struct


class Verdict(Struct, frozen=True):
    """Why something is not so: a reason of the API, and a sentence."""

    reason: str
    message: str
