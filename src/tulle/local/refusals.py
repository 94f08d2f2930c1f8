"""Why the local run will not go on: problems of the catalogue that are about this machine, not about an object."""

from __future__ import annotations

from tulle.model.problems import NOWHERE, Problem, problem


class RefusedError(Exception):
    """A command cannot do what it was asked to; `problem` says why and what to do."""

    def __init__(self, found: Problem) -> None:
        super().__init__(f"{found.code}  {found.text}")
        self.problem = found


def refusal(code: str, **arguments: object) -> Problem:
    """A problem of no object."""
    return problem(code, NOWHERE, **arguments)
