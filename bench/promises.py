"""What tulle promises of its cost, and what the saved results say to it. Pure: rows in, verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from bench import control_plane, data_path, first_answer, istiod, kubernetes, sidecar_memory
from bench.figures import fraction
from bench.results import Row
from bench.ways import FLOORS

Results = Mapping[str, Sequence[Row]]
PRIVATE_MIB, CONFIGURATION_BYTES, FIRST_CALL_MS = 25.0, 100_000, 50.0
DATA_PATH = (
    ("once", "http1", 2000, 0.80),
    ("full", "http1", 2000, 1.10),
    ("l4", "http1", 2000, 0.45),
    ("l4", "http1", 0, 0.45),
    ("l4", "tcp", 2000, 0.45),
    ("l4", "tcp", 0, 0.45),
)
"""Depth, traffic, requests a second (0: as many as possible), the most of the plain pair's CPU."""


class Verdict(NamedTuple):
    """One promise."""

    what: str
    limit: str
    measured: str
    is_kept: bool | None
    """None: not measured yet."""


def verdicts(results: Results) -> list[Verdict]:
    """Every promise in the order of the page."""
    return [
        *_first_answer(results),
        *_control_plane(results),
        *_on_demand(results),
        *_sidecar(results),
        *_data_path(results),
        *_kubernetes(results),
    ]


def _first_answer(results: Results) -> Iterator[Verdict]:
    row = _one(results, first_answer.NAME, example="bookinfo")
    limit, what = first_answer.LIMIT_SECONDS, "Bookinfo: first page by mTLS after exec"
    seconds = median(row["seconds"]) if row else 0.0
    yield Verdict(what, f"at most {limit:.0f} s", f"{seconds:.2f} s" if row else "", seconds < limit if row else None)


def _kubernetes(results: Results) -> Iterator[Verdict]:
    row = next((one for one in results.get(kubernetes.NAME, ()) if "ready" in one), None)
    what = "2,000 services, 10,000 pods by the API: serving"
    for unit, field, limit in (
        ("s", "seconds", kubernetes.PROMISED_SECONDS),
        ("MiB", "peakMiB", kubernetes.PROMISED_MIB),
    ):
        value = row["ready"][field] if row else 0.0
        yield Verdict(
            f"{what}, {unit}", f"under {limit:.0f}", f"{value:.1f}" if row else "", value < limit if row else None
        )


def _one(results: Results, name: str, **key: object) -> Row | None:
    for row in results.get(name, ()):
        if "failed" not in row and all(row["key"].get(word) == value for word, value in key.items()):
            return row
    return None


def _share(what: str, limit: float, row: Row | None, value: Callable[[Row], float], against: float) -> Verdict:
    """At most `limit` of istiod's."""
    said = f"at most 1/{1 / limit:.0f}" if limit < 1 else "not more"
    if row is None:
        return Verdict(what, said, "", None)
    share = value(row) / against
    return Verdict(what, said, fraction(share), share <= limit)


def _control_plane(results: Results) -> Iterator[Verdict]:
    services, sidecars = istiod.SHAPE
    row = _one(results, control_plane.NAME, services=services, sidecars=sidecars, discovery="full")
    limits = istiod.LIMITS
    for phase, cost in (("weight", istiod.WEIGHT), ("service", istiod.SERVICE), ("endpoint", istiod.ENDPOINT)):
        name = {"weight": "weight edit", "service": "new service", "endpoint": "new endpoint"}[phase]
        yield _share(f"{name}, time", limits[phase], row, _trial(phase, "milliseconds"), cost.seconds * 1000)
        if cost.cpu_seconds:
            yield _share(f"{name}, CPU", limits[phase], row, _trial(phase, "cpuSeconds"), cost.cpu_seconds)
        if cost.megabytes:
            yield _share(f"{name}, bytes", limits[phase], row, _trial(phase, "bytes"), cost.megabytes * 1e6)
    yield _share("cold start, time", limits["cold"], row, lambda found: _cold(found, "seconds"), istiod.COLD.seconds)
    yield _share("peak memory", limits["peak"], row, _peak_mb, istiod.PEAK_MB)
    small = _one(results, control_plane.NAME, services=services, sidecars=100, discovery="full")
    warm = istiod.COLD_100_WARM
    yield _share(
        "cold start of 100, time (its cache warm)", 1.0, small, lambda found: _cold(found, "seconds"), warm.seconds
    )
    yield _share(
        "cold start of 100, CPU (its cache warm)",
        1.0,
        small,
        lambda found: _cold(found, "cpuSeconds"),
        warm.cpu_seconds,
    )
    large = _one(results, control_plane.NAME, services=istiod.FAILS[0], sidecars=istiod.FAILS[1], discovery="full")
    yield _completes(large)


def _completes(row: Row | None) -> Verdict:
    what = f"{istiod.FAILS[0]:,} services, {istiod.FAILS[1]} sidecars (istiod does not cope)"
    if row is None:
        return Verdict(what, "completes", "", None)
    is_complete = row["cold"]["ready"] == istiod.FAILS[1] and row["isProven"]
    return Verdict(what, "completes", f"{row['cold']['ready']} ready in {row['cold']['seconds']:.1f} s", is_complete)


def _on_demand(results: Results) -> Iterator[Verdict]:
    services, sidecars = istiod.SHAPE
    row = _one(results, control_plane.NAME, services=services, sidecars=sidecars, discovery="on-demand")
    limit = istiod.LIMITS["coldOnDemand"]
    yield _share("on demand: cold start, time", limit, row, lambda found: _cold(found, "seconds"), istiod.COLD.seconds)


def _sidecar(results: Results) -> Iterator[Verdict]:
    row = _one(results, sidecar_memory.NAME, services=5000, discovery="on-demand")
    measured: Iterable[tuple[str, str, str, bool | None]] = (
        ("private memory", f"{PRIVATE_MIB:.0f} MiB", "", None),
        ("configuration", f"{CONFIGURATION_BYTES // 1000} kB", "", None),
        ("first call, p99", f"{FIRST_CALL_MS:.0f} ms", "", None),
    )
    if row is not None:
        private, size, first = row["privateMiB"], row["configurationBytes"], row["firstCalls"]["p99"]
        measured = (
            ("private memory", f"{PRIVATE_MIB:.0f} MiB", f"{private:.1f} MiB", private <= PRIVATE_MIB),
            (
                "configuration",
                f"{CONFIGURATION_BYTES // 1000} kB",
                f"{size / 1000:.1f} kB",
                size <= CONFIGURATION_BYTES,
            ),
            ("first call, p99", f"{FIRST_CALL_MS:.0f} ms", f"{first:.1f} ms", first < FIRST_CALL_MS),
        )
    for what, limit, value, is_kept in measured:
        yield Verdict(f"on demand, calling 10 of 5,000: {what}", f"at most {limit}", value, is_kept)


def _data_path(results: Results) -> Iterator[Verdict]:
    for depth, traffic, rate, limit in DATA_PATH:
        row = _one(results, data_path.NAME, traffic=traffic, rate=rate, way=depth)
        what = f"data path `{depth}`, {data_path.title(traffic, rate)} : plain Envoys"
        if row is None or "ratio" not in row:
            yield Verdict(what, f"at most {limit:.2f}", "", None)
        else:
            floor = _one(results, data_path.NAME, traffic=traffic, rate=rate, way=FLOORS.get((depth, traffic)))
            beside = f" (plain Envoys that do no more: {floor['ratio'][1]:.2f})" if floor else ""
            yield Verdict(what, f"at most {limit:.2f}", f"{row['ratio'][1]:.2f}{beside}", row["ratio"][1] <= limit)


def _trial(phase: str, name: str) -> Callable[[Row], float]:
    return lambda row: float(row["trials"][phase][name])


def _cold(row: Row, name: str) -> float:
    return float(row["cold"][name])


def _peak_mb(row: Row) -> float:
    return float(max(row["memoryMiB"]["most"], row["cold"]["peakMiB"])) * 1.048576
