"""The house rules that a tool does not know: sizes, names, docstrings, and that the pages tell the truth."""

import ast
import re
from pathlib import Path

import pytest

from tulle.policies import KINDS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tulle"
FILES = sorted(path for path in SOURCE.rglob("*.py") if "__pycache__" not in path.parts)
GENERATED = {"xds/api.pyi"}
FORBIDDEN_WORDS = {"manager", "util", "utils", "helper", "helpers", "common", "base", "info", "data", "handler"}
LONGEST_FILE = 500
LONGEST_FUNCTION_P95 = 50
FULLY_DOCUMENTED = ("engine", "model", "policies", "compile")


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_files_are_short() -> None:
    long = {relative(path): size for path in FILES if (size := len(path.read_text().splitlines())) > LONGEST_FILE}
    assert not long


def test_functions_are_short() -> None:
    sizes = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in FILES
        for node in functions(ast.parse(path.read_text()))
    )
    assert sizes[int(len(sizes) * 0.95)] <= LONGEST_FUNCTION_P95


def test_folders_are_shallow() -> None:
    assert max(len(path.relative_to(SOURCE).parts) for path in FILES) <= 4


def test_names_say_something() -> None:
    found = []
    for path in FILES:
        words = set(path.stem.split("_"))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                words |= {word.lower() for word in re.findall(r"[A-Z][a-z]+", node.name)}
        if words & FORBIDDEN_WORDS:
            found.append((relative(path), words & FORBIDDEN_WORDS))
    assert not found


@pytest.mark.parametrize("room", FULLY_DOCUMENTED)
def test_public_names_are_documented(room: str) -> None:
    bare = []
    for path in FILES:
        if path.relative_to(SOURCE).parts[0] != room:
            continue
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            bare.append(relative(path))
        for node in tree.body:
            is_named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_named and not node.name.startswith("_") and ast.get_docstring(node) is None:
                bare.append(f"{relative(path)}:{node.lineno} {node.name}")
    assert not bare


def test_the_architecture_page_names_what_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*/?(?:\.py)?)`", text))
    rooms = {name for name in named if name.endswith(("/", ".py")) and "<" not in name}
    missing = sorted(name for name in rooms if not (SOURCE / name).exists() and not (ROOT / name).exists())
    assert not missing


def test_nothing_but_its_folder_names_a_policy_kind() -> None:
    """A kind costs its folder and a line in KINDS; dialects say how users write it."""
    leaks = []
    for path in FILES:
        if path.relative_to(SOURCE).parts[0] in ("dialects", "policies"):
            continue
        text = path.read_text()
        leaks += [(relative(path), kind.name) for kind in KINDS if f"policies.{kind.name}" in text]
    assert KINDS
    assert not leaks


def test_no_file_names_the_workplace() -> None:
    forbidden = ("/work/", "../shared/", "files.pythonhosted", "registry.npmjs")
    found = []
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *FILES, ROOT / "requirements.lock", ROOT / "Makefile"]:
        text = path.read_text()
        found += [(str(path.relative_to(ROOT)), word) for word in forbidden if word in text]
    assert not found
