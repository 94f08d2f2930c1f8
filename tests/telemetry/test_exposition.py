"""Reading and joining Prometheus' text format."""

import itertools
import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tulle.telemetry.exposition import NotExpositionError, Text, joined, samples

ONE = """# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code="200",path="/a b"} 3
requests_total{} 1
# TYPE took histogram
took_bucket{le="1"} 1
took_bucket{le="+Inf"} 2
took_sum 7.5
took_count 2
bare 4 1700000000000
"""


def test_samples_read_as_prometheus_own_reader_reads_them() -> None:
    theirs = {
        (one.name, tuple(sorted(one.labels.items())), one.value)
        for family in text_string_to_metric_families(ONE)
        for one in family.samples
    }
    assert {(one.name, tuple(sorted(one.labels.items())), one.value) for one in samples(ONE)} == theirs


def test_escapes_and_odd_values() -> None:
    (one,) = samples('a{x="q\\"\\\\\\n}, y",z=""} +Inf')
    assert one.labels == {"x": 'q"\\\n}, y', "z": ""}
    assert math.isinf(one.value)


@pytest.mark.parametrize("line", ['a{x="1" 2', "a{x=1} 2", "a", "a b", "{} 1", 'a{x="1"} 2 3 4'])
def test_what_is_no_sample_is_said_with_its_line(line: str) -> None:
    with pytest.raises(NotExpositionError, match="line 2 is not"):
        list(samples(f"good 1\n{line}\n"))


def test_joining_keeps_every_metrics_lines_together_and_apart_by_source() -> None:
    text = joined([Text(ONE, {"pod": "a"}), Text(ONE, {"pod": "b"}), Text("own 1\n")])
    families = [name for name, _ in itertools.groupby(one.name.partition("_")[0] for one in samples(text))]
    assert len(families) == len(set(families)), "a metric stands in two places"
    assert text.count("# TYPE requests_total") == 1
    found = list(samples(text))
    assert len(found) == 2 * len(list(samples(ONE))) + 1
    assert [one.labels for one in found if one.name == "took_sum"] == [{"pod": "a"}, {"pod": "b"}]
    assert [one.labels for one in found if one.name == "own"] == [{}]


def test_labels_of_a_source_are_escaped() -> None:
    (one,) = samples(joined([Text("a 1", {"pod": 'x"\\y'})]))
    assert one.labels == {"pod": 'x"\\y'}
