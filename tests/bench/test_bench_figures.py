"""The arithmetic of the bench: middles, percentiles, paired ratios, rows that replace each other."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench import results
from bench.figures import fraction, median, paired_ratios, percentile, rounded, spread

VALUES = some.lists(some.floats(-1e9, 1e9), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7], 0.99, 7),
        ([1, 2], 0.5, 1.5),
        ([4, 1, 3, 2], 0.25, 1.75),
        (range(101), 0.99, 99),
        ([10, 20, 30], 1, 30),
        ([10, 20, 30], 0, 10),
    ],
)
def test_percentiles_are_linear_between_neighbours(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


@given(VALUES)
def test_quartiles_lie_in_order_among_the_values(values: list[float]) -> None:
    low, middle, high = spread(values)
    slack = 1e-6 * max(map(abs, values))
    assert min(values) - slack <= low <= middle + slack
    assert middle - slack <= high <= max(values) + slack
    assert sum(one < middle - slack for one in values) <= len(values) / 2
    assert sum(one > middle + slack for one in values) <= len(values) / 2


def test_an_outlier_does_not_move_the_middle() -> None:
    assert median([10, 11, 12, 9, 10_000]) == 11


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile([1], 99)


def test_ratios_are_taken_within_a_cycle() -> None:
    # the machine was half as fast in the second cycle: the ratio does not see it
    assert paired_ratios([50, 100], [100, 200]) == [0.5, 0.5]
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([1], [1, 2])


def test_figures_keep_what_matters() -> None:
    assert rounded(123456) == 123000
    assert rounded(0.0123456) == 0.0123


@pytest.mark.parametrize(
    ("share", "said"), [(0.05, "1/20"), (0.3612, "1/2.8"), (1.31, "1.31"), (0.62, "0.62"), (0, "0"), (0.0012, "1/833")]
)
def test_shares_are_said_as_people_do(share: float, said: str) -> None:
    assert fraction(share) == said


def test_a_newer_row_replaces_the_one_of_its_key(tmp_path: Path) -> None:
    def row(services: int, value: int) -> results.Row:
        return {"key": {"services": services, "discovery": "full"}, "value": value}

    results.save("some", [row(1000, 1), row(300, 2)], tmp_path)
    results.save("some", [row(1000, 3)], tmp_path)
    found = [(one["key"]["services"], one["value"]) for one in results.read("some", tmp_path)]
    assert found == [(300, 2), (1000, 3)]
    assert json.loads((tmp_path / "some.json").read_text())["name"] == "some"


def test_rows_say_where_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "calibration_ms", iter([100.0, 110.0, 250.0]).__next__)
    recorder = results.Recorder()
    first, second = recorder.row({"a": 1}, {"value": 1}), recorder.row({"a": 2}, {"value": 2})
    assert first["machine"]["calibrationMs"] == [100.0, 110.0]
    assert second["machine"]["calibrationMs"] == [110.0, 250.0]
    assert {"commit", "date", "cores"} <= first["machine"].keys()
