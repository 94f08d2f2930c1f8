"""Protobuf's wire format where messages are glued from serialised parts: a repeated field is a run of (tag, length, bytes).

Knows no message; source: the Protocol Buffers encoding guide.
"""

_LENGTH_DELIMITED = 2
_SHORT = 128
_HEADS = [[bytes([number << 3 | _LENGTH_DELIMITED, size]) for size in range(_SHORT)] for number in range(16)]
"""Tag and length of fields shorter than 128 bytes: there are forty of them in an endpoint, and ten thousand endpoints."""


def field(field_number: int, content: bytes) -> bytes:
    """One length-delimited field (message, bytes or string); `field_number` < 16."""
    return head(field_number, len(content)) + content


def head(field_number: int, size: int) -> bytes:
    """Tag and length of a length-delimited field; `field_number` < 16. For who joins many parts at once."""
    if size < _SHORT:
        return _HEADS[field_number][size]
    return bytes([field_number << 3 | _LENGTH_DELIMITED]) + _varint(size)


def number(field_number: int, value: int) -> bytes:
    """One unsigned integer field; `field_number` < 16. Zero is what is not there."""
    return bytes([field_number << 3]) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
