"""What every Istio schema shares: spelling, refusal of unknown fields, and the types that occur everywhere.

Knows no kind. Source: Istio API reference, networking/v1 and security/v1 (older served versions have the same fields).
"""

from typing import Annotated, Any

from msgspec import Struct, field

from tulle.dialects.kinds import LENIENT_TEXT, UNENFORCED, Duration, PortNumber

Unused = Annotated[dict[str, Any] | None, UNENFORCED]
"""An object of the API that nothing acts on yet."""
OptionalDuration = Duration | None
Labels = dict[str, str]


class Wire(Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A spec or a part of one, spelled as in YAML. Fields are documented by Istio's reference, under the same names."""


class StringMatch(Wire, frozen=True):
    """One of the three; none of them where the field may be present with any value."""

    exact: Annotated[str | None, LENIENT_TEXT] = None
    prefix: Annotated[str | None, LENIENT_TEXT] = None
    regex: Annotated[str | None, LENIENT_TEXT] = None


class PortSelector(Wire, frozen=True):
    """A port of a service by number."""

    number: PortNumber


class WorkloadSelector(Wire, frozen=True):
    """Workloads by label."""

    match_labels: Labels = field(default_factory=dict)
