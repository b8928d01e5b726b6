"""What flows between stages: whether each reference names something, and each value fits."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from adjoin.dag import datatypes as dt
from adjoin.dag import expression
from adjoin.dag.binding import (
    Binding,
    Expression,
    Fields,
    Interpolation,
    Items,
    Literal,
    Reference,
    references,
    type_of_binding,
)
from adjoin.dag.control import INDEX, ITERATION, MAX_AT_ONCE, MAX_ITERATIONS, ON_ERROR, RESULT
from adjoin.dag.datatypes import DataType
from adjoin.dag.demands import neighbours
from adjoin.dag.names import INPUTS, RESERVED, check_name, suggest
from adjoin.dag.parameter import Parameter
from adjoin.dag.stage import NO_NAMES, Site, Stage
from adjoin.errors import GraphError, InputError


class Edges:
    """The references of a workflow that is being built, and their types."""

    def __init__(
        self,
        inputs: tuple[Parameter, ...],
        stages: Mapping[str, Stage],
        outputs: Mapping[str, Binding],
    ) -> None:
        self.inputs = {parameter.name: parameter.type for parameter in inputs}
        self.stages = stages
        self.outputs = outputs

    def check_references(self) -> None:
        """Raise :class:`GraphError` where one names nothing, or an expression is none."""
        for stage in self.stages.values():
            self._check_names(stage)
            for site in stage.sites:
                with _blamed(stage, site):
                    self._check_binding(site.binding, site.names)
        for name, bound in self.outputs.items():
            with _blamed_output(name):
                self._check_binding(bound, NO_NAMES)

    def _check_names(self, stage: Stage) -> None:
        """What a construct binds is not also a stage: a reference to it would have two meanings."""
        for construct, found in (("each", stage.each), ("repeat", stage.repeat)):
            names = found.names if found is not None else NO_NAMES
            details = {"stage": stage.id, "construct": construct}
            for name in sorted(names):
                check_name(name, "an element", **details)
                if name in self.stages or name in RESERVED or name == INPUTS:
                    raise GraphError(
                        f"stage {stage.id!r}: {construct} binds the name {name!r}, which is taken",
                        hint="rename the stage of that name, or the element (as)",
                        **details,
                    )

    def _check_binding(self, bound: Binding, names: frozenset[str]) -> None:
        for source in _sources(bound):
            expression.check(source)
        for reference in references(bound):
            if reference.root not in names and (reason := self._dangling(reference, names)):
                raise GraphError(reason[0], hint=reason[1])

    def _dangling(self, reference: Reference, names: frozenset[str]) -> tuple[str, str] | None:
        """What is wrong with a reference's root, and a hint; None when nothing is."""
        if reference.root != INPUTS:
            if reference.root in self.stages:
                return None
            hint = suggest(reference.root, [*self.stages, *names, INPUTS])
            if reference.root in self.inputs:
                hint = f"for the input write ${{{INPUTS}.{reference.root}}}"
            return f"{reference} names no stage", hint
        if not reference.path or not isinstance(reference.path[0], str):
            return f"{reference} names no input", "write ${inputs.name}"
        if reference.path[0] in self.inputs:
            return None
        return f"{reference} names no input", suggest(reference.path[0], self.inputs)

    # --- types --------------------------------------------------------------------------------

    def check_types(self, skippable: frozenset[str]) -> None:
        """Raise :class:`GraphError` where no value could fit.

        What a stage that may be skipped gives fits as if it were not: where null does not fit, the
        stage that takes it is skipped, too.
        """
        types = {id: stage.returns for id, stage in self.stages.items()}
        types[INPUTS] = dt.record(self.inputs)
        for stage in self.stages.values():
            for site in stage.sites:
                with _blamed(stage, site):
                    seen = ChainMap(_bound_types(stage, types), types) if site.names else types
                    _check_site(stage, site, type_of_binding(site.binding, seen, skippable))
        for name, bound in self.outputs.items():
            with _blamed_output(name):
                type_of_binding(bound, types, skippable)

    # --- what travels -------------------------------------------------------------------------

    def check_carried(self) -> None:
        """Raise :class:`GraphError` where a value would have to leave its process and cannot.

        All of a stage's value goes to the worker that takes a part of it; outputs go to the caller.
        """
        together = neighbours({id: stage.policy.colocate for id, stage in self.stages.items()})
        for stage in self.stages.values():
            for site in stage.sites:
                with _blamed(stage, site):
                    for source in sorted(set(site.references_outside) & together.keys()):
                        if together[source] != together[stage.id]:
                            self._check_travels(source, f"or declare colocate: {source}")
        for name, bound in self.outputs.items():
            with _blamed_output(name):
                for reference in references(bound):
                    if reference.root in together:
                        self._check_travels(reference.root, "an output goes to the caller")

    def _check_travels(self, source: str, otherwise: str) -> None:
        given = self.stages[source].returns
        if (part := dt.confined(given)) is not None:
            within = "it" if part is given else str(part)
            raise GraphError(
                f"stage {source!r} gives {given}, but {within} cannot travel between processes",
                hint="return text, numbers, lists, dictionaries with keys of text, dataclasses, "
                f"msgspec structures or arrays; {otherwise}",
            )


def output_types(
    outputs: Mapping[str, Binding],
    inputs: Mapping[str, DataType],
    stages: Mapping[str, DataType],
    skippable: frozenset[str],
) -> dict[str, DataType]:
    """The types of a workflow's outputs: null, too, where they take what may be skipped."""
    types = {**stages, INPUTS: dt.record(inputs)}
    # as an item of a list, which holds null in place of what was skipped
    return {
        name: type_of_binding(Items((bound,)), types, skippable).args[0]
        for name, bound in outputs.items()
    }


def _sources(bound: Binding) -> Iterator[str]:
    """The expressions in a binding."""
    match bound:
        case Expression(source):
            yield source
        case Interpolation(parts):
            yield from (part.source for part in parts if isinstance(part, Expression))
        case Items(items):
            for item in items:
                yield from _sources(item)
        case Fields(pairs):
            for _, item in pairs:
                yield from _sources(item)


def _bound_types(stage: Stage, types: Mapping[str, DataType]) -> dict[str, DataType]:
    """The types of the names that the stage's constructs bind."""
    found: dict[str, DataType] = {}
    if stage.each is not None:
        found[INDEX] = dt.INTEGER
        if not stage.each.counts:
            over = type_of_binding(stage.each.over, types)
            found[stage.each.name] = over.args[0] if over.kind == "list" else dt.ANY
    if stage.repeat is not None:
        found |= {RESULT: stage.result, ITERATION: dt.INTEGER}
    return found


def _check_site(stage: Stage, site: Site, found: DataType) -> None:
    if site.is_argument:
        _check_argument(stage, site, found)
    elif site.name == "each":
        _check_each(stage, site, found)
    elif not dt.assignable(found, dt.BOOLEAN):
        raise GraphError(
            f"a condition is true or false, but {_origin(site)} {found}",
            hint="compare it with something, such as ${a > 0} or ${a != null}",
        )
    elif site.name == "repeat":
        _check_repeat(stage)


def _check_argument(stage: Stage, site: Site, found: DataType) -> None:
    parameter = stage.function.parameter(site.name)
    if parameter is None:
        return
    in_pieces = site.name in stage.function.iterates and found == dt.STRING
    if not dt.assignable(dt.list_of(found) if in_pieces else found, parameter.type):
        raise GraphError(
            f"{stage.function.name!r} takes {parameter.type}, but {_origin(site)} {found}"
        )
    if isinstance(site.binding, Literal) and (
        reason := parameter.bounds.broken_by(site.binding.value)
    ):
        raise GraphError(reason)


def _origin(site: Site) -> str:
    bound = site.binding
    if isinstance(bound, Expression) or (isinstance(bound, Reference) and bound.root in site.names):
        return f"{bound} is"
    if not isinstance(bound, Reference):
        return "it is given"
    if bound.root == INPUTS:
        return f"input {str(bound.path[0])!r} is" if len(bound.path) == 1 else f"{bound} is"
    return f"stage {bound.root!r} gives" if not bound.path else f"{bound} is"


def _check_each(stage: Stage, site: Site, found: DataType) -> None:
    each = stage.each
    if each is None:
        return
    wanted = dt.INTEGER if each.counts else dt.list_of(dt.ANY)
    if not dt.assignable(found, wanted):
        what = "the number of elements" if each.counts else "a list"
        raise GraphError(f"each takes {what}, but {_origin(site)} {found}")
    if each.on_error not in ON_ERROR:
        raise GraphError(f"on_error is {', '.join(ON_ERROR)}, not {each.on_error!r}")
    _check_count("at_once", each.at_once, MAX_AT_ONCE)
    if isinstance(each.over, Literal):
        try:
            each.elements({})
        except InputError as error:
            raise GraphError(error.message) from None


def _check_count(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise GraphError(f"{name} must be a whole number from 1 to {most}, got {value!r}")


def _check_repeat(stage: Stage) -> None:
    """The result of an iteration fits as arguments of the next."""
    repeat, function = stage.repeat, stage.function
    if repeat is None:
        return
    _check_count("max", repeat.max, MAX_ITERATIONS)
    known = {parameter.name: parameter.type for parameter in function.parameters}
    if repeat.carry:
        if repeat.carry not in known and not function.extra:
            raise GraphError(
                f"{function.name!r} takes no argument {repeat.carry[:80]!r}",
                hint=suggest(repeat.carry, known),
            )
        given: Mapping[str, DataType] = {repeat.carry: stage.result}
    elif stage.result.kind not in ("any", "dict", "struct"):
        raise GraphError(
            f"{function.name!r} gives {stage.result}, which has no parts to carry by name",
            hint="name the argument that it becomes: carry",
        )
    else:
        given = dict(stage.result.fields or ())
        names = known.keys() | stage.bindings.keys()
        if stage.result.fields is not None and not given.keys() & names:
            raise GraphError(
                f"{function.name!r} gives {', '.join(given) or 'nothing'}, none of which is an "
                "argument: nothing would change from one iteration to the next",
                hint=f"it takes {', '.join(known)}",
            )
    for name in given.keys() & known.keys():
        if not dt.assignable(given[name], known[name]):
            raise GraphError(
                f"{function.name!r} takes {known[name]} as {name!r}, but gives {given[name]}"
            )


# --- blame ------------------------------------------------------------------------------------


@contextmanager
def _blamed(stage: Stage, site: Site) -> Iterator[None]:
    kind, what = ("argument", "argument ") if site.is_argument else ("construct", "")
    shown = repr(site.name) if site.is_argument else site.name
    try:
        yield
    except GraphError as error:
        raise GraphError(
            f"stage {stage.id!r}, {what}{shown}: {error.message}",
            hint=error.hint,
            stage=stage.id,
            **{kind: site.name},
        ) from None


@contextmanager
def _blamed_output(name: str) -> Iterator[None]:
    try:
        yield
    except GraphError as error:
        raise GraphError(
            f"output {name!r}: {error.message}", hint=error.hint, output=name
        ) from None
