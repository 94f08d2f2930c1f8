"""Every playbook in `playbooks/` is a test; `xds_playbook.py` says how to read them."""

from pathlib import Path

import pytest
from xds_playbook import play

PLAYBOOKS = sorted((Path(__file__).parent / "playbooks").glob("*.play"))


def test_there_are_playbooks() -> None:
    assert len(PLAYBOOKS) >= 20


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_playbook(path: Path) -> None:
    play(path)
