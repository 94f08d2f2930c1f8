"""One control plane per test, in a directory short enough for Unix sockets."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_parts import Mesh


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    home = Path(tempfile.mkdtemp(prefix="tulle-t"))
    made = Mesh(home, settings={"discovery": "full"})
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(home)
