"""Writes the Helm chart (src/tulle/installing/chart) from the blueprint. Run after any change of src/tulle/installing."""

import shutil
from pathlib import Path

from tulle.installing.packaging import files

CHART = Path(__file__).resolve().parents[1] / "src" / "tulle" / "installing" / "chart"


def main() -> None:
    """Replace the folder."""
    shutil.rmtree(CHART, ignore_errors=True)
    for name, text in files().items():
        path = CHART / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
