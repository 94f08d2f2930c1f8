"""What is learned of workloads: kept while somebody holds it, dropped when it is old, bounded, written down whole."""

from pathlib import Path

from tulle.serve.learned import LearnedFile
from tulle.serve.learning import KEPT_S, MOST_NAMES, MOST_UNKNOWN, Learning

WHO = "spiffe://cluster.local/ns/a/sa/b c"


def nothing() -> frozenset[str]:
    return frozenset()


def vip(number: int) -> str:
    return f"vip/10.96.{number >> 8}.{number & 255}:80"


def learn(
    made: Learning, *names: str, now: float = 0.0, known: bool = True, held: frozenset[str] = frozenset()
) -> bool:
    return made.learn(WHO, names, lambda _: known, now=now, held=lambda: held)


def test_a_name_is_learned_once() -> None:
    made = Learning()
    assert learn(made, vip(1), vip(2))
    first = made.names(WHO)
    assert first == {vip(1), vip(2)}
    assert not learn(made, vip(1))
    assert made.names(WHO) is first
    assert made.names("somebody else") == frozenset()


def test_the_oldest_that_nobody_holds_makes_room() -> None:
    made = Learning()
    for number in range(MOST_NAMES):
        learn(made, vip(number), now=float(number))
    learn(made, vip(MOST_NAMES), now=1e6, held=frozenset({vip(0)}))
    assert vip(0) in made.names(WHO)
    assert vip(1) not in made.names(WHO)
    assert len(made.names(WHO)) == MOST_NAMES


def test_what_everybody_holds_makes_none() -> None:
    made = Learning()
    learn(made, *map(vip, range(MOST_NAMES)))
    assert not learn(made, vip(MOST_NAMES), held=made.names(WHO))
    assert made.crowded == {WHO}


def test_a_scan_uses_up_little() -> None:
    made = Learning()
    made.learn(WHO, map(vip, range(10 * MOST_UNKNOWN)), lambda _: False, now=0.0, held=nothing)
    assert len(made.names(WHO)) == MOST_UNKNOWN
    assert made.crowded == {WHO}
    assert made.learn(WHO, ["vip/10.97.0.1:80"], lambda name: "10.97" in name, now=0.0, held=nothing), (
        "a service has room"
    )


def test_old_names_go_unless_a_proxy_holds_them() -> None:
    made = Learning()
    learn(made, vip(1), vip(2), vip(3), now=0.0)
    learn(made, vip(2), now=KEPT_S)
    assert made.forget_old(KEPT_S + 1, lambda _: frozenset({vip(3)})) == (WHO,)
    assert made.names(WHO) == {vip(2), vip(3)}
    assert made.forget_old(KEPT_S + 2, lambda _: frozenset()) == (), "what was held counts as asked for"


def test_it_is_written_down_and_read_again(tmp_path: Path) -> None:
    file, made = LearnedFile(tmp_path / "state" / "learned.json"), Learning()
    assert file.read() == {}
    learn(made, vip(1), now=7.0)
    assert made.is_changed
    file.write(made.kept())
    again = Learning(file.read())
    assert again.names(WHO) == {vip(1)}
    assert again.kept() == made.kept()
    assert not again.is_changed
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["learned.json"]


def test_a_broken_file_is_an_empty_memory(tmp_path: Path) -> None:
    for content in ("", "{", '{"schema": 99, "workloads": {}}', '{"schema": 1, "workloads": {"a": 1}}'):
        (tmp_path / "learned.json").write_text(content)
        assert LearnedFile(tmp_path / "learned.json").read() == {}
