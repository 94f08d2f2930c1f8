"""Run the project's checks in order and end with a table: what ran, what was skipped and why.

`--quick` is `make check`: format, lint, types, import contracts, unit and golden tests. Without it every test runs, meshes,
real Envoys and a Kubernetes included. With TULLE_TEST_STRICT=1 a skipped test is a failure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CODE = ["src", "tests", "tools", "bench", "hatch_build.py"]


class Outcome(NamedTuple):
    """One line of the table."""

    name: str
    seconds: float
    passed: int
    failed: int
    skipped: list[tuple[str, str]]


def main() -> int:
    """Exit code 0 when everything passed (and, if strict, nothing was skipped)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what takes seconds")
    parser.add_argument("pytest", nargs="*", help="further arguments for pytest")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    is_strict = os.environ.get("TULLE_TEST_STRICT") == "1"
    outcomes = [
        command("format", BIN / "ruff", "format", "--check", "-q", *CODE),
        command("lint", BIN / "ruff", "check", "-q", *CODE),
        command("types", BIN / "mypy", "--no-error-summary"),
        command("import contracts", BIN / "lint-imports", "--no-cache"),
    ]
    outcomes += tests(
        "not envoy and not mesh and not built and not cluster and not faults",
        ["-n", "2", "--dist", "loadfile", *chosen.pytest],
    )
    if not chosen.quick:
        # real Envoys and meshes want the machine for themselves
        outcomes = merged([*outcomes, *tests("(envoy or mesh or built) and not cluster and not faults", chosen.pytest)])
        build_cluster()
        outcomes = merged([*outcomes, *tests("cluster and not long and not faults", chosen.pytest)])
    return report(outcomes, is_strict=is_strict)


def build_cluster() -> None:
    """Minutes the first time, said while they pass; what goes wrong here is the tests' to tell."""
    line = [sys.executable, "-m", "kubelab", "build", "k", "coredns"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "cluster")}
    subprocess.run(line, check=False, env=environment, stdout=subprocess.DEVNULL)


def command(name: str, program: Path, *arguments: str) -> Outcome:
    """A tool that prints only what is wrong."""
    began = time.monotonic()
    print(f"── {name}", flush=True)
    done = subprocess.run([str(program), *arguments], check=False, capture_output=True, text=True)
    is_good = done.returncode == 0
    if not is_good:
        print(done.stdout + done.stderr, flush=True)
    return Outcome(name, time.monotonic() - began, int(is_good), int(not is_good), [])


def tests(marks: str, further: list[str]) -> list[Outcome]:
    """All tests in one pytest; its report is split by folder for the table."""
    print("── tests", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        environment = {**os.environ, "TULLE_TEST_RESULTS": str(results)}
        line = [sys.executable, "-m", "pytest", "-q", "-m", marks, *further]
        done = subprocess.run(line, check=False, env=environment)
        if not results.exists():
            return [Outcome("tests", 0.0, 0, 1, [])]
        found = json.loads(results.read_text())
    outcomes = [
        Outcome(name, row["seconds"], row["passed"], row["failed"], [tuple(pair) for pair in row["skipped"]])
        for name, row in sorted(found.items())
    ]
    if done.returncode not in (0, 1, 5) or (done.returncode == 1 and not any(row.failed for row in outcomes)):
        outcomes.append(Outcome("pytest itself", 0.0, 0, 1, []))
    return outcomes


def merged(outcomes: list[Outcome]) -> list[Outcome]:
    """One line per name, in the order of their first."""
    rows: dict[str, Outcome] = {}
    for one in outcomes:
        row = rows.get(one.name, Outcome(one.name, 0.0, 0, 0, []))
        rows[one.name] = Outcome(
            one.name,
            row.seconds + one.seconds,
            row.passed + one.passed,
            row.failed + one.failed,
            [*row.skipped, *one.skipped],
        )
    return list(rows.values())


def report(outcomes: list[Outcome], *, is_strict: bool) -> int:
    """Print the table, then the reasons of skips, then one line that says it all."""
    print(f"\n{'what':<28}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for row in outcomes:
        print(f"{row.name:<28}{row.passed:>8}{row.failed:>8}{len(row.skipped):>9}{row.seconds:>9.1f}")
    skipped = [(row.name, name, why) for row in outcomes for name, why in row.skipped]
    for room, name, why in skipped:
        print(f"skipped  {room}: {name}: {why}")
    passed = sum(row.passed for row in outcomes)
    failed = sum(row.failed for row in outcomes)
    if is_strict and skipped:
        print("TULLE_TEST_STRICT=1: a skipped test counts as failed")
        failed += len(skipped)
    print(f"\n{passed} passed, {failed} failed, {len(skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
