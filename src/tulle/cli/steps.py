"""The progress of an installation on the screen: one line per step with its time, and a line that moves while waiting.

Words on stderr. Knows no cluster.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from tulle.cli.output import glyph, has_colour


class Steps:
    """The steps of one command."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._is_live = sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self._began

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """One step; its line is printed when it ends well. What it raises goes on."""
        one = Step(name, is_live=self._is_live)
        try:
            yield one
        except BaseException:
            one.clear()
            self._line("\N{MULTIPLICATION SIGN}", "red", one)
            raise
        one.clear()
        self._line("\N{SQUARE ROOT}", "green", one)

    def _line(self, sign: str, colour: str, one: Step) -> None:
        is_coloured = has_colour(sys.stderr)
        mark = click.style(glyph(sign), fg=colour) if is_coloured else glyph(sign)
        words = f"  {one.words}" if one.words else ""
        click.echo(f"{mark} {one.name}{words}  ({one.seconds:.1f} s)", err=True, color=is_coloured)


class Step:
    """A step that runs."""

    def __init__(self, name: str, *, is_live: bool) -> None:
        self.name = name
        self.words = ""
        self._is_live = is_live
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def say(self, words: str) -> None:
        """How far it is; on a terminal the line moves."""
        self.words = words
        if self._is_live:
            click.echo(f"\r\033[K  {self.name}  {words}  {self.seconds:.0f} s", nl=False, err=True)

    def clear(self) -> None:
        """Take the moving line away."""
        if self._is_live:
            click.echo("\r\033[K", nl=False, err=True)
