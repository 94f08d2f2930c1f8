"""Which resources of a refused response are to blame, by what Envoy said. Pure text; knows no stream.

Envoy says it in three ways (seen on 1.40):

    Error adding/updating cluster(s) a: reason, b: reason      the named are guilty, the others were applied
    …name: "a"…: Proto constraint validation failed (…)         one resource, printed; the whole response is lost
    Only unique values for domains are permitted …              a reason without a resource; the whole response is lost
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from tulle.xds.names import ResourceName

_LISTING = "Error adding/updating "
# A name counts when it is not part of a longer one: `a.b` does not accuse `a`, nor `b`; a full stop ends a sentence.
_BEFORE = r"(?<![\w|/.\-])"
_AFTER = r"(?![\w|/\-]|\.\w)"
_PRINTED = re.compile(r'^(?:cluster_)?name: "([^"]*)"', re.MULTILINE)


class Blame(NamedTuple):
    """Who is guilty, and what became of the others."""

    guilty: tuple[ResourceName, ...]
    """Without doubt, in the order given; empty when the message does not say."""
    others_applied: bool
    suspects: tuple[ResourceName, ...] = ()
    """Mentioned, which may mean anything: worth trying apart from the rest."""


def blame(detail: str, names: Iterable[ResourceName]) -> Blame:
    """Judge a response that carried `names` by Envoy's `detail`."""
    names = tuple(names)
    if detail.startswith(_LISTING):
        listed = tuple(name for name in names if re.search(r"(?:^|\s)" + re.escape(name) + r": ", detail))
        return Blame(listed, bool(listed))
    if len(names) == 1:
        return Blame(names, others_applied=False)
    printed = set(_PRINTED.findall(detail))
    accused = tuple(name for name in names if name in printed)
    if len(accused) == 1:
        return Blame(accused, others_applied=False)
    return Blame((), others_applied=False, suspects=accused or _mentioned(detail, names))


def _mentioned(detail: str, names: tuple[ResourceName, ...]) -> tuple[ResourceName, ...]:
    return tuple(name for name in names if name in detail and re.search(_BEFORE + re.escape(name) + _AFTER, detail))
