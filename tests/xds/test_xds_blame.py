"""Who is to blame for a refused response, by Envoy's own words."""

import pytest

from tulle.xds.blame import blame

PRINTED = 'goo.gle/debugstr    \nname: "b"\ntype: STATIC\nload_assignment {\n  cluster_name: "a"\n}\n: Proto constraint validation failed'
WHOLE, SINGLY = False, True


@pytest.mark.parametrize(
    ("detail", "names", "expected"),
    [
        ("Error adding/updating cluster(s) a: bad, c: worse", ["a", "b", "c"], (("a", "c"), SINGLY)),
        ("Error adding/updating cluster(s) a: refers to b, really", ["a", "b"], (("a",), SINGLY)),
        ("Error adding/updating cluster(s) o|80||a.b: x", ["o|80||a", "o|80||a.b"], (("o|80||a.b",), SINGLY)),
        ("Error adding/updating listener(s) 0_80: x\n0_8080: y", ["0_80", "0_1"], (("0_80",), SINGLY)),
        ("Error adding/updating listener(s) 0_8080: y", ["0_80", "0_8080"], (("0_8080",), SINGLY)),
        ("Error adding/updating cluster(s) x: y", ["a", "b"], ((), WHOLE)),
        (PRINTED, ["a", "b"], (("b",), WHOLE)),
        ("malformed assignment of b.", ["a", "b"], ((), WHOLE, ("b",))),
        ("a and b clash", ["a", "b", "c"], ((), WHOLE, ("a", "b"))),
        ("Only unique values for domains are permitted", ["r/a", "r/b"], ((), WHOLE)),
        ("Only unique values for domains are permitted", ["r/a"], (("r/a",), WHOLE)),
    ],
)
def test_blame(detail: str, names: list[str], expected: tuple[object, ...]) -> None:
    assert blame(detail, names) == (*expected, ())[:3]  # type: ignore[arg-type]
