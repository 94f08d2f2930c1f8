"""Text to values and places: what is read, where it is, and what is refused before it grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.sources.yaml_text import MAX_ALIASED_NODES, MAX_DEPTH, Parsed, chunks, inside_of, parsed, place_of


def whole(text: str) -> list[Parsed]:
    return [parsed(chunk) for chunk in chunks(text)]


def value(text: str) -> object:
    ((documents, flaw, _),) = whole(text)
    assert flaw is None
    (document,) = documents
    return document.value


def code(text: str) -> tuple[str, int] | None:
    (found,) = whole(text)
    return (found.flaw.code, found.flaw.line) if found.flaw else None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("~", None),
        ("0644", 420),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("089", 89.0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("12:30:45", "12:30:45"),
        ("2026-11-21", "2026-11-21"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!int 7", 7),
        ("10.0.0.1", "10.0.0.1"),
        ("-", None),
    ],
)
def test_scalars_as_kubernetes_reads_them(text: str, meant: object) -> None:
    if text == "-":
        assert value("- \n- -\n") == [None, [None]]
    else:
        assert value(f"a: {text}\n") == {"a": meant}


def test_names_of_fields_are_text() -> None:
    assert value("1: a\ntrue: b\nnull: c\n") == {"1": "a", "true": "b", "null": "c"}


def test_documents_are_cut_before_they_are_parsed() -> None:
    text = "a: 1\n---\nb: [\n---\n# nothing\n---\nc: |\n  text\n  --- is text when it is indented\n...\n---\nd: 4\n"
    found = whole(text)
    assert [len(one.documents) for one in found] == [1, 0, 1, 1, 1], "comments alone are an empty document"
    assert [one.flaw is not None for one in found] == [False, True, False, False, False]
    assert [chunk.line for chunk in chunks(text)] == [0, 1, 3, 5, 10]


def test_directives_belong_to_the_next_document() -> None:
    assert value("# hello\n%YAML 1.1\n---\na: 1\n") == {"a": 1}


def test_text_after_the_end_of_a_document_is_not_lost_silently() -> None:
    (found,) = whole("a: 1\n...\nb: 2\n")
    assert [document.value for document in found.documents] == [{"a": 1}]
    assert found.flaw is not None
    assert (found.flaw.code, found.flaw.line) == ("TUL0006", 1), "dots that end a document are mostly an elision"


def test_byte_order_mark_and_carriage_returns() -> None:
    assert value("\ufeffa: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}


def test_json_with_tabs_and_surrogates() -> None:
    assert value('{\n\t"a": [1,\n\t2]\n}') == {"a": [1, 2]}
    assert value('{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


def test_merge_keys() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {a: 3}\nz:\n  <<: [*y, *x]\n  c: 4\n"
    assert value(text) == {"x": {"a": 1, "b": 2}, "y": {"a": 3}, "z": {"a": 3, "b": 2, "c": 4}}
    assert value("a:\n  '<<': kept\n") == {"a": {"<<": "kept"}}


def test_places() -> None:
    text = "metadata:\n  annotations:\n    a.b/c: x\n    a: {b: y}\nlist:\n- - deep\n- k: v\n  l: [1,\n   2]\n"
    ((documents, _, _),) = whole(text)
    marks = documents[0].marks
    places = {
        "metadata.annotations.a.b/c": (2, 4),
        "metadata.annotations.a.b": (3, 8),
        "metadata.annotations.nothing.here": (1, 2),
        "list[0][0]": (5, 4),
        "list[1].l[1]": (8, 3),
        "list[1].l[7]": (7, 2),
        "list[1]": (6, 2),
        "nothing": (0, 0),
        "": (0, 0),
    }
    assert {path: place_of(marks, path) for path in places} == places
    assert place_of(inside_of(marks, "list", 1), "k") == (6, 2)
    assert place_of(inside_of(marks, "list", 9), "k") == (4, 0)


def test_aliases_are_counted_by_what_they_stand_for() -> None:
    ten = ", ".join(["*a"] * 10)
    fits = "a: &a [1, 2, 3]\nb: [" + ten + "]\n"
    assert value(fits) == {"a": [1, 2, 3], "b": [[1, 2, 3]] * 10}
    items = ", ".join(["1"] * 999)
    many = ", ".join(["*a"] * (MAX_ALIASED_NODES // 1000 + 1))
    assert code(f"a: &a [{items}]\nb: [{many}]\n") == ("TUL0009", 1)


def test_depth() -> None:
    assert code("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)) is None
    assert code("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH) == ("TUL0010", 0)
    assert code("[" * 200_000) == ("TUL0010", 0)
    assert code("- " * 5_000) == ("TUL0010", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ("TUL0007", 2)),
        ("a: &a {b: *a}\n", ("TUL0008", 0)),
        ("a: &a\n- &b [*a]\n", ("TUL0008", 1)),
        ("a: *b\n", ("TUL0011", 0)),
        ("a: !mine x\n", ("TUL0012", 0)),
        ("a: !mine {}\n", ("TUL0012", 0)),
        ("a: !!int x\n", ("TUL0012", 0)),
        ("[a]: b\n", ("TUL0013", 0)),
        ("a: {<<: [1]}\n", ("TUL0014", 0)),
        ("a: " + "9" * 5_000, ("TUL0018", 0)),
        ("a: \x00\n", ("TUL0004", 0)),
        ("a: b: c\n", ("TUL0004", 0)),
        ("a: 'b\n", ("TUL0004", 1)),
        ("a:\n\t- b\n", ("TUL0005", 1)),
        ("a:\n  ...\n  b: c\n", ("TUL0006", 1)),
        ("a: b\n   ...\n", ("TUL0006", 1)),
        ("a:\n  b: ...\n", ("TUL0006", 1)),
        ("... --- kind: Service\n", ("TUL0006", 0)),
    ],
)
def test_refused(text: str, expected: tuple[str, int]) -> None:
    assert code(text) == expected


def test_dots_that_are_text() -> None:
    assert value('a: "..."\nb: |\n  one\n  ...\nc: one ... two\n') == {
        "a": "...",
        "b": "one\n...\n",
        "c": "one ... two",
    }


def test_spaces_nobody_sees() -> None:
    ((documents, flaw, notes),) = whole("a: STRICT\u00a0\u00a0\n")
    assert (documents[0].value, flaw) == ({"a": "STRICT"}, None)
    assert [(note.code, note.line) for note in notes] == [("TUL0019", 0)]
    assert value("a: '\u00a0quoted'\n") == {"a": "\u00a0quoted"}


@given(st.text(alphabet=st.sampled_from("ab:- \n\t[]{},&*!|>'\"#%.?~<0\u00a0é"), max_size=60))
def test_any_text_is_an_answer(text: str) -> None:
    """Never raises, and places are inside the text."""
    lines = text.count("\n") + 1
    for chunk in chunks(text):
        found = parsed(chunk)
        for flaw in (*found.notes, *([found.flaw] if found.flaw else [])):
            assert 0 <= chunk.line + flaw.line <= lines
