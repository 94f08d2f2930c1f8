"""Real meshes are those of `tests/mesh`: an ordinary user, the installed wheel."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mesh"))
