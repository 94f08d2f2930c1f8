"""The generated mesh is what it says, and tulle takes it without a word."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench import worlds

SHAPE = worlds.Shape(services=60, endpoints=10)


def objects(text: str) -> list[worlds.Object]:
    return [found for found in yaml.safe_load_all(text) if found]


def test_text_says_what_the_objects_say() -> None:
    written = worlds.configuration(SHAPE)
    assert objects(written["weight.yaml"]) == [SHAPE.split(0)]
    assert objects(written["endpoint.yaml"]) == [SHAPE.entry(0)]
    everything = [found for text in written.values() for found in objects(text)]
    kinds = [found["kind"] for found in everything]
    assert kinds.count("ServiceEntry") == 60
    assert kinds.count("VirtualService") == kinds.count("DestinationRule") == 20
    addresses = {place["address"] for found in everything for place in found["spec"].get("endpoints", ())}
    assert len(addresses) == 600


def test_addresses_stay_apart_where_there_are_many() -> None:
    assert worlds.address(10, 49_999) == "10.0.195.80"
    assert len({worlds.address(240, number) for number in range(70_000)}) == 70_000


@pytest.mark.parametrize("number", range(1, worlds.EDITS + 1))
def test_every_edit_changes_one_thing(number: int) -> None:
    edits = worlds.edits(SHAPE)
    (weight,) = objects(edits[f"weight{number}.yaml"])
    shares = [part["weight"] for part in weight["spec"]["http"][0]["route"]]
    assert "/".join(map(str, shares)) == worlds.weights(number)
    assert sum(shares) == 100
    (entry,) = objects(edits[f"endpoint{number}.yaml"])
    assert len(entry["spec"]["endpoints"]) == 10 + number
    assert edits[f"unchanged{number}.yaml"] == edits[f"endpoint{number}.yaml"]
    assert len(objects(edits[f"service{number}.yaml"])) == number


def test_tulle_has_nothing_to_say_against_it(tmp_path: Path) -> None:
    world = worlds.write(SHAPE, tmp_path)
    source, target = world.service(3)
    source.rename(target)
    line = [sys.executable, "-m", "tulle", "analyze", str(world.config)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
