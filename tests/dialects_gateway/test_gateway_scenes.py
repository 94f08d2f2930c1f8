"""What Gateway API objects come to: plan, resources, status and problems; `TULLE_GOLD=1` writes them anew."""

from pathlib import Path

import pytest
from gateway_scenes import HERE, OUTPUTS, SCENES, Scene

from compile.world import static, validate
from golden.compile_goldens import REWRITE


@pytest.mark.parametrize("folder", SCENES, ids=lambda folder: folder.name)
def test_scene(folder: Path) -> None:
    for name, text in Scene(folder, check_purity=True).outputs().items():
        path = folder / name
        if REWRITE and text:
            path.write_text(text)
        elif REWRITE:
            path.unlink(missing_ok=True)
        assert (path.read_text() if path.exists() else "") == text, f"{path} differs; TULLE_GOLD=1 rewrites it"


def test_nothing_lies_about() -> None:
    strays = [
        path
        for path in HERE.glob("**/*")
        if path.is_file() and (path.parent not in SCENES or path.name not in ("in.yaml", *OUTPUTS))
    ]
    assert not strays


@pytest.mark.envoy
@pytest.mark.parametrize("folder", SCENES, ids=lambda folder: folder.name)
def test_envoy_accepts_every_view(folder: Path) -> None:
    scene = Scene(folder)
    for namespace, name in scene.views:
        assert validate(static(scene.world.resources(namespace, name))) == ""
