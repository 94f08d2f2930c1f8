"""What the engine refuses, as exceptions: each is a defect of the caller's code, never of a user's configuration.

Must not know what queries mean. Problems of users are values of queries and live with the caller.
"""

from __future__ import annotations

import reprlib
from typing import TypeAlias

Call: TypeAlias = tuple[str, tuple[object, ...]]
"""A query's name and its arguments."""


def written(call: Call) -> str:
    """The call as a person writes it, long arguments shortened: `routes_for('a', 3)`."""
    name, args = call
    return f"{name}({', '.join(map(reprlib.repr, args))})"


class EngineError(Exception):
    """The engine was used against its rules."""


class CycleError(EngineError):
    """A query needs its own answer."""

    def __init__(self, calls: list[Call]) -> None:
        first = min(range(len(calls)), key=lambda at: (calls[at][0], repr(calls[at][1])))
        self.chain: tuple[Call, ...] = (*calls[first:], *calls[:first])
        """The members in order of asking. Starts at the smallest name, wherever the cycle was entered."""
        super().__init__(" -> ".join(written(call) for call in (*self.chain, self.chain[0])))


class ImpureQuery(EngineError):  # noqa: N818 - says who is guilty
    """A query run twice on the same inputs answered, or asked, differently."""

    def __init__(self, call: Call, difference: str) -> None:
        self.call = call
        super().__init__(f"{written(call)} is not pure: {difference}")


class InsideQuery(EngineError):  # noqa: N818 - says where
    """Something that a query must not do was done while one ran."""

    def __init__(self, deed: str, call: Call) -> None:
        super().__init__(f"{deed} inside {written(call)}: a query may only read")
