"""The hostile workload lives in a mesh of `tests/mesh`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mesh"))
