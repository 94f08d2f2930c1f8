"""What workloads see of the machine."""

import os
from collections.abc import Iterator

import pytest

from tulle.local import machine


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    machine._program_directories.cache_clear()
    yield
    machine._program_directories.cache_clear()


def test_a_folder_of_the_path_that_cannot_be_looked_at_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's folder, or nonsense: `su` without a login keeps root's PATH."""
    monkeypatch.setenv("PATH", os.pathsep.join(["/" + "x" * 300, "/nowhere", "relative", "/usr/bin"]))
    shown = machine.base_environment()["PATH"].split(os.pathsep)
    assert "/usr/bin" in shown
    assert not [entry for entry in shown if "xxx" in entry or entry in ("/nowhere", "relative")]
