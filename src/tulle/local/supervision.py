"""The life of one pod as a state machine: what a kubelet decides, and nothing it does.

`step` takes a pod, an event and the time, and answers with the pod as it is now and the actions that follow; `pod`
carries them out and reports back with events. Words of phases and reasons are kubectl's.

    PENDING -> (sidecar live) -> INITIALIZING -> RUNNING -> TERMINATING -> GONE
                                                    \\-> ENDED (a Job, or restartPolicy Never)

A sidecar comes before every container and ends after the last one. Termination: the pod is published as terminating,
every proxy lets go of it (`Settle`), containers are asked to end (`PreStop`, SIGTERM, SIGKILL when the grace is over),
then the sidecar drains. Clocks are seconds of any monotonic clock.
Source: Kubernetes, "Pod Lifecycle"; docs/facts/envoy.md §8.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from tulle.local.lives import (
    SIDECAR,
    Action,
    Begin,
    CloseListeners,
    Container,
    Delete,
    Drain,
    Drained,
    Event,
    Exited,
    Leave,
    Limits,
    Live,
    MakeNetwork,
    Networked,
    Plan,
    Pod,
    PreStop,
    PreStopped,
    Probed,
    ProbeKind,
    Refused,
    Rules,
    Run,
    Settle,
    Settled,
    Signal,
    Stage,
    Start,
    Started,
    Tick,
    Unwatch,
    Watch,
)

BACKOFF_FIRST: Final = 1.0
BACKOFF_LIMIT: Final = 60.0
STEADY_SECONDS: Final = 60.0
"""A container that ran this long is forgiven its earlier failures."""
SIDECAR_GRACE: Final = 2.0

Step = tuple[Pod, tuple[Action, ...]]


def step(plan: Plan, pod: Pod, event: Event, now: float) -> Step:
    """The pod after an event, and what to do. Events that no longer mean anything change nothing."""
    machine = _Machine(plan, pod, now)
    machine.take(event)
    return machine.pod, tuple(machine.actions)


def is_ready(plan: Plan, pod: Pod) -> bool:
    """Whether the pod may get traffic."""
    if pod.stage is not Stage.RUNNING or (plan.has_proxy and not pod.proxy.is_ready):
        return False
    pairs = zip(plan.containers, pod.containers, strict=True)
    return all(one.is_ready for rules, one in pairs if not rules.is_init)


def wake_at(pod: Pod) -> float | None:
    """When the pod wants a `Tick`, if nothing happens before."""
    times = [one.again_at for one in (*pod.containers, pod.proxy) if one.run in (Run.BACKOFF, Run.STOPPING)]
    if pod.deadline is not None:
        times.append(pod.deadline)
    return min(times, default=None)


def backoff(streak: int) -> float:
    """Seconds before the next start: at once, then 1, 2, 4 … 60."""
    return 0.0 if streak <= 1 else min(BACKOFF_LIMIT, BACKOFF_FIRST * 2.0 ** (streak - 2))


class _Machine:
    """One step in progress."""

    def __init__(self, plan: Plan, pod: Pod, now: float) -> None:
        self.plan = plan
        self.pod = pod
        self.now = now
        self.actions: list[Action] = []
        self._index = {rules.name: index for index, rules in enumerate(plan.containers)}

    def take(self, event: Event) -> None:
        match event:
            case Begin() if self.pod.stage is Stage.NEW:
                waiting = tuple(Container() for _ in self.plan.containers)
                self._set(stage=Stage.PENDING, containers=waiting)
                self.actions.append(MakeNetwork())
            case Networked() if self.pod.stage is Stage.PENDING:
                if self.plan.has_proxy:
                    self._start(SIDECAR)
                else:
                    self._advance()
            case Refused(name, reason):
                self._refused(name, reason)
            case Started(name):
                self._started(name)
            case Live() if self.pod.proxy.run is Run.RUNNING:
                self._change(SIDECAR, is_ready=True, reason="")
                self._advance()
            case Exited(name, code):
                self._exited(name, code)
            case Probed():
                self._probed(event)
            case Delete() if not self.pod.is_terminating:
                self._delete()
            case Settled() if self.pod.stage is Stage.SETTLING:
                self._stop_containers()
            case PreStopped(name) if self.pod.stage is Stage.STOPPING:
                self._signal(name, signal.SIGTERM)
            case Drained() if self.pod.stage is Stage.DRAINING:
                self._end_proxy()
            case Tick():
                self._tick()
            case _:
                pass

    def _set(self, **fields: object) -> None:
        self.pod = replace(self.pod, **fields)

    def _get(self, name: str) -> Container:
        return self.pod.proxy if name == SIDECAR else self.pod.containers[self._index[name]]

    def _change(self, name: str, **fields: object) -> None:
        changed = replace(self._get(name), **fields)
        if name == SIDECAR:
            self._set(proxy=changed)
            return
        index = self._index[name]
        containers = self.pod.containers
        self._set(containers=(*containers[:index], changed, *containers[index + 1 :]))

    def _each(self) -> Iterable[tuple[Rules, Container]]:
        return zip(self.plan.containers, self.pod.containers, strict=True)

    def _start(self, name: str) -> None:
        self._change(name, run=Run.STARTING, is_started=False, is_ready=False, good=0, bad=0, sick=0)
        self.actions.append(Start(name))

    def _signal(self, name: str, number: int) -> None:
        if self._get(name).run in (Run.RUNNING, Run.STOPPING):
            self.actions.append(Signal(name, number))

    def _advance(self) -> None:
        """Start what may start: init containers one after the other, then all the others."""
        if self.pod.stage not in (Stage.PENDING, Stage.INITIALIZING, Stage.RUNNING):
            return
        if self.plan.has_proxy and not self.pod.proxy.is_ready:
            return
        for rules, one in self._each():
            if not rules.is_init:
                continue
            done = one.is_started if rules.is_companion else one.run is Run.ENDED
            if done:
                continue
            if self.pod.stage is not Stage.RUNNING:
                self._set(stage=Stage.INITIALIZING)
                if one.run is Run.WAITING:
                    self._start(rules.name)
            return
        self._set(stage=Stage.RUNNING)
        for rules, one in list(self._each()):
            if not rules.is_init and one.run is Run.WAITING:
                self._start(rules.name)

    def _started(self, name: str) -> None:
        one = self._get(name)
        if one.run is not Run.STARTING:
            return
        self._change(name, run=Run.RUNNING, since=self.now, reason="")
        if self.pod.is_terminating or self.pod.stage is Stage.FINISHING:
            self._signal(name, signal.SIGTERM)
            return
        if name == SIDECAR:
            return
        rules = self.plan.containers[self._index[name]]
        if rules.startup is not None:
            self.actions.append(Watch(name, ("startup",)))
        else:
            self._past_startup(rules)

    def _past_startup(self, rules: Rules) -> None:
        self._change(rules.name, is_started=True, is_ready=rules.readiness is None)
        kinds: list[ProbeKind] = []
        if rules.readiness is not None:
            kinds.append("readiness")
        if rules.liveness is not None:
            kinds.append("liveness")
        if kinds:
            self.actions.append(Watch(rules.name, tuple(kinds)))
        if rules.is_companion:
            self._advance()

    def _refused(self, name: str, reason: str) -> None:
        if not name:
            self._set(reason=reason, is_failed=True, stage=Stage.ENDED)
            return
        if self._get(name).run is Run.STARTING:
            self._change(name, run=Run.RUNNING, since=self.now)
            self._exited(name, 127, reason or "CreateContainerError")

    def _exited(self, name: str, code: int, reason: str = "") -> None:
        one = self._get(name)
        if one.run not in (Run.STARTING, Run.RUNNING, Run.STOPPING):
            return
        self.actions.append(Unwatch(name))
        self._change(name, run=Run.ENDED, is_ready=False, code=code, reason=reason or _reason(code))
        if self.pod.is_terminating or self.pod.stage is Stage.FINISHING:
            self._after_end(name)
        elif name == SIDECAR:
            self._again(name, one)
        else:
            self._container_ended(self.plan.containers[self._index[name]], one, code)

    def _container_ended(self, rules: Rules, before: Container, code: int) -> None:
        is_wanted = rules.restart == "Always" or before.run is Run.STOPPING
        if (is_wanted and rules.restart != "Never") or (rules.restart == "OnFailure" and code != 0):
            self._again(rules.name, before)
        elif rules.is_init and code == 0:
            self._change(rules.name, is_started=True)
            self._advance()
        elif rules.is_init:
            self._finish(is_failed=True)
        elif all(one.run is Run.ENDED for other, one in self._each() if not other.is_init):
            self._finish(is_failed=any(one.code != 0 for other, one in self._each() if not other.is_init))

    def _again(self, name: str, before: Container) -> None:
        """Start it again: at once the first time, later after a growing while."""
        ran = self.now - before.since if before.since else 0.0
        streak = 1 if ran >= STEADY_SECONDS else before.streak + 1
        self._change(name, streak=streak, restarts=before.restarts + 1)
        wait = backoff(streak)
        if wait:
            self._change(name, run=Run.BACKOFF, again_at=self.now + wait)
        else:
            self._start(name)

    def _finish(self, *, is_failed: bool) -> None:
        """Nothing more to run: end companions and sidecar, keep the pod to look at."""
        self._set(stage=Stage.FINISHING, is_failed=is_failed)
        for rules, one in self._each():
            if one.run in (Run.RUNNING, Run.STOPPING):
                self.actions.append(Signal(rules.name, signal.SIGTERM))
        self._after_end("")

    def _after_end(self, name: str) -> None:
        """Something ended on the way out: go on when nothing is left to wait for."""
        alive = any(one.run in (Run.RUNNING, Run.STARTING, Run.STOPPING) for one in self.pod.containers)
        if name == SIDECAR and not alive:
            self._leave()
        elif not alive and self.pod.stage in (Stage.STOPPING, Stage.FINISHING):
            self._drain_or_leave()

    def _drain_or_leave(self) -> None:
        if self.pod.proxy.run not in (Run.RUNNING, Run.STARTING):
            self._leave()
        elif self.pod.stage is Stage.FINISHING:
            self._signal(SIDECAR, signal.SIGTERM)
            self._set(deadline=self.now + SIDECAR_GRACE)
        else:
            self._set(stage=Stage.DRAINING, deadline=self.now + max(self.plan.grace, SIDECAR_GRACE))
            self.actions.append(Drain())

    def _end_proxy(self) -> None:
        if self.pod.proxy.run is not Run.RUNNING:
            self._leave()
            return
        self._signal(SIDECAR, signal.SIGTERM)
        self._set(stage=Stage.LEAVING, deadline=self.now + SIDECAR_GRACE)

    def _leave(self) -> None:
        is_over = self.pod.stage is Stage.FINISHING
        self._set(stage=Stage.ENDED if is_over else Stage.GONE, deadline=None)
        self.actions.append(Leave())

    def _delete(self) -> None:
        if self.pod.stage is Stage.ENDED:
            self._set(stage=Stage.GONE, deadline=None)
            self.actions.append(Leave())
            return
        self._set(stage=Stage.SETTLING, deadline=None)
        self.actions += [*(Unwatch(rules.name) for rules in self.plan.containers), Settle()]

    def _stop_containers(self) -> None:
        self._set(stage=Stage.STOPPING, deadline=self.now + self.plan.grace)
        if self.pod.proxy.run is Run.RUNNING:
            self.actions.append(CloseListeners())
        for rules, one in list(self._each()):
            if one.run in (Run.WAITING, Run.BACKOFF):
                self._change(rules.name, run=Run.ENDED)
            elif one.run in (Run.RUNNING, Run.STOPPING):
                self.actions.append(PreStop(rules.name) if rules.has_pre_stop else Signal(rules.name, signal.SIGTERM))
        if self.pod.proxy.run is Run.BACKOFF:
            self._change(SIDECAR, run=Run.ENDED)
        self._after_end("")

    def _probed(self, event: Probed) -> None:
        one = self._get(event.name)
        if one.run is not Run.RUNNING:
            return
        rules = self.plan.containers[self._index[event.name]]
        if event.kind == "startup" and rules.startup is not None:
            self._probed_startup(rules, rules.startup, one, event)
        elif event.kind == "readiness" and rules.readiness is not None:
            good = one.good + 1 if event.is_well else 0
            bad = 0 if event.is_well else one.bad + 1
            ready = one.is_ready
            if good >= rules.readiness.success_threshold:
                ready = True
            elif bad >= rules.readiness.failure_threshold:
                ready = False
            self._change(event.name, good=good, bad=bad, is_ready=ready, reason="" if ready else event.words)
        elif event.kind == "liveness" and rules.liveness is not None:
            sick = 0 if event.is_well else one.sick + 1
            self._change(event.name, sick=sick)
            if sick >= rules.liveness.failure_threshold:
                self._give_up(event.name)

    def _probed_startup(self, rules: Rules, limits: Limits, one: Container, event: Probed) -> None:
        if event.is_well:
            self.actions.append(Unwatch(rules.name))
            self._past_startup(rules)
        elif self.now - one.since > limits.budget:
            self._give_up(rules.name)

    def _give_up(self, name: str) -> None:
        self.actions += [Unwatch(name), Signal(name, signal.SIGTERM)]
        self._change(name, run=Run.STOPPING, is_ready=False, again_at=self.now + self.plan.grace, reason="Unhealthy")

    def _tick(self) -> None:
        for name in (*self._index, SIDECAR):
            one = self._get(name)
            if one.run is Run.BACKOFF and self.now >= one.again_at:
                self._start(name)
            elif one.run is Run.STOPPING and self.now >= one.again_at:
                self._change(name, again_at=self.now + SIDECAR_GRACE)
                self.actions.append(Signal(name, signal.SIGKILL))
        if self.pod.deadline is not None and self.now >= self.pod.deadline:
            self._overdue()

    def _overdue(self) -> None:
        self._set(deadline=self.now + SIDECAR_GRACE)
        if self.pod.stage is Stage.STOPPING:
            for rules, one in self._each():
                if one.run in (Run.RUNNING, Run.STOPPING):
                    self.actions.append(Signal(rules.name, signal.SIGKILL))
        elif self.pod.stage is Stage.DRAINING:
            self._end_proxy()
        elif self.pod.stage in (Stage.LEAVING, Stage.FINISHING):
            for name in (*self._index, SIDECAR):
                self._signal(name, signal.SIGKILL)


def _reason(code: int) -> str:
    return "Completed" if code == 0 else "Error"


def status_word(plan: Plan, pod: Pod) -> str:
    """What `kubectl get pods` says in its STATUS column."""
    if pod.is_terminating:
        return "Terminating"
    if pod.stage in (Stage.ENDED, Stage.FINISHING):
        return "Error" if pod.is_failed else "Completed"
    pairs = list(zip(plan.containers, pod.containers, strict=False))
    inits = [(rules, one) for rules, one in pairs if rules.is_init]
    prefix = ""
    if pod.stage is Stage.INITIALIZING:
        done = sum(one.is_started or one.run is Run.ENDED for _, one in inits)
        prefix = f"Init:{done}/{len(inits)}"
    for rules, one in pairs:
        if one.run is Run.BACKOFF:
            word = "CreateContainerError" if one.code == 127 else "CrashLoopBackOff"
            return f"Init:{word}" if rules.is_init else word
    if prefix:
        return prefix
    if pod.stage is Stage.RUNNING:
        return "Running"
    return "Pending" if pod.stage in (Stage.NEW, Stage.PENDING) else str(pod.stage.value)
