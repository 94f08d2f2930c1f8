"""Leader election as a playbook. The clock counts from 0; A and B are candidates."""

from tulle.kube.leases import (
    Action,
    Broke,
    Conflicted,
    Due,
    Election,
    Event,
    Lead,
    Look,
    Looked,
    Record,
    Resign,
    Store,
    Stored,
    Timing,
    Wait,
    step,
)

TIMING = Timing(lease_s=15, renew_by_s=10.0, retry_s=2.0)


def played(state: Election, *events: Event) -> tuple[Election, list[tuple[Action, ...]]]:
    said = []
    for event in events:
        state, actions = step(state, event)
        said.append(actions)
    return state, said


def leader(at: float = 0.0) -> Election:
    state, _ = played(Election("A", TIMING), Due(at), Looked(at, None), Stored(at, "1"))
    return state


def test_a_lease_that_is_not_there_is_made_and_held() -> None:
    state, said = played(Election("A", TIMING), Due(0), Looked(0, None), Stored(0, "1"), Due(2), Stored(2, "2"))
    assert said == [
        (Look(),),
        (Store("", 0, acquires=True),),
        (Lead(), Wait(2.0)),
        (Store("1", 0, acquires=False),),
        (Wait(2.0),),
    ]
    assert state.is_leader


def test_a_lease_of_another_is_left_alone_while_it_is_renewed() -> None:
    state = Election("B", TIMING)
    for at in range(0, 60, 2):
        state, said = played(state, Due(at), Looked(at, Record("A", 15, 0, f"v{at}")))
        assert said[1] == (Wait(2.0),)


def test_a_lease_is_taken_once_we_saw_it_unchanged_for_its_time() -> None:
    """The other's clock does not matter: what counts is how long we have looked at the same version."""
    _, said = played(
        Election("B", TIMING),
        Looked(100, Record("A", 15, 3, "v")),
        Looked(114.9, Record("A", 15, 3, "v")),
        Looked(115, Record("A", 15, 3, "v")),
        Stored(115, "w"),
    )
    assert said[1] == (Wait(2.0),)
    assert said[2] == (Store("v", 4, acquires=True),)
    assert said[3][0] == Lead()


def test_a_lease_that_was_given_up_is_taken_at_once() -> None:
    _, said = played(Election("B", TIMING), Looked(0, Record("", 1, 3, "v")))
    assert said == [(Store("v", 4, acquires=True),)]


def test_who_loses_the_race_waits_for_the_winner() -> None:
    state, said = played(
        Election("B", TIMING), Looked(0, None), Conflicted(0.1), Looked(0.2, Record("A", 15, 0, "1")), Due(2.2)
    )
    assert said[1:] == [(Look(),), (Wait(2.0),), (Look(),)]
    assert not state.is_leader


def test_a_leader_without_the_api_resigns_before_others_may_take_over() -> None:
    state, said = played(leader(0.0), Broke(2), Broke(9.9), Broke(10))
    assert said == [(Wait(2.0),), (Wait(2.0),), (Resign(), Wait(2.0))]
    assert TIMING.renew_by_s < TIMING.lease_s
    assert not state.is_leader


def test_a_leader_that_slept_too_long_resigns_before_it_renews() -> None:
    """A suspended process wakes up with a lease that others hold."""
    _, said = played(leader(0.0), Due(3600))
    assert said == [(Resign(), Look())]


def test_a_leader_that_finds_another_in_its_place_resigns() -> None:
    state, said = played(leader(0.0), Conflicted(2), Looked(2, Record("B", 15, 1, "9")))
    assert said == [(Look(),), (Resign(), Wait(2.0))]
    assert not state.is_leader


def test_an_answer_that_was_lost_is_no_loss_of_the_lease() -> None:
    """The write went through, its answer did not: the next write conflicts with our own."""
    state, said = played(
        leader(0.0), Broke(4), Due(6), Conflicted(6), Looked(6, Record("A", 15, 0, "2")), Stored(6, "3")
    )
    assert said[-2:] == [(Store("2", 0, acquires=False),), (Wait(2.0),)]
    assert state.is_leader
    assert not any(Resign() in actions for actions in said)


def test_our_time_counts_from_when_the_request_was_sent() -> None:
    state, _ = played(leader(0.0), Due(2), Stored(2, "2"))
    assert state.renewed_at == 2
