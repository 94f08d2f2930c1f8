"""Who is to blame for a refused response, by Envoy's own words."""

import pytest

from tulle.xds.blame import suspects


@pytest.mark.parametrize(
    ("detail", "names", "guilty"),
    [
        ("Error adding/updating cluster(s) a: bad, c: worse", ["a", "b", "c"], ("a", "c")),
        (
            "Error adding/updating cluster(s) outbound|80||a.b: x",
            ["outbound|80||a", "outbound|80||a.b"],
            ("outbound|80||a.b",),
        ),
        ("Error adding/updating listener(s) 0.0.0.0_80: x\n0.0.0.0_8080: y", ["0.0.0.0_80"], ("0.0.0.0_80",)),
        ("Error adding/updating listener(s) 0.0.0.0_8080: y", ["0.0.0.0_80", "0.0.0.0_8080"], ("0.0.0.0_8080",)),
        ("malformed assignment of b.", ["a", "b"], ("b",)),
        ("Only unique values for domains are permitted", ["r/a", "r/b"], ()),
    ],
)
def test_suspects(detail: str, names: list[str], guilty: tuple[str, ...]) -> None:
    assert suspects(detail, names) == guilty  # type: ignore[arg-type]
