"""Broken manifests: each file of `bad/` begins with the codes and lines it must be refused (or warned about) with, and no others."""

import re
from pathlib import Path

import pytest

from tulle.model.problems import Severity, catalogue
from tulle.sources.files import FileSource

FOLDER = Path(__file__).parent / "bad"
FILES = sorted(FOLDER.glob("*.yaml"))
EXPECT = re.compile(r"# expect: (TUL\d{4}) line (\d+)")
LEAST_FILES = 60
LEAST_CODES = 40


def expected(path: Path) -> list[tuple[str, int]]:
    heads = [EXPECT.match(line) for line in path.read_text(encoding="utf-8").split("\n")]
    return sorted((head[1], int(head[2])) for head in heads if head)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_code_and_line(path: Path) -> None:
    source = FileSource([path])
    change = source.reload()
    found = [one for one in change.problems if one.problem.severity is not Severity.INFO]
    assert sorted((one.problem.code, one.place.line) for one in found) == expected(path), "\n".join(map(str, found))
    for one in found:
        assert one.problem.text, "its arguments fit the sentence"
        assert one.problem.advice
    refused = [one.problem.origin.object for one in found if one.is_error and one.problem.code != "TUL0015"]
    assert not set(refused) & {one.key for one in change.sets}, "a refused object got in"


def test_there_are_enough_and_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(path.stem, code, line) for path in FILES for code, line in expected(path)]
    assert len(FILES) >= LEAST_FILES
    assert len({code for _, code, _ in rows}) >= LEAST_CODES
    with capsys.disabled():
        print(f"\n{len(FILES)} broken manifests, {len({code for _, code, _ in rows})} codes")
        for name, code, line in rows:
            print(f"  {name:38} line {line:2}  {code} {catalogue()[code].name} ({catalogue()[code].severity})")
