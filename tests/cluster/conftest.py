"""The fixtures of the harness beside: `cluster`, `two_nodes`, `start_cluster`; and `cases`. Faults take the load and the rows of `tests/faults`."""

import sys
from pathlib import Path

from kubelab.fixtures import cluster, start_cluster, two_nodes

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("faults", "mesh", "cases")]

from case_sets import cases  # noqa: E402 - shared with the tests of the local run

__all__ = ["cases", "cluster", "start_cluster", "two_nodes"]
