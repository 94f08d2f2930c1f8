"""Manifests that are right by themselves and not together: each file of `analysis/` names the codes and lines of its warnings."""

import re
from pathlib import Path

import pytest
from dialect_worlds import loaded

from tulle.dialects.analysis import problems_of

FILES = sorted((Path(__file__).parent / "analysis").glob("*.yaml"))
EXPECT = re.compile(r"# expect: (TUL\d{4}) line (\d+)")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_code_and_line(path: Path) -> None:
    source, db = loaded(path)
    assert source.problems == ()
    found = [one for key in source.objects for one in problems_of(db, key)]
    lines = path.read_text(encoding="utf-8").split("\n")
    heads = [EXPECT.match(line) for line in lines]
    places = [source.locate(one.origin) for one in found]
    assert all(place is not None for place in places)
    got = sorted((one.code, place.line) for one, place in zip(found, places, strict=True) if place)
    assert got == sorted((head[1], int(head[2])) for head in heads if head), [one.text for one in found]
    assert all(one.text and one.advice for one in found)
