"""Which namespaces of a cluster are in use: Istio's discoverySelectors. Pure.

A namespace counts if any selector fits its labels; without selectors all do. Source: Kubernetes' LabelSelector, matchLabels and
matchExpressions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

Labels = Mapping[str, str]
IsSelected = Callable[[str, Labels], bool]
"""Of a namespace's name and labels."""


class Expression(Struct, frozen=True, forbid_unknown_fields=True):
    """One requirement."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def fits(self, labels: Labels) -> bool:
        """Whether labels meet it. A label that is missing meets NotIn."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class LabelSelector(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """All of its requirements must fit; an empty one fits everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Expression, ...] = ()

    def fits(self, labels: Labels) -> bool:
        """Whether labels meet it."""
        return self.match_labels.items() <= labels.items() and all(one.fits(labels) for one in self.match_expressions)


def selected_by(selectors: Sequence[LabelSelector], always: frozenset[str] = frozenset()) -> IsSelected | None:
    """The judgement of some selectors, and of names that count whatever their labels; None: everything counts."""
    if not selectors:
        return None
    return lambda name, labels: name in always or any(selector.fits(labels) for selector in selectors)
