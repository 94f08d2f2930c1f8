"""The version of this release, as images and charts carry it."""

from typing import Final

VERSION: Final = "0.1.0"
"""Equal to the package's; a test compares."""
