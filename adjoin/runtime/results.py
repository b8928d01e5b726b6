"""What the annotations of the user's functions say about results that come as plain data."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from adjoin.dag import Stage
from adjoin.dag.annotations import iteration


def return_annotation(stage: Stage) -> Any:
    """The annotation of a stage's result, to restore types of the user; None for built-ins."""
    if stage.function.is_builtin or stage.function.call is None:
        return None
    return _returns(stage.function.call)


@functools.lru_cache(maxsize=1024)
def _returns(call: Callable[..., Any]) -> Any:
    try:
        annotation = inspect.get_annotations(call, eval_str=True).get("return")
    except (NameError, TypeError):
        return None
    found = iteration(annotation)
    return annotation if found is None else found.whole
