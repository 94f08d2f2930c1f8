"""Command-line tests share the control-plane trial of tests/serve and the whole meshes of tests/mesh."""

import sys
from pathlib import Path

for _name in ("serve", "mesh"):
    sys.path.append(str(Path(__file__).parent.parent / _name))
