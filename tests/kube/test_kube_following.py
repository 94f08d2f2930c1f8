"""Following a kind as a playbook: what the API says, and what is done about it."""

import pytest

from tulle.kube.following import (
    DENIED_S,
    MOST_S,
    Action,
    Begun,
    Collect,
    Ended,
    Event,
    Failed,
    Failure,
    Following,
    LinesRead,
    ListPage,
    PageRead,
    Settle,
    Sleep,
    Watch,
    Woken,
    step,
)

FIRST = ListPage("")


def played(*events: Event, state: Following | None = None) -> tuple[Following, list[tuple[Action, ...]]]:
    state = state or Following()
    said = []
    for event in events:
        state, actions = step(state, event)
        said.append(actions)
    return state, said


def watching(version: str = "7") -> Following:
    state, _ = played(Begun(), PageRead(version, ""))
    return state


def test_everything_comes_in_pages_and_then_a_watch_goes_on() -> None:
    state, said = played(Begun(), PageRead("9", "next"), PageRead("9", ""), LinesRead("10"))
    assert said == [(Collect(), FIRST), (ListPage("next"),), (Settle(), Watch("9")), ()]
    assert state == Following(version="10", is_reading=False)


def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    _, said = played(Ended(400.0, 0.5), state=watching("7"))
    assert said == [(Watch("7"),)]


def test_bookmarks_move_the_place_to_go_on_from() -> None:
    _, said = played(LinesRead("900"), Ended(400.0, 0.0), state=watching("7"))
    assert said[-1] == (Watch("900"),)


def test_a_version_too_old_is_read_again_at_once_and_then_with_patience() -> None:
    state, said = played(Failed(Failure.GONE, 0.5), Failed(Failure.GONE, 0.5), state=watching())
    assert said[0] == (Collect(), FIRST)
    (sleep,) = said[1]
    assert isinstance(sleep, Sleep)
    assert 0 < sleep.seconds < MOST_S
    assert step(state, Woken())[1] == (Collect(), FIRST)


def test_a_watch_that_is_always_too_old_is_not_read_for_without_pause() -> None:
    state, _ = played(Failed(Failure.GONE, 0.5), PageRead("9", ""), state=watching())
    assert isinstance(step(state, Failed(Failure.GONE, 0.5))[1][0], Sleep)


def test_a_broken_watch_goes_on_where_it_was_after_a_wait() -> None:
    _, said = played(Failed(Failure.BROKEN, 0.5), Woken(), state=watching("7"))
    assert isinstance(said[0][0], Sleep)
    assert said[1] == (Watch("7"),)


def test_a_list_that_breaks_begins_anew_and_settles_only_when_complete() -> None:
    _, said = played(
        Begun(), PageRead("9", "next"), Failed(Failure.BROKEN, 0.5), Woken(), PageRead("11", "b"), PageRead("11", "")
    )
    assert said[3] == (Collect(), FIRST)
    assert [Settle() in actions for actions in said] == [False, False, False, False, False, True]


def test_a_page_token_too_old_begins_the_list_anew() -> None:
    _, said = played(Begun(), PageRead("9", "next"), Failed(Failure.GONE, 0.5))
    assert said[-1] == (Collect(), FIRST)


def test_a_version_that_the_api_makes_nothing_of_is_read_again() -> None:
    """An API server restored from a backup is behind us."""
    _, said = played(Failed(Failure.UNSUITED, 0.5), state=watching())
    assert said == [(Collect(), FIRST)]


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_waits_grow_are_bounded_and_spread(jitter: float) -> None:
    state, waits = watching(), []
    for _ in range(50):
        state, actions = step(state, Failed(Failure.BROKEN, jitter))
        (sleep,) = actions
        assert isinstance(sleep, Sleep)
        waits.append(sleep.seconds)
    assert waits[0] <= 0.2
    assert waits == sorted(waits)
    assert MOST_S * 0.5 <= waits[-1] <= MOST_S


def test_waits_begin_anew_once_something_was_read() -> None:
    state = watching()
    for _ in range(20):
        state, _ = step(state, Failed(Failure.BROKEN, 0.5))
    state, _ = step(state, LinesRead("10"))
    _, (sleep,) = step(state, Failed(Failure.BROKEN, 0.5))
    assert isinstance(sleep, Sleep)
    assert sleep.seconds <= 0.2


def test_a_watch_that_somebody_closes_at_once_is_a_failure() -> None:
    """Otherwise a proxy that closes streams would have us ask thousands of times a second."""
    _, said = played(Ended(0.01, 0.5), state=watching())
    assert isinstance(said[0][0], Sleep)


def test_a_server_that_asks_for_time_gets_it() -> None:
    _, (sleep,) = step(watching(), Failed(Failure.BUSY, 0.5, after_s=17.0))
    assert sleep == Sleep(17.0)


def test_a_missing_right_is_asked_for_soon_and_then_rarely() -> None:
    state, waits = Following(), []
    for _ in range(10):
        state, (sleep,) = step(state, Failed(Failure.DENIED, 0.999))
        assert isinstance(sleep, Sleep)
        waits.append(sleep.seconds)
    assert waits[0] <= 1.0
    assert DENIED_S[1] * 0.9 <= waits[-1] <= DENIED_S[1]
    assert step(state, Woken())[1] == (Collect(), FIRST)


def test_every_event_but_lines_leads_to_one_thing_to_do() -> None:
    """A reflector that is left without one would stop for ever."""
    states = [Following(), watching()]
    events: list[Event] = [Begun(), PageRead("1", ""), PageRead("1", "x"), Ended(0.0, 0.1), Ended(9.0, 0.1), Woken()]
    events += [Failed(failure, 0.3) for failure in Failure]
    for state in states:
        for event in events:
            _, actions = step(state, event)
            assert isinstance(actions[-1], ListPage | Watch | Sleep), (state, event)
            assert not any(isinstance(action, ListPage | Watch | Sleep) for action in actions[:-1])
