"""Command-line tests share the control-plane trial of tests/serve."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "serve"))
