"""What ends an installation before it begins: a problem of the catalogue as an exception."""

from tulle.model.problems import NOWHERE, Problem, problem


class RefusedError(Exception):
    """The values cannot be installed."""

    def __init__(self, found: Problem) -> None:
        super().__init__(found.text)
        self.problem = found


def refused(code: str, **arguments: object) -> RefusedError:
    """The refusal of a code."""
    return RefusedError(problem(code, NOWHERE, **arguments))
