"""Objects as they are written: the raw document of one object, for people. Values of Secrets are never among them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tulle.sources.files import MAX_FILE_BYTES
from tulle.sources.yaml_text import chunks, parsed

_HIDDEN = "(hidden)"
_MOST_NESTED = 4


def document(file: str, line: int, kind: str, name: str) -> dict[str, Any] | None:
    """The object of that kind and name whose document holds the line; None where it is not there any more."""
    try:
        text = Path(file).read_bytes()[:MAX_FILE_BYTES].decode("utf-8", "replace")
    except OSError:
        return None
    around = None
    for chunk in chunks(text):
        if chunk.line + 1 > line:
            break
        around = chunk
    if around is None:
        return None
    values = (found.value for found in parsed(around).documents)
    for raw in (one for value in values for one in _flat(value, _MOST_NESTED)):
        if raw.get("kind") == kind and (raw.get("metadata") or {}).get("name") == name:
            return _hidden(raw) if kind == "Secret" else raw
    return None


def _flat(value: Any, left: int) -> Iterator[dict[str, Any]]:
    if not isinstance(value, dict):
        return
    items = value.get("items")
    if str(value.get("kind", "")).endswith("List") and isinstance(items, list) and left:
        for item in items:
            yield from _flat(item, left - 1)
    else:
        yield value


def _hidden(raw: dict[str, Any]) -> dict[str, Any]:
    parts = {
        part: dict.fromkeys(raw[part], _HIDDEN) for part in ("data", "stringData") if isinstance(raw.get(part), dict)
    }
    shown = {**raw, **parts}
    metadata = dict(shown.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    if annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None) is not None:
        metadata["annotations"] = annotations  # it would hold the bytes again
    return {**shown, "metadata": metadata}
