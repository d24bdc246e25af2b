"""The decorator that makes a Python function callable from a `function` step."""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

MARK = "__flexcore_task__"


def task(function: Function) -> Function:
    """Mark a function, sync or async, as callable from a workflow's `function` step.

    Only marked functions can be called, so a workflow file never reaches arbitrary code of an installed package.
    The function stays an ordinary function. Its return value must be JSON.

    >>> @task
    ... def double(n: int) -> int:
    ...     return 2 * n
    """
    setattr(function, MARK, True)
    return function
