"""Where a rule's requests or connections go: targets as weighted clusters. Knows no host and no listener."""

from collections.abc import Callable

from tulle.model.intent import Forward, Target, TcpRule
from tulle.model.plan import UNRESOLVED, Send, WeightedTarget


def send_to(forward: Forward, place: Callable[[Target], str]) -> Send:
    """The clusters of a rule's targets; a single target takes everything whatever its weight says."""
    return Send(_weighted(forward.targets, place), forward.missing)


def stream_targets(rule: TcpRule, place: Callable[[Target], str]) -> tuple[WeightedTarget, ...]:
    """The same of a rule of connections."""
    return tuple(WeightedTarget(one.cluster, one.weight) for one in _weighted(rule.targets, place)) or (
        WeightedTarget(UNRESOLVED, 1),
    )


def _weighted(targets: tuple[Target, ...], place: Callable[[Target], str]) -> tuple[WeightedTarget, ...]:
    if len(targets) == 1:
        return (WeightedTarget(_cluster(targets[0], place), 1, targets[0].policies),)
    return tuple(
        WeightedTarget(_cluster(target, place), target.weight, target.policies) for target in targets if target.weight
    )


def _cluster(target: Target, place: Callable[[Target], str]) -> str:
    return place(target) if target.host else UNRESOLVED
