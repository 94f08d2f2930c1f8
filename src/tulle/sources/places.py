"""Where things are in files: the join between an origin (object and field) and file, line and column.

Pure. Kept outside the engine, so that moving text in a file recomputes nothing.
"""

from typing import NamedTuple

from msgspec import Struct

from tulle.model.problems import Problem, Severity


class Place(NamedTuple):
    """A place in a file; line and column count from 1. Line 0: the file as a whole."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Reported(Struct, frozen=True):
    """A problem and the place a user has to look at."""

    problem: Problem
    place: Place

    def __str__(self) -> str:
        found = self.problem
        return f"{self.place}: {found.severity.value} {found.code} {found.text}. {found.advice}"

    @property
    def is_error(self) -> bool:
        """Whether something was refused."""
        return self.problem.severity is Severity.ERROR
