"""Growth of memory is what the samples say, edits follow each other, and every row has its text."""

from pathlib import Path

import pytest

from bench import churn, endurance, figures, frozen, soak, worlds


def test_a_slope_is_the_line_s() -> None:
    assert figures.slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == 2.0
    assert figures.slope([(0.0, 1.0), (1.0, 0.0), (2.0, 1.0)]) == 0.0
    with pytest.raises(ValueError, match="two different places"):
        figures.slope([(1.0, 1.0), (1.0, 2.0)])


def test_growth_leaves_the_warm_up_out() -> None:
    samples = [soak.Sample(at * 60.0, {"a": 50.0 + at if at < 10 else 60.0}) for at in range(61)]
    found = soak.growth(samples, "a")
    assert (found["firstMiB"], found["lastMiB"], found["slopeMiBPerHour"]) == (60.0, 60.0, 0.0)
    growing = [soak.Sample(at * 60.0, {"a": 50.0 + at / 60}) for at in range(61)]
    assert soak.growth(growing, "a")["slopeMiBPerHour"] == 1.0


class _Fleet:
    """Takes the files as `adsload` does."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def rename(self, _: str, source: Path, target: Path) -> dict[str, int]:
        source.replace(target)
        self.texts.append(f"{target.name} {target.read_text()}")
        return {}


@pytest.mark.parametrize("discovery", ["full", "on-demand"])
def test_no_edit_repeats_what_the_file_says(tmp_path: Path, discovery: str) -> None:
    shape = worlds.Shape(2)
    fleet, case = _Fleet(), churn.Case("edits", discovery, 0, 0, 2, 1)
    running = churn._Running(None, fleet, worlds.write(shape, tmp_path), shape, case)  # type: ignore[arg-type]
    last: dict[str, str] = {}
    for number in range(1, 400):
        churn._edit(running, number)
        name, _, text = fleet.texts[-1].partition(" ")
        assert last.get(name) != text, number
        last[name] = text
    assert set(last) == ({"weight.yaml", "endpoint.yaml"} | ({"service.yaml"} if discovery == "full" else set()))


def test_parts_are_everything() -> None:
    assert [sum(churn._parts(count)) for count in (1, 7, 10, 10_003)] == [1, 7, 10, 10_003]


def test_weights_are_found_in_a_dump() -> None:
    clusters = [
        {"name": "outbound|80|v1|svc-0.ns-0.svc", "weight": 85},
        {"name": "outbound|80|v2|svc-0.ns-0.svc", "weight": 15},
    ]
    other = [{"name": "outbound|80|v1|svc-1.ns-0.svc", "weight": 1}]
    assert frozen._weights_of({"a": [{"clusters": other}, {"b": {"clusters": clusters}}]}) == "85/15"
    assert frozen._weights_of({"a": [1, "x"]}) == ""


def test_every_kind_has_a_text() -> None:
    row = {
        "key": {"what": "edits", "discovery": "full"},
        "count": 10_000,
        "warming": 1000,
        "failed": 0,
        "p50Milliseconds": 20.0,
        "p99Milliseconds": 90.0,
        "cpuSeconds": 100.0,
        "bytes": 5_000_000,
        "beforeMiB": 100.0,
        "afterMiB": 103.0,
        "growth": 0.03,
        "isWithin": True,
        "revisions": 10_000.0,
        "streams": 20,
        "engineNodes": 8000,
    }
    assert "100.0 -> 103.0 MiB (+3.0%, within 5%)" in endurance.text([row])
    assert "### Edits, discovery full\n\n- 10,000 after 1,000 for warming: 0 failed" in endurance.section([row])
