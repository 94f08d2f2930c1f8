"""The command as users start it: quick, complete, with the exit codes it promises."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from cli_mesh import run

START = "from tulle.cli import main; main()"
HELP_CPU_S = 0.150
OURS = (
    *("apply", "delete", "get", "describe", "proxy", "explain", "stat", "edges", "routes", "authz", "analyze"),
    *("version", "completion"),
)


def cpu_s(*words: str) -> float:
    """User and system time of a fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *words], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_instant() -> None:
    """The least of several starts: CPU time grows too when others use the machine's caches."""
    spent = min(cpu_s(START, "--help") for _ in range(8))
    assert spent < HELP_CPU_S


def test_help_imports_no_command() -> None:
    probe = (
        "import sys\nfrom tulle.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    print(sorted(sys.modules.keys() & set(sys.argv[1:])))"
    )
    slow = ("yaml", "msgspec", "rich", "asyncio", "tulle.cli.output", "tulle.cli.get", "tulle.model")
    done = subprocess.run([sys.executable, "-c", probe, *slow], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_listed_and_has_help(name: str) -> None:
    assert f"  {name} " in run("--help").out
    assert run(name, "--help").out.startswith("Usage: tulle ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_complete(shell: str) -> None:
    script = run("completion", shell).out
    assert "_TULLE_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_completion_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", START],
        env={"_TULLE_COMPLETE": "bash_complete", "COMP_WORDS": "tulle ex", "COMP_CWORD": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "plain,explain" in done.stdout.split()


def test_without_a_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("TULLE_MESH", raising=False)
    refused = run("get", "vs")
    assert (refused.code, refused.out) == (69, "")
    assert "TUL0911" in refused.err
    assert run("version").code == 0
    assert run("analyze").code == 69
    assert run("get").code == 2
    assert run("explain", "TUL9999").code == 2
    assert run("delete").code == 2


def test_analyze_files_needs_no_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "in.yaml"
    path.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 70000}]}\n")
    found = run("analyze", str(path))
    assert found.code == 79
    assert f"{path}:4: error TUL" in found.out
    path.write_text(path.read_text().replace("70000", "80"))
    assert run("analyze", str(path)).code == 0


def test_every_code_can_be_explained() -> None:
    from tulle.model.problems import catalogue

    for code in list(catalogue())[::20]:
        done = run("explain", code)
        assert done.code == 0
        assert done.out.startswith(code)
