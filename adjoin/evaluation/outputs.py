"""Which of a workflow's outputs is the answer, and which the passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from adjoin.dag import DataType, Graph, as_function
from adjoin.dag.names import suggest
from adjoin.errors import InputError
from adjoin.evaluation.metrics import Metric
from adjoin.types import Passage

_SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})


class Chosen(NamedTuple):
    """Names of outputs; empty where no metric needs one."""

    answer: str = ""
    passages: str = ""

    def answer_of(self, outputs: Mapping[str, Any]) -> Any:
        return outputs.get(self.answer)

    def passages_of(self, outputs: Mapping[str, Any]) -> list[Passage]:
        """The passages, which may be plain data that was read from a file."""
        return msgspec.convert(outputs.get(self.passages) or [], list[Passage])


def choose_outputs(
    graph: Graph, metrics: Sequence[Metric], answer: str | None, passages: str | None
) -> Chosen:
    """The outputs that the metrics look at: those named, else the only ones of their types.

    The answer is the only text, number or truth value, or else the only output whose type is not
    known; the passages are the only list of passages.

    Raises:
        InputError: there is none, or there are several and none was named.
    """
    needs = {metric.needs for metric in metrics}
    types = output_types(graph)
    found = Chosen()
    if "answer" in needs:
        of_type = [name for name, type in types.items() if _is_scalar(type)]
        unknown = [name for name, type in types.items() if type.kind == "any"]
        found = found._replace(answer=_one(graph, of_type or unknown, answer, "answer"))
    if "relevant" in needs:
        of_type = [name for name, type in types.items() if _has_passages(type)]
        found = found._replace(passages=_one(graph, of_type, passages, "passages"))
    return found


def output_types(graph: Graph) -> dict[str, DataType]:
    """The type of each output, by name."""
    returns = as_function(graph).returns
    return {"output": returns} if graph.bare else dict(returns.fields or ())


def _one(graph: Graph, candidates: Sequence[str], named: str | None, what: str) -> str:
    if named is not None:
        if named not in graph.outputs:
            raise InputError(
                f"workflow {graph.name!r} has no output {named!r}",
                where=f"--{what}",
                hint=suggest(named, graph.outputs),
            )
        return named
    if len(candidates) == 1:
        return candidates[0]
    problem = (
        f"several outputs may be the {what}: {', '.join(candidates)}"
        if candidates
        else f"no output is known to be the {what}"
    )
    options = ", ".join(candidates or sorted(graph.outputs))
    hint = f"name it: --{what} OUTPUT, one of {options}"
    raise InputError(problem, where=f"workflow {graph.name!r}", hint=hint)


def _is_scalar(type: DataType) -> bool:
    members = type.args if type.kind == "union" else (type,)
    kinds = {"struct" if member.name == "Generation" else member.kind for member in members}
    named = {member.name for member in members if member.kind == "struct"}
    return kinds <= _SCALARS | {"struct"} and named <= {"Generation", "Reply"} and bool(members)


def _has_passages(type: DataType) -> bool:
    members = type.args if type.kind == "union" else (type,)
    lists = [member for member in members if member.kind != "null"]
    return bool(lists) and all(
        member.kind == "list" and member.args[0].name == "Passage" for member in lists
    )
