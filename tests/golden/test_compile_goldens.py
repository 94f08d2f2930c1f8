"""What the compiler makes of configurations: plan, resources, problems and reasons; `TULLE_GOLD=1` writes them anew."""

import pytest

from compile.world import static, validate
from golden.compile_goldens import CASES, HERE, OUTPUTS, REWRITE, Case


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_golden(folder):
    found = Case(folder, check_purity=True).outputs()
    for name, text in found.items():
        path = folder / name
        if REWRITE and text:
            path.write_text(text)
        elif REWRITE:
            path.unlink(missing_ok=True)
        assert (path.read_text() if path.exists() else "") == text, f"{path} differs; TULLE_GOLD=1 rewrites it"


def test_nothing_lies_about():
    strays = [
        path
        for path in HERE.glob("**/*")
        if path.is_file() and (path.parent not in CASES or path.name not in ("in.yaml", *OUTPUTS))
    ]
    empty = [path for path in HERE.iterdir() if path.is_dir() and path not in CASES]
    assert not strays + empty


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_the_first_line_says_what_the_case_shows(folder):
    assert (folder / "in.yaml").read_text().startswith("# ")
    assert len(Case(folder).title) > 20


@pytest.mark.envoy
@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_envoy_accepts_the_whole_view(folder):
    case = Case(folder)
    for namespace, name in case.views:
        assert validate(static(case.resources(namespace, name))) == ""
