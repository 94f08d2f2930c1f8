"""5,000 mutated configurations compile without an exception, and what is compiled is accepted by a real Envoy."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from fuzz.compiling import run, whole
from fuzz.mutating import mutations

SEED = 20261121
CHUNKS = 20


def test_mutations_are_the_same_for_the_same_seed():
    assert list(mutations(SEED, 5)) == list(mutations(SEED, 5))
    assert list(mutations(SEED, 5)) != list(mutations(SEED + 1, 5))


def test_some_mutated_configurations_compile():
    tally = run(SEED, 60, 0)
    assert not tally.faults, tally.faults[0]
    assert tally.refused > 10
    assert tally.views > 100


@pytest.mark.envoy
def test_mutated_configurations_in_envoy():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as workers:
        jobs = [workers.submit(run, SEED + chunk, 250, 33) for chunk in range(CHUNKS)]
        tallies = [job.result() for job in jobs]
    print(f"\nmutated: {whole(tallies)}")
    faults = [fault for tally in tallies for fault in tally.faults]
    assert not faults, f"{len(faults)} faults, the first: {faults[0]}"
    figures = whole(tallies)
    assert figures["configurations"] == 5000
    assert figures["validated by Envoy"] >= 300
    assert figures["codes"] >= 40
