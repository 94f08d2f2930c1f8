"""What the life of a pod depends on, read from its template: the rules of `supervision` for each container."""

from __future__ import annotations

from tulle.dialects.kubernetes.injection import Role
from tulle.local.desired import Workload
from tulle.local.lives import Limits, Plan, ProbeKind, Restart, Rules
from tulle.local.manifests import Container, Probe


def plan_of(workload: Workload) -> Plan:
    """What the machine must know of a workload's pods."""
    spec = workload.spec
    rules = [
        _rules(one, "Always" if one.restart_policy == "Always" else _init_policy(spec.restart_policy), is_init=True)
        for one in spec.init_containers or ()
    ]
    if workload.role is not Role.GATEWAY:
        rules += [_rules(one, spec.restart_policy, is_init=False) for one in spec.containers]
    return Plan(tuple(rules), workload.role is not Role.NONE, float(spec.termination_grace_period_seconds))


def _init_policy(policy: Restart) -> Restart:
    return "Never" if policy == "Never" else "OnFailure"


def _rules(container: Container, restart: Restart, *, is_init: bool) -> Rules:
    hook = container.lifecycle.pre_stop if container.lifecycle else None
    return Rules(
        name=container.name,
        restart=restart,
        is_init=is_init,
        startup=_limits(container.startup_probe),
        readiness=_limits(container.readiness_probe),
        liveness=_limits(container.liveness_probe),
        has_pre_stop=hook is not None,
    )


def _limits(probe: Probe | None) -> Limits | None:
    if probe is None:
        return None
    budget = probe.initial_delay_seconds + probe.period_seconds * probe.failure_threshold
    return Limits(probe.success_threshold, probe.failure_threshold, float(budget))


def probe_of(container: Container, kind: ProbeKind) -> Probe | None:
    """The container's probe of a kind."""
    return {
        "startup": container.startup_probe,
        "readiness": container.readiness_probe,
        "liveness": container.liveness_probe,
    }[kind]
