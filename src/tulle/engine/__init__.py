"""An incremental query engine: inputs, pure queries over them, and answers kept fresh with the least work.

Knows no mesh: it would serve any program that is a function from inputs to outputs. What the inputs are begins in
`tulle.model`; what the queries are, in `tulle.dialects` and `tulle.compile`.
"""

from tulle.engine.database import Database, Root
from tulle.engine.errors import CycleError, EngineError, ImpureQuery, InsideQuery
from tulle.engine.explain import Explanation, Read
from tulle.engine.graph import Runs
from tulle.engine.inputs import Edit, Index, Input, Singleton
from tulle.engine.query import Query, gate, query

__all__ = [
    "CycleError",
    "Database",
    "Edit",
    "EngineError",
    "Explanation",
    "ImpureQuery",
    "Index",
    "Input",
    "InsideQuery",
    "Query",
    "Read",
    "Root",
    "Runs",
    "Singleton",
    "gate",
    "query",
]
