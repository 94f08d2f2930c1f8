"""Progress for the person who waits, on stderr; nothing else writes there."""

import sys


def say(text: str) -> None:
    """One line."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)
