"""Counts what ran per folder, for the table that ends `make test` (tools/run_tests.py)."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

_rows: dict[str, dict[str, Any]] = defaultdict(lambda: {"passed": 0, "failed": 0, "skipped": [], "seconds": 0.0})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    row = _rows[report.nodeid.split("/")[1].partition(".")[0] if "/" in report.nodeid else "tests"]
    row["seconds"] += report.duration
    if report.failed:
        row["failed"] += 1
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        row["skipped"].append((report.nodeid, reason.removeprefix("Skipped: ")))
    elif report.when == "call":
        row["passed"] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = os.environ.get("TULLE_TEST_RESULTS")
    is_worker = hasattr(session.config, "workerinput")  # of pytest-xdist: the controller hears every report
    if target and not is_worker:
        Path(target).write_text(json.dumps(_rows))
