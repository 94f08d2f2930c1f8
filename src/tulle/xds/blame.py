"""Which resources of a refused response are to blame, by what Envoy said. Pure text; knows no stream."""

import re
from collections.abc import Iterable

from tulle.xds.names import ResourceName

# A name counts when it is not part of a longer one: `a.b` does not accuse `a`, nor `b`; a full stop ends a sentence.
_BEFORE = r"(?<![\w|/.\-])"
_AFTER = r"(?![\w|/\-]|\.\w)"


def suspects(detail: str, names: Iterable[ResourceName]) -> tuple[ResourceName, ...]:
    """Those of `names` that occur in Envoy's message, in order; empty when it names none.

    Envoy's CDS and LDS list each failure (`Error adding/updating cluster(s) a: reason, b: reason`); other types usually
    say what is wrong without saying where.
    """
    return tuple(name for name in names if name in detail and re.search(_BEFORE + re.escape(name) + _AFTER, detail))
