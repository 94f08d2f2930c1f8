"""The cases a practitioner published: on the project's own manifests of the same shapes always, on the published ones where they are."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mesh"))

from case_sets import PUBLISHED, cases

__all__ = ["cases"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say when the published manifests were not there: their tests do not exist then."""
    if not PUBLISHED.is_dir():
        terminalreporter.write_line(f"cases: no published manifests at {PUBLISHED}; ran on the project's own only")
