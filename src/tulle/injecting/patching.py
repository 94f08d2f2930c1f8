"""From one JSON value to another as a JSON patch (RFC 6902): what an admission webhook answers.

Maps are compared field by field; a list that differs is replaced whole, so no operation depends on another.
"""

from __future__ import annotations

from typing import Any

Operation = dict[str, Any]


def patch(old: Any, new: Any, path: str = "") -> list[Operation]:
    """Operations that make `new` of `old`, in order of paths."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [{"op": "replace", "path": path, "value": new}]
    operations: list[Operation] = []
    for name in sorted({*old, *new}):
        place = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in new:
            operations.append({"op": "remove", "path": place})
        elif name not in old:
            operations.append({"op": "add", "path": place, "value": new[name]})
        else:
            operations += patch(old[name], new[name], place)
    return operations
