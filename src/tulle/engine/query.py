"""`@query`: a pure function of the database and hashable arguments becomes a memoised question.

Must not know how answers are kept fresh: that is graph.py.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from tulle.engine.graph import CLEAN

if TYPE_CHECKING:
    from tulle.engine.database import Database

P = ParamSpec("P")
R = TypeVar("R")


class Query(Generic[P, R]):
    """A memoised question. Arguments are compared by `==` and hash; the answer must have `==` and never be mutated."""

    def __init__(self, function: Callable[Concatenate[Database, P], R], *, is_gate: bool = False) -> None:
        self.function = function
        self.is_gate = is_gate
        self.name = function.__name__
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1:]
        if any(one.kind not in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters):
            raise TypeError(f"query {self.name}: every parameter must be positional, they are the memo's key")
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise TypeError(f"query {self.name}: a generator or coroutine cannot be memoised")
        self._signature = signature.replace(parameters=parameters)
        self._arity = len(parameters)
        functools.update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<Query {self.name}>"

    def __call__(self, db: Database, *args: P.args, **kwargs: P.kwargs) -> R:
        """The answer as of now; remembered as a dependency of the query that asks.

        Cost: one lookup when nothing below was dirtied. Errors: CycleError, and whatever the query raises.
        """
        graph = db.graph
        # As `bound`, without a call more for every hit.
        memo = graph.memo(self, args if len(args) == self._arity and not kwargs else self.bound(*args, **kwargs))
        if graph.asked is not None:
            graph.asked[memo] = None  # before it runs: an answer may depend on a question that failed
        if memo.state != CLEAN and not graph.is_settled(db, memo):
            # Run here and not in the graph: each further frame per query halves the depth a cold chain may have.
            outer = graph.begin(memo)
            try:
                value = memo.query.function(db, *memo.args)
                changed = graph.is_changed(db, memo, value)
            except BaseException as error:
                graph.fail(memo, outer, error)
                raise
            graph.finish(memo, outer, value, changed)
        answer: R = memo.value
        return answer

    def bound(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Any, ...]:
        """The arguments in their one canonical form: positional, defaults filled in."""
        if len(args) == self._arity and not kwargs:
            return args
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.args


def gate(function: Callable[Concatenate[Database, P], R]) -> Query[P, R]:
    """A query that many others rest on and that rarely changes: answered anew right after an edit below it.

    What rests on it is not even looked at when the answer is the same. Worth it where a small question (which ports a
    service has) stands between what is edited often and everything.
    """
    return Query(function, is_gate=True)


def query(function: Callable[Concatenate[Database, P], R]) -> Query[P, R]:
    """Make a pure function a query. It may read nothing but its arguments, the database and constants."""
    return Query(function)
