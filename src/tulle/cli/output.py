"""How every command prints: tables, JSON, YAML and names on stdout; problems and all other words on stderr; exit codes.

Knows no command and no mesh. Colour only on a terminal (NO_COLOR, FORCE_COLOR, TERM=dumb hold); elsewhere plain aligned text,
which is what the golden tests see.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import IO, Any, NamedTuple, NoReturn, TypeVar

import click

from tulle.model.problems import Problem, Severity


class Exit(IntEnum):
    """Exit codes (after sysexits.h and istioctl)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    BAD_INPUT = 65
    UNREACHABLE = 69
    TIMEOUT = 75
    FORBIDDEN = 77
    FINDINGS = 79
    INTERRUPTED = 130


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Column(NamedTuple):
    """A column of a table."""

    title: str
    is_wide: bool = False
    """Shown with `-o wide` only."""
    is_right: bool = False
    """Numbers."""


class Finding(NamedTuple):
    """A problem as people see it, from this process or from the admin API."""

    code: str
    severity: str
    text: str
    advice: str
    subject: str
    """`VirtualService/default/reviews`, or empty."""
    path: str
    """Of the field, or empty."""
    file: str
    line: int
    """From 1; 0: unknown, or the file as a whole."""

    @classmethod
    def of(cls, found: Problem, file: str = "", line: int = 0) -> "Finding":
        """The finding of a problem at a place."""
        subject = str(found.origin.object) if found.origin.object.kind else ""
        text, advice = found.text, found.advice
        return cls(found.code, found.severity.value, text, advice, subject, found.origin.path, file, line)

    @classmethod
    def told(cls, raw: Mapping[str, Any]) -> "Finding":
        """The finding of a problem the admin API tells."""
        parts = (raw.get("kind") or "", raw.get("namespace") or "", raw.get("name") or "")
        return cls(
            raw.get("code", ""),
            raw.get("severity", "error"),
            raw.get("text", ""),
            raw.get("advice", ""),
            "/".join(part for part in parts if part),
            raw.get("path") or "",
            raw.get("file") or "",
            raw.get("line") or 0,
        )

    @property
    def place(self) -> str:
        """`file:line`, or what is known of it; an object of a cluster has no other place than its name."""
        if self.file and self.line:
            return f"{self.file}:{self.line}"
        return "" if self.file == self.subject else self.file

    def document(self) -> dict[str, Any]:
        """As JSON; the shape of /v1/problems."""
        return {
            "code": self.code,
            "severity": self.severity,
            "object": self.subject,
            "path": self.path,
            "file": self.file,
            "line": self.line,
            "text": self.text,
            "advice": self.advice,
        }


class Refused(click.ClickException):
    """A command cannot do what it was asked to. Prints its findings (or sentence) and ends with its exit code."""

    def __init__(self, text: str, exit_code: Exit = Exit.FAILED, *, advice: str = "", code: str = "") -> None:
        super().__init__(text)
        vars(self)["exit_code"] = int(exit_code)  # click declares it of the class
        self.advice = advice
        self.code = code

    def show(self, file: IO[Any] | None = None) -> None:
        """To stderr, in the shape of a finding."""
        report([Finding(self.code, "error", self.message, self.advice, "", "", "", 0)], file)


_COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}
_GOOD = frozenset(("SYNCED", "Accepted", "ALLOWED", "\N{SQUARE ROOT}", "ACTIVE", "STRICT"))
_BAD = frozenset(("NACK", "NACKED", "Refused", "DENIED", "\N{MULTIPLICATION SIGN}", "EXPIRED"))
_ODD = frozenset(("STALE", "Warning", "‼", "DISABLE", "NOT SENT"))
_GAP = "   "


def has_colour(stream: IO[Any] | None = None) -> bool:
    """Whether colour is welcome on a stream (no-color.org; stdout unless given)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and (stream or sys.stdout).isatty()


def glyph(sign: str) -> str:
    """A sign, or its ASCII stand-in where the terminal cannot show it."""
    stand_in = {
        "\N{SQUARE ROOT}": "yes",
        "\N{MULTIPLICATION SIGN}": "no",
        "‼": "!",
        "→": "->",
        "←": "<-",
        "└": "`",
        "—": "-",
    }.get(sign, sign)
    try:
        sign.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return stand_in
    return sign


def say(text: str) -> None:
    """Words beside the answer: stderr."""
    click.echo(text, err=True)


def refuse(text: str, exit_code: Exit = Exit.FAILED, *, advice: str = "", code: str = "") -> NoReturn:
    """End the command with a sentence and what to do."""
    raise Refused(text, exit_code, advice=advice, code=code)


def show(
    form: Format,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    document: Any,
    names: Iterable[str] = (),
    empty: str = "",
) -> None:
    """Print an answer in the form asked for. `empty` is said on stderr where a table has no rows."""
    if form is Format.JSON:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif form is Format.YAML:
        click.echo(as_yaml(document), nl=False)
    elif form is Format.NAME:
        for name in names:
            click.echo(name)
    elif not rows and empty:
        say(empty)
    else:
        table(columns, rows, is_wide=form is Format.WIDE)


def as_yaml(document: Any) -> str:
    """YAML in the order of the document's fields."""
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, is_wide: bool = False) -> None:
    """An aligned table, kubectl-like; known states in colour on a terminal."""
    kept = [number for number, column in enumerate(columns) if is_wide or not column.is_wide]
    lines = [[columns[number].title for number in kept], *([row[number] for number in kept] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(kept))]
    colour = has_colour()
    for is_head, line in zip((True, *(False for _ in rows)), lines, strict=True):
        cells = []
        for place, text in enumerate(line):
            is_right = columns[kept[place]].is_right
            is_last = place == len(line) - 1
            padded = text.rjust(widths[place]) if is_right else text if is_last else text.ljust(widths[place])
            cells.append(_styled(padded, is_head=is_head) if colour else padded)
        click.echo(_GAP.join(cells).rstrip() if not colour else _GAP.join(cells), color=colour)


def report(findings: Iterable[Finding], file: IO[Any] | None = None) -> None:
    """Problems: what, where, what to do. To stderr unless told otherwise."""
    stream = file or sys.stderr
    colour = has_colour(stream)
    for found in findings:
        place = f"{found.place}: " if found.place else ""
        kind = click.style(found.severity, fg=_COLOURS.get(found.severity), bold=True) if colour else found.severity
        code = f" {found.code}" if found.code else ""
        subject = " ".join(part for part in (found.subject, found.path) if part)
        click.echo(f"{place}{kind}{code}{'' if found.code else ':'} {found.text}", file=stream, color=colour)
        if subject:
            click.echo(f"    {subject}", file=stream)
        if found.advice:
            click.echo(f"    fix: {found.advice}", file=stream)


def count(number: int, thing: str) -> str:
    """`1 proxy`, `3 proxies`."""
    plural = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
    return f"{number} {thing if number == 1 else plural}"


def is_error(found: Finding) -> bool:
    """Whether something was refused."""
    return found.severity == Severity.ERROR.value


F = TypeVar("F", bound=Callable[..., Any])
_FORMATS = tuple(one.value for one in Format)


def output_option(*formats: Format) -> Callable[[F], F]:
    """`-o`, with the forms a command knows (all unless given)."""
    values = tuple(one.value for one in formats) or _FORMATS

    def taken(_: click.Context, __: click.Parameter, value: str) -> Format:
        return Format(value)

    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(values),
        default=values[0],
        callback=taken,
        help="Form of the answer.",
    )


def _styled(text: str, *, is_head: bool) -> str:
    if is_head:
        return click.style(text, bold=True)
    word = text.strip()
    first = word.split(" ", 1)[0]
    for words, fg in ((_GOOD, "green"), (_BAD, "red"), (_ODD, "yellow")):
        if word in words or first in words:
            return click.style(text, fg=fg)
    return text
