"""Protobuf's wire format where messages are glued from serialised parts: a repeated field is a run of (tag, length, bytes).

Knows no message; source: the Protocol Buffers encoding guide.
"""

_LENGTH_DELIMITED = 2


def field(number: int, content: bytes) -> bytes:
    """One length-delimited field (message, bytes or string); `number` < 16."""
    return bytes([number << 3 | _LENGTH_DELIMITED]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
