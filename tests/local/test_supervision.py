"""The life of a pod as playbooks: `>` what happens, `<` what is done about it, `=` what the pod says it is."""

from __future__ import annotations

import re

import pytest

from tulle.local import lives
from tulle.local.lives import SIDECAR, Limits, Plan, Pod, Rules
from tulle.local.supervision import is_ready, status_word, step, wake_at

APP = Rules("app", "Always", readiness=Limits(1, 2))
EVENTS = {
    "begin": lives.Begin,
    "networked": lives.Networked,
    "live": lives.Live,
    "delete": lives.Delete,
    "settled": lives.Settled,
    "drained": lives.Drained,
    "tick": lives.Tick,
    "started": lives.Started,
    "refused": lambda name: lives.Refused("" if name == "-" else name, "why"),
    "exited": lambda name, code: lives.Exited(name, int(code)),
    "prestopped": lives.PreStopped,
    "well": lambda name, kind: lives.Probed(name, kind, True),
    "unwell": lambda name, kind: lives.Probed(name, kind, False, "no"),
}


def said(action: lives.Action) -> str:
    words = [re.sub(r"(?<!^)([A-Z])", r"-\1", type(action).__name__).lower()]
    for field in action.__struct_fields__:
        value = getattr(action, field)
        words.append(
            ",".join(value) if isinstance(value, tuple) else str(int(value) if isinstance(value, int) else value)
        )
    return " ".join(words)


def play(plan: Plan, script: str) -> Pod:
    """Runs a playbook; `+2.5` lets time pass; lines that do not come, or come unannounced, fail."""
    pod, now, pending = Pod(), 100.0, []
    for number, line in enumerate(script.strip().splitlines(), 1):
        mark, _, rest = line.strip().partition(" ")
        if mark in ("#", ""):
            continue
        if mark in (">", "=") or mark.startswith("+"):
            assert not pending, f"line {number} ({line}): still to be done: {pending}"
        if mark == ">":
            name, *arguments = rest.split()
            pod, actions = step(plan, pod, EVENTS[name](*arguments), now)
            pending = [said(action) for action in actions]
        elif mark.startswith("+"):
            now += float(mark[1:])
        elif mark == "=":
            ready = "ready" if is_ready(plan, pod) else "unready"
            wake = wake_at(pod)
            words = f"{status_word(plan, pod)} {ready}" + ("" if wake is None else f" wake {wake - now:g}")
            assert words == rest, f"line {number}"
        else:
            assert mark == "<", line
            assert pending, f"line {number} ({line}): nothing more is done"
            assert pending.pop(0) == rest, f"line {number}"
    assert not pending, pending
    return pod


UP = """
> begin
< make-network
> networked
< start istio-proxy
> started istio-proxy
= Pending unready
> live
< start app
> started app
< watch app readiness
= Running unready
> well app readiness
= Running ready
"""


def test_a_sidecar_comes_first() -> None:
    play(Plan((APP,), has_proxy=True), UP)


def test_without_a_sidecar() -> None:
    play(
        Plan((Rules("app", "Always"),), has_proxy=False),
        """
        > begin
        < make-network
        > networked
        < start app
        > started app
        = Running ready
        """,
    )


def test_the_way_out() -> None:
    pod = play(
        Plan((APP,), has_proxy=True, grace=5),
        UP
        + """
        > delete
        < unwatch app
        < settle
        = Terminating unready
        # a second word changes nothing
        > delete
        > settled
        < close-listeners
        < signal app 15
        = Terminating unready wake 5
        > exited app 0
        < unwatch app
        < drain
        > drained
        < signal istio-proxy 15
        = Terminating unready wake 2
        > exited istio-proxy -15
        < unwatch istio-proxy
        < leave
        = Terminating unready
        """,
    )
    assert pod.stage is lives.Stage.GONE


def test_a_container_that_will_not_go_is_killed() -> None:
    play(
        Plan((APP,), has_proxy=True, grace=5),
        UP
        + """
        > delete
        < unwatch app
        < settle
        > settled
        < close-listeners
        < signal app 15
        +4.9
        > tick
        +0.2
        > tick
        < signal app 9
        > exited app -9
        < unwatch app
        < drain
        """,
    )


def test_the_hook_comes_before_the_signal() -> None:
    play(
        Plan((Rules("app", "Always", has_pre_stop=True),), has_proxy=False),
        """
        > begin
        < make-network
        > networked
        < start app
        > started app
        > delete
        < unwatch app
        < settle
        > settled
        < pre-stop app
        > prestopped app
        < signal app 15
        > exited app 0
        < unwatch app
        < leave
        """,
    )


def test_crashes_are_answered_later_and_later() -> None:
    play(
        Plan((Rules("app", "Always"),), has_proxy=False),
        """
        > begin
        < make-network
        > networked
        < start app
        > started app
        +0.1
        # the first time at once
        > exited app 1
        < unwatch app
        < start app
        > started app
        > exited app 1
        < unwatch app
        = CrashLoopBackOff unready wake 1
        +0.5
        > tick
        +0.6
        > tick
        < start app
        > started app
        > exited app 1
        < unwatch app
        = CrashLoopBackOff unready wake 2
        +2
        > tick
        < start app
        > started app
        # an hour of steady work is forgiven everything
        +3600
        > exited app 1
        < unwatch app
        < start app
        """,
    )


def test_a_killed_sidecar_is_started_at_once_and_the_pod_is_unready_meanwhile() -> None:
    play(
        Plan((APP,), has_proxy=True),
        UP
        + """
        > exited istio-proxy -9
        < unwatch istio-proxy
        < start istio-proxy
        = Running unready
        > started istio-proxy
        = Running unready
        > live
        = Running ready
        """,
    )


def test_readiness_needs_its_threshold_to_be_lost() -> None:
    play(
        Plan((APP,), has_proxy=True),
        UP
        + """
        > unwell app readiness
        = Running ready
        > unwell app readiness
        = Running unready
        > well app readiness
        = Running ready
        """,
    )


def test_a_sick_container_is_started_again() -> None:
    play(
        Plan((Rules("app", "Always", liveness=Limits(1, 2)),), has_proxy=False, grace=5),
        """
        > begin
        < make-network
        > networked
        < start app
        > started app
        < watch app liveness
        > unwell app liveness
        > well app liveness
        > unwell app liveness
        > unwell app liveness
        < unwatch app
        < signal app 15
        = Running unready wake 5
        +5
        > tick
        < signal app 9
        > exited app -9
        < unwatch app
        < start app
        """,
    )


def test_startup_has_its_time() -> None:
    plan = Plan((Rules("app", "Always", startup=Limits(1, 3, budget=10), readiness=Limits()),), has_proxy=False)
    begun = """
        > begin
        < make-network
        > networked
        < start app
        > started app
        < watch app startup
        +9
        > unwell app startup
        """
    play(plan, begun + "> well app startup\n< unwatch app\n< watch app readiness")
    play(plan, begun + "+2\n> unwell app startup\n< unwatch app\n< signal app 15")


def test_init_containers_come_in_order_and_companions_stay() -> None:
    rules = (
        Rules("first", "OnFailure", is_init=True),
        Rules("beside", "Always", is_init=True),
        Rules("app", "Always"),
    )
    play(
        Plan(rules, has_proxy=False),
        """
        > begin
        < make-network
        > networked
        < start first
        = Init:0/2 unready
        > started first
        > exited first 1
        < unwatch first
        < start first
        > started first
        > exited first 0
        < unwatch first
        < start beside
        = Init:1/2 unready
        > started beside
        < start app
        > started app
        = Running ready
        """,
    )


def test_a_job_ends_with_its_sidecar() -> None:
    plan = Plan((Rules("app", "OnFailure"),), has_proxy=True)
    pod = play(
        plan,
        """
        > begin
        < make-network
        > networked
        < start istio-proxy
        > started istio-proxy
        > live
        < start app
        > started app
        > exited app 0
        < unwatch app
        < signal istio-proxy 15
        = Completed unready wake 2
        > exited istio-proxy -15
        < unwatch istio-proxy
        < leave
        = Completed unready
        > delete
        < leave
        """,
    )
    assert pod.stage is lives.Stage.GONE


def test_a_gateway_is_nothing_but_a_sidecar() -> None:
    play(
        Plan((), has_proxy=True, grace=30),
        """
        > begin
        < make-network
        > networked
        < start istio-proxy
        > started istio-proxy
        > live
        = Running ready
        > delete
        < settle
        > settled
        < close-listeners
        < drain
        = Terminating unready wake 30
        > drained
        < signal istio-proxy 15
        > exited istio-proxy -15
        < unwatch istio-proxy
        < leave
        """,
    )


def test_what_cannot_be_started_waits() -> None:
    play(
        Plan((Rules("app", "Always"),), has_proxy=False),
        """
        > begin
        < make-network
        > networked
        < start app
        > refused app
        < unwatch app
        < start app
        > refused app
        < unwatch app
        = CreateContainerError unready wake 1
        """,
    )


def test_deleted_before_it_was_up() -> None:
    play(
        Plan((APP,), has_proxy=True),
        """
        > begin
        < make-network
        > networked
        < start istio-proxy
        > delete
        < unwatch app
        < settle
        > started istio-proxy
        < signal istio-proxy 15
        > settled
        < close-listeners
        < drain
        > exited istio-proxy -15
        < unwatch istio-proxy
        < leave
        """,
    )


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_events_out_of_place_break_nothing(name: str) -> None:
    arguments = {"started": ("app",), "refused": ("app",), "exited": ("app", "1"), "prestopped": ("app",)}
    given = arguments.get(name, ("app", "readiness") if name in ("well", "unwell") else ())
    plan = Plan((APP,), has_proxy=True)
    pod, _ = step(plan, Pod(), lives.Begin(), 0.0)
    pod, _ = step(plan, pod, EVENTS[name](*given), 1.0)
    assert SIDECAR not in status_word(plan, pod)
