"""Tables, findings, colour: the one way to print."""

import contextlib
import io
import sys

import pytest

from tulle.cli.output import Column, Exit, Finding, Format, Refused, glyph, report, show, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(stream: io.StringIO, **more: bool) -> str:
    with contextlib.redirect_stdout(stream):
        table(
            (Column("NAME"), Column("COUNT", is_right=True), Column("WHERE", is_wide=True), Column("STATE")),
            [["a", "1", "x", "SYNCED"], ["longer", "20", "y", "-"]],
            **more,
        )
    return stream.getvalue()


def test_tables_are_aligned_and_wide_ones_have_more() -> None:
    assert printed(io.StringIO()) == "NAME     COUNT   STATE\na            1   SYNCED\nlonger      20   -\n"
    assert "WHERE" in printed(io.StringIO(), is_wide=True)


def test_colour_only_where_it_is_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b[" not in printed(io.StringIO())
    assert "\x1b[32mSYNCED" in printed(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in printed(Terminal())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in printed(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in printed(Terminal())


def test_signs_have_ascii_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert (glyph("\N{SQUARE ROOT}"), glyph("a")) == ("yes", "a")


def test_empty_tables_say_so_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    show(Format.TABLE, [Column("A")], [], document=[], empty="Nothing here.")
    show(Format.JSON, [Column("A")], [], document=[], empty="Nothing here.")
    assert capsys.readouterr() == ("[]\n", "Nothing here.\n")


def test_findings_say_what_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    report([Finding("TUL0113", "error", "no field x", "Remove it.", "Service/a/b", "spec.x", "in.yaml", 7)])
    assert capsys.readouterr().err == (
        "in.yaml:7: error TUL0113 no field x\n    Service/a/b spec.x\n    fix: Remove it.\n"
    )


def test_refusals_carry_their_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    refused = Refused("not now", Exit.TIMEOUT, advice="Wait.")
    refused.show()
    assert refused.exit_code == 75
    assert capsys.readouterr().err == "error: not now\n    fix: Wait.\n"
