"""A Stage: one use of a function, with the conditions, fan-outs and loops around it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import is_writable
from adjoin.dag.binding import (
    Binding,
    Expression,
    Literal,
    Reference,
    evaluate,
    references,
    taken,
)
from adjoin.dag.control import ELEMENT_ERROR, Each, Repeat, condition
from adjoin.dag.datatypes import DataType
from adjoin.dag.function import Function, Policy
from adjoin.dag.parameter import Parameter
from adjoin.dag.values import conform
from adjoin.errors import DefinitionError, GraphError, InputError

NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Site:
    """A place in a stage where a binding stands.

    Attributes:
        name: of the argument; of a construct, how it is written.
        names: what the binding may refer to beside inputs and stages.
    """

    name: str
    binding: Binding
    names: frozenset[str] = NO_NAMES
    is_argument: bool = False

    @property
    def is_condition(self) -> bool:
        return self.name == "when" and not self.is_argument

    @property
    def references_outside(self) -> Iterator[str]:
        return (ref.root for ref in references(self.binding) if ref.root not in self.names)


@dataclass(frozen=True)
class Stage:
    """One use of a function.

    ``when`` is decided once; then ``each`` fans out; then each element is repeated.

    Attributes:
        when: the stage is skipped, and its value null, where this is false.
    """

    id: str
    function: Function
    bindings: Mapping[str, Binding]
    policy: Policy
    when: Binding | None = None
    each: Each | None = None
    repeat: Repeat | None = None

    @property
    def model(self) -> str | None:
        """The model that the stage works with; stages of a nested workflow have their own."""
        return self._named(self.function.needs.model)

    @property
    def collection(self) -> str | None:
        """The collection that the stage works with."""
        return self._named(self.function.needs.collection)

    @property
    def models(self) -> frozenset[str]:
        """The models of the stage and of all stages of its nested workflow."""
        graph = self.function.graph
        nested = graph.model_names() if graph is not None else NO_NAMES
        return nested if self.model is None else nested | {self.model}

    @property
    def collections(self) -> frozenset[str]:
        """The collections of the stage and of all stages of its nested workflow."""
        graph = self.function.graph
        nested = graph.collection_names() if graph is not None else NO_NAMES
        return nested if self.collection is None else nested | {self.collection}

    def _named(self, parameter: str | None) -> str | None:
        if parameter is None:
            return None
        bound = self.bindings.get(parameter)
        if bound is None and (found := self.function.parameter(parameter)) is not None:
            bound = found.default
        return bound.value if isinstance(bound, Literal) else None

    @functools.cached_property
    def result(self) -> DataType:
        """The type that one call of the function gives, with these arguments.

        Raises:
            GraphError: arguments on which it depends are wrong.
        """
        if self.function.result is None:
            return self.function.returns
        try:
            return self.function.result(self.bindings)
        except DefinitionError as error:
            where = f"stage {self.id!r}, {error.where}" if error.where else f"stage {self.id!r}"
            message = f"{where}: {error.message}"
            raise GraphError(message, hint=error.hint, stage=self.id) from None

    @property
    def returns(self) -> DataType:
        """The type of the stage's value where it is not skipped."""
        found = self.result
        if self.each is None:
            return found
        collects = self.each.on_error == "collect"
        return dt.list_of(dt.union(found, ELEMENT_ERROR) if collects else found)

    @functools.cached_property
    def streams(self) -> bool:
        """Whether others may read the stage's value while it is being made."""
        if self.function.streams == "text":
            return self._is_one_call and self.result == dt.STRING
        return self._is_one_call and self.function.streams == "items"

    def iterates(self, root: str) -> bool:
        """Whether the stage takes another one's value piece by piece, and in no other way."""
        taken = [site for site in self.sites if root in site.references_outside]
        return (
            self._is_one_call
            and bool(taken)
            and all(
                site.is_argument
                and site.name in self.function.iterates
                and site.binding == Reference(root)
                for site in taken
            )
        )

    @property
    def _is_one_call(self) -> bool:
        return self.each is None and self.repeat is None and self.function.graph is None

    @functools.cached_property
    def sites(self) -> tuple[Site, ...]:
        """All bindings of the stage, with where they stand."""
        found = []
        if self.when is not None:
            found.append(Site("when", self.when))
        names = NO_NAMES
        if self.each is not None:
            names = self.each.names
            found.append(Site("each", self.each.over))
        found += [Site(name, bound, names, True) for name, bound in self.bindings.items()]
        if self.repeat is not None:
            found.append(Site("repeat", self.repeat.until, names | self.repeat.names))
        return tuple(found)

    @functools.cached_property
    def roots(self) -> frozenset[str]:
        """What the stage refers to: ``inputs`` and stages."""
        return frozenset(root for site in self.sites for root in site.references_outside)

    @functools.cached_property
    def needed(self) -> frozenset[str]:
        """Roots without which the stage is skipped: taken as they are where null is not."""
        found: set[str] = set()
        for site in self.sites:
            if site.name == "repeat" and not site.is_argument:
                continue
            if not site.is_argument or not self._takes_null(site.name):
                found |= taken(site.binding) - site.names
        return frozenset(found)

    def _takes_null(self, argument: str) -> bool:
        parameter = self.function.parameter(argument)
        return parameter is None or dt.assignable(dt.NULL, parameter.type)

    # --- what happens when it runs ------------------------------------------------------------

    def skipped_by(self, skipped: frozenset[str]) -> bool:
        """Whether the stage is skipped because these stages were."""
        return not self.needed.isdisjoint(skipped)

    def should_run(self, scope: Mapping[str, Any]) -> bool:
        """Whether ``when`` holds.

        Raises:
            InputError: it is not true or false.
        """
        return self.when is None or condition(self.when, scope, "when")

    def elements(self, scope: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """For each element of ``each`` what it adds to the scope; None without ``each``.

        Raises:
            InputError: there is no list or number, or it is too large.
        """
        return None if self.each is None else self.each.elements(scope)

    def gather(self, outcomes: list[Any]) -> list[Any]:
        """The stage's value from values and errors of its elements, in order; see ``Each``."""
        if self.each is None:
            raise ValueError(f"stage {self.id!r} does not fan out")
        return self.each.gather(outcomes)

    def arguments(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of the function, evaluated and within its bounds.

        Raises:
            InputError: a path does not exist, or a value does not fit or is out of bounds.
        """
        values = {name: evaluate(bound, scope) for name, bound in self.bindings.items()}
        for parameter in self.function.parameters:
            if parameter.name in values:
                value = values[parameter.name]
                if parameter.name in self.function.iterates and isinstance(value, str):
                    value = [value]
                computed = isinstance(self.bindings[parameter.name], Expression)
                values[parameter.name] = _checked(parameter, value, computed)
        return values

    def next_arguments(self, arguments: Mapping[str, Any], result: Any) -> dict[str, Any]:
        """The arguments of the iteration that follows one with these arguments and result.

        Raises:
            InputError: a part of the result does not fit the argument of its name.
        """
        if self.repeat is None:
            raise ValueError(f"stage {self.id!r} does not repeat")
        known = {parameter.name: parameter for parameter in self.function.parameters}
        carried = self.repeat.carried(result, frozenset([*known, *self.bindings]))
        for name, value in carried.items():
            if name in known:
                carried[name] = _checked(known[name], value, False)
        return {**arguments, **carried}

    def finished(self, scope: Mapping[str, Any], result: Any, iteration: int) -> bool:
        """Whether the iteration (from 1) with this result was the last of ``repeat``.

        Raises:
            InputError: the condition is not true or false.
        """
        return self.repeat is None or self.repeat.finished(scope, result, iteration)


def _checked(parameter: Parameter, value: Any, computed: bool) -> Any:
    """The value for the parameter; what was computed is plain data and takes its type here."""
    where = f"argument {parameter.name!r}"
    if value is None and not dt.assignable(dt.NULL, parameter.type):
        raise InputError(f"must be {parameter.type}, is null", where=where)
    if computed and is_writable(parameter.type):
        try:
            value = conform(value, parameter.type)
        except ValueError as error:
            raise InputError(str(error), where=where) from None
    if reason := parameter.bounds.broken_by(value):
        raise InputError(reason, where=where)
    return value
