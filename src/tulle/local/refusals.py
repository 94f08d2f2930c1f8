"""Why the local run will not go on: problems of the catalogue that are about this machine, not about an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tulle.model.problems import Problem


class RefusedError(Exception):
    """A command cannot do what it was asked to; `problem` says why and what to do."""

    def __init__(self, found: Problem) -> None:
        super().__init__(f"{found.code}  {found.text}")
        self.problem = found


def refusal(code: str, **arguments: object) -> Problem:
    """A problem of no object."""
    from tulle.model.problems import NOWHERE, problem  # noqa: PLC0415 - the catalogue costs what a start cannot spare

    return problem(code, NOWHERE, **arguments)
