"""Where a value comes from: object and field.

File and line are looked up at the rim (sources), so that moving text in a file recomputes nothing.
"""

from typing import NamedTuple

from tulle.model.keys import ObjectKey


class Origin(NamedTuple):
    """A field of an object."""

    object: ObjectKey
    path: str = ""
    """Dotted path with indexes as kubectl prints it: `spec.http[0].route[1].weight`; empty for the object itself."""

    def at(self, *steps: str | int) -> "Origin":
        """The origin of something inside: `origin.at("http", 0, "route")`."""
        path = self.path
        for step in steps:
            path += f"[{step}]" if isinstance(step, int) else (f".{step}" if path else step)
        return Origin(self.object, path)

    def __str__(self) -> str:
        return f"{self.object} {self.path}".rstrip()
