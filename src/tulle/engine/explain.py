"""Why an answer is what it is: the tree of questions below it, and the inputs at its leaves.

Reads the graph and changes nothing. Must not know what inputs mean: callers map keys to places in files.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

from tulle.engine.errors import written
from tulle.engine.graph import Leaf, Memo

Read: TypeAlias = tuple[str, Hashable]
"""Name of an input, and the key (for an index the bucket, for a singleton the empty tuple)."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """One question and all that its answer rests on. Equal parts of the tree are the same object."""

    query: str
    args: tuple[object, ...]
    computed_at: int
    """Revision at which it last ran."""
    changed_at: int
    """Revision at which its answer last changed; earlier than `computed_at` if the last run was cut off."""
    inputs: tuple[Read, ...]
    """Inputs it read itself, in order of asking."""
    asks: tuple[Explanation, ...]
    """Questions it asked itself, in order of asking."""

    def __str__(self) -> str:
        """The tree, two spaces per level; a part met again is not repeated."""
        lines: list[str] = []
        seen: set[Explanation] = set()
        stack = [(self, 0)]
        while stack:
            part, depth = stack.pop()
            margin, call = "  " * depth, written((part.query, part.args))
            if part in seen:
                lines.append(f"{margin}{call}: as above")
                continue
            seen.add(part)
            lines.append(f"{margin}{call}: computed at {part.computed_at}, changed at {part.changed_at}")
            lines += [f"{margin}  reads {name}" + (f"[{key!r}]" if key != () else "") for name, key in part.inputs]
            stack += [(child, depth + 1) for child in reversed(part.asks)]
        return "\n".join(lines)


def explanation(root: Memo) -> Explanation:
    """The tree below a memo that is up to date. Cost: O(nodes below), each visited once."""
    made: dict[Memo, Explanation] = {}
    stack = [root]
    while stack:
        memo = stack[-1]
        children = [dep for dep in memo.deps if isinstance(dep, Memo)]
        missing = [child for child in children if child not in made]
        if memo not in made and not missing:
            inputs = tuple((dep.source.name, dep.key) for dep in memo.deps if isinstance(dep, Leaf))
            asks = tuple(made[child] for child in children)
            made[memo] = Explanation(memo.query.name, memo.args, memo.computed_at, memo.changed_at, inputs, asks)
        if missing:
            stack += missing
        else:
            stack.pop()
    return made[root]


def reads_below(root: Memo) -> frozenset[Read]:
    """Every input key that a memo rests on, however deep. Cost: O(nodes below)."""
    reads: set[Read] = set()
    seen = {root}
    stack = [root]
    while stack:
        for dep in stack.pop().deps:
            if isinstance(dep, Leaf):
                reads.add((dep.source.name, dep.key))
            elif isinstance(dep, Memo) and dep not in seen:
                seen.add(dep)
                stack.append(dep)
    return frozenset(reads)
