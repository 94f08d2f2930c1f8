"""The catalogue of messages: every code is used somewhere or reserved for a reason, and every code used is in it."""

import re
from pathlib import Path

import tulle
from tulle.model.problems import catalogue

ROOT = Path(tulle.__file__).parent
CODE = re.compile(r"TUL\d{4}")
RESERVED: dict[str, str] = {
    "TUL0120": "the net under `fitting`: a misfit its walk does not know is still refused and placed",
    "TUL0119": "a schema with a pattern that is no duration: none has one yet, `fitting` uses it by construction",
}
"""Codes no test can reach today, with the reason they exist."""

RANGES_OF_OTHERS = {"08": "proxies: serve and telemetry", "09": "the local run"}
"""Ranges whose rooms keep their own count of use."""


def used() -> set[str]:
    return {code for path in ROOT.rglob("*.py") for code in CODE.findall(path.read_text(encoding="utf-8"))}


def test_every_code_that_is_used_is_in_the_catalogue() -> None:
    assert used() - set(catalogue()) == set()


def test_every_code_is_used() -> None:
    assert {code for code in catalogue() if code[3:5] not in RANGES_OF_OTHERS} - used() == set()


def test_codes_are_given_once() -> None:
    text = (ROOT / "model" / "messages.yaml").read_text(encoding="utf-8")
    given = re.findall(r"^- *\{? *code: (TUL\d{4})", text, re.MULTILINE)
    assert sorted(given) == sorted(set(given))
    assert set(given) == set(catalogue())


def test_names_are_given_once_and_fit_status_conditions() -> None:
    names = [message.name for message in catalogue().values()]
    assert sorted(names) == sorted(set(names))
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]+", name) for name in names)


def test_sentences_join_with_their_advice() -> None:
    """`text`. `advice`: no full stop at the end of a text, one at the end of an advice."""
    for message in catalogue().values():
        assert not message.text.endswith("."), message.code
        assert message.advice.endswith((".", "?")), message.code


def test_most_codes_of_manifests_have_a_manifest() -> None:
    """Codes for what users write (00 to 04, 06, 07) are each shown by a broken manifest, or made in `tests/sources`."""
    here = Path(__file__).parent
    shown = {
        code
        for folder in (here / "bad", here / "analysis", here / "good")
        for path in folder.iterdir()
        for code in CODE.findall(path.read_text(encoding="utf-8"))
    }
    shown |= {code for path in (here.parent / "sources").glob("*.py") for code in CODE.findall(path.read_text("utf-8"))}
    shown |= {code for path in here.glob("*.py") for code in CODE.findall(path.read_text(encoding="utf-8"))}
    shown |= {
        code
        for folder in ("dialects_kubernetes", "dialects_gateway")
        for path in (here.parent / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".txt")
        for code in CODE.findall(path.read_text(encoding="utf-8"))
    }
    written = {code for code in catalogue() if code[3:5] in ("00", "01", "02", "03", "04", "06", "07")}
    assert written - shown - set(RESERVED) == set()
