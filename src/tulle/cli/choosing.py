"""What the commands of an installation have in common: profile, revision, files of values, `--set`, and their refusals.

Reads files; what values mean is `installing`'s.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import click
import msgspec
import yaml

from tulle.app.settings import Settings
from tulle.cli.output import Exit, refuse
from tulle.injecting.settings import InjectionSettings
from tulle.installing.installation import NAMESPACE
from tulle.installing.refusals import RefusedError, refused
from tulle.installing.values import PROFILES, Values, laid, setting, values_of

F = TypeVar("F", bound=Callable[..., Any])


class Choice(NamedTuple):
    """What was asked for on the command line."""

    profile: str
    namespace: str
    revision: str
    files: tuple[Path, ...]
    assignments: tuple[str, ...]

    def overlay(self) -> dict[str, Any]:
        """What was asked for beside the profile: files, `--set`, `--revision`. Ends the command if it is refused."""
        made: dict[str, Any] = {}
        try:
            for one in (*map(_read, self.files), *map(setting, self.assignments)):
                made = laid(made, one)
        except RefusedError as error:
            _refuse(error)
        return {**made, "revision": self.revision} if self.revision else made

    def values(self, **defaults: Any) -> Values:
        """As values: the profile, defaults of the command, then the overlay. Ends the command if they are refused."""
        return judged(self.profile, {**defaults, **beside(self.revision)}, self.overlay())


def beside(revision: str) -> dict[str, Any]:
    """What is different for a revision beside others: gateway and node agent, which all of them share, stay whose they are."""
    return {"ingress": {"enabled": False}, "cni": {"agent": False}} if revision else {}


def judged(profile: str, *overlays: dict[str, Any]) -> Values:
    """Values of a profile and overlays; ends the command if they are refused."""
    try:
        values = values_of(profile, *overlays)
        _judge(values)
    except RefusedError as error:
        _refuse(error)
    return values


def _refuse(error: RefusedError) -> NoReturn:
    refuse(error.problem.text, Exit.BAD_INPUT, advice=error.problem.advice, code=error.problem.code)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise refused("TUL1104", file=path, reason=str(error).replace("\n", " ")) from error
    if found is not None and not isinstance(found, dict):
        raise refused("TUL1104", file=path, reason="it is no mapping of values")
    return found or {}


def _judge(values: Values) -> None:
    """What the control plane would refuse at its start is refused here."""
    for name, raw, schema in (("mesh", values.mesh, Settings), ("injection", values.injection, InjectionSettings)):
        try:
            msgspec.convert(raw, schema)
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at `$")
            raise refused("TUL1102", path=f"{name}{path.rstrip('`')}", reason=reason) from error


def choosing(command: F) -> F:
    """The options that make a Choice, given to the command as `choice`."""

    def made(
        *, profile: str, namespace: str, revision: str, files: tuple[Path, ...], sets: tuple[str, ...], **rest: Any
    ) -> Any:
        return command(choice=Choice(profile, namespace, revision, files, sets), **rest)

    made.__doc__ = command.__doc__
    made.__name__ = command.__name__
    vars(made)["__click_params__"] = getattr(command, "__click_params__", [])
    options = (
        click.option(
            "--profile", default="default", show_default=True, metavar="|".join(PROFILES), help="Start values."
        ),
        click.option("-n", "--namespace", default=NAMESPACE, show_default=True, help="Of the control plane."),
        click.option("--revision", default="", metavar="NAME", help="Install beside other revisions, under this name."),
        click.option(
            "-f",
            "--values",
            "files",
            multiple=True,
            type=click.Path(path_type=Path, dir_okay=False),
            help="YAML of values; later ones win.",
        ),
        click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="One value, such as image.hub=HUB."),
    )
    for option in reversed(options):
        made = option(made)
    return made  # type: ignore[return-value]
