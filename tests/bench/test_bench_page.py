"""docs/performance.md says what bench/results says, and verdicts are what the figures are."""

import os
from pathlib import Path
from typing import Any

import pytest

from bench import building, control_plane, page, promises, results
from bench.__main__ import main


def test_the_page_is_what_the_results_give() -> None:
    assert page.PAGE.read_text() == page.page(page.saved()), "make performance"


def trial(milliseconds: float, cpu: float, size: float) -> dict[str, Any]:
    return {
        "milliseconds": milliseconds,
        "cpuSeconds": cpu,
        "bytes": size,
        "bytesPerHolder": size / 500,
        "changed": [500],
        "holders": 500,
        "queries": [24],
        "reconnects": 0,
    }


def full_push(milliseconds: float) -> results.Row:
    cold = {
        "seconds": 2.0,
        "cpuSeconds": 3.0,
        "bytes": 1e9,
        "bytesPerStream": 2_000_000,
        "ready": 500,
        "queries": 40_000,
    }
    return {
        "key": control_plane.Case(1000, 500).key,
        "loaded": {"seconds": 1.0, "cpuSeconds": 1.0},
        "cold": {**cold, "peakMiB": 300, "reconnects": 0},
        "trials": {phase: trial(milliseconds, 0.1, 1e6) for phase in control_plane.PHASES},
        "proof": [{"89/11": 500}],
        "isProven": True,
        "engineNodes": 40_000,
        "memoryMiB": {"most": 310.0, "resident": 300.0, "private": 290.0},
        "machine": {
            "commit": "c0ffee",
            "isDirty": False,
            "date": "2026-11-21T12:00:00Z",
            "cores": 2,
            "processor": "some",
            "calibrationMs": [90.0, 91.0],
            "loadAverage": 0.5,
        },
    }


@pytest.mark.parametrize(("milliseconds", "is_kept"), [(124.0, True), (126.0, False)])
def test_a_promise_is_kept_by_the_figure(milliseconds: float, is_kept: bool) -> None:
    found = {one.what: one for one in promises.verdicts({control_plane.NAME: [full_push(milliseconds)]})}
    assert found["weight edit, time"].is_kept is is_kept
    assert found["weight edit, bytes"].is_kept is True
    assert found["on demand: cold start, time"].is_kept is None
    text = page.page({control_plane.NAME: [full_push(milliseconds)]})
    assert ("**not kept**" in text) is not is_kept
    assert "| weight | 124 | 0.10 | 1,000 | 500 | 24 | 1/20 |" in text or not is_kept
    assert "calibration loop 90.0 and 91.0 ms" in text


def test_a_proof_that_fails_is_said() -> None:
    row = full_push(100.0) | {"isProven": False, "proof": [{"90/10": 1, "89/11": 499}]}
    assert 'NOT PROVEN: weights held ({"90/10": 1, "89/11": 499})' in control_plane.text([row])


def test_a_missing_tool_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(building, "BUILT", tmp_path)
    monkeypatch.setattr(building, "_TOOLS", {"go": ("Go", "golang-go", ""), "rustc": ("Rust", "rustc", os.devnull)})
    monkeypatch.setattr("sys.argv", ["bench", "control-plane", "--grid", "quick"])
    assert main() == 1
    assert capsys.readouterr().err == "error: go is missing: install Go (apt-get install golang-go)\n"
    monkeypatch.setattr("sys.argv", ["bench", "data-path"])
    assert main() == 1
    assert "apt-get install rustc" in capsys.readouterr().err
