"""A Function: a typed unit of work with its needs and its policy."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, Unpack, overload

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import from_annotation, hints_of, iteration
from adjoin.dag.datatypes import DataType
from adjoin.dag.demands import names_of, resources_of
from adjoin.dag.names import check_name, parse_seconds, suggest
from adjoin.dag.parameter import Parameter
from adjoin.dag.source import caller, digest_of, location, module_of
from adjoin.errors import DefinitionError, GraphError
from adjoin.types import StageContext

if TYPE_CHECKING:
    from adjoin.dag.graph import Graph
    from adjoin.dag.symbol import Until

MAX_ATTEMPTS = 10


class Needs(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which parameters carry the name of a model or a collection that the function works with."""

    model: str | None = None
    collection: str | None = None


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a stage is carried out.

    Attributes:
        timeout: seconds for one attempt; None for the runtime's own limit.
        attempts: how often it is tried in all, 1 to 10.
        resources: what its worker must have: bytes of ``memory``, ``threads``, ``cuda`` devices, or
            Dask's abstract resources, by name.
        colocate: stages that must run on the same worker.
        avoid: names of workers and hosts that it must not run on, and of stages that must not share
            its worker.
    """

    timeout: float | None = None
    attempts: int = 1
    resources: Mapping[str, float] = {}
    colocate: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()

    def demanding(
        self, resources: object = None, colocate: object = None, avoid: object = None
    ) -> Policy:
        """This policy with what is given in place of its own demands.

        Raises:
            DefinitionError: one is not of its form.
        """
        return msgspec.structs.replace(
            self,
            resources=self.resources if resources is None else resources_of(resources),
            colocate=self.colocate if colocate is None else names_of(colocate, "colocate"),
            avoid=self.avoid if avoid is None else names_of(avoid, "avoid"),
        )

    def override(self, timeout: object = None, attempts: object = None) -> Policy:
        """This policy with what is given in place of its own.

        Raises:
            DefinitionError: a value is out of bounds.
        """
        if attempts is None:
            attempts = self.attempts
        elif isinstance(attempts, bool) or attempts not in range(1, MAX_ATTEMPTS + 1):
            raise DefinitionError(
                f"attempts must be a whole number from 1 to {MAX_ATTEMPTS}, got {attempts!r}"
            )
        return msgspec.structs.replace(
            self,
            timeout=self.timeout if timeout is None else parse_seconds(timeout),
            attempts=int(str(attempts)),
        )


class Trace(Protocol):
    """What records the stages while a workflow is traced."""

    def add(
        self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], use: Use
    ) -> Any: ...


#: The type of what a stage's calls give, from its bindings; DefinitionError when these are wrong.
ResultType: TypeAlias = Callable[[Mapping[str, Any]], DataType]

#: The trace that calls of functions go to; None outside of a workflow.
tracing: ContextVar[Trace | None] = ContextVar("adjoin_tracing", default=None)


@dataclass(frozen=True)
class Function:
    """A typed unit of work.

    Calling it inside a workflow adds a stage and returns a symbol for its result. Outside of one,
    a user's function simply runs; a built-in one needs a runtime and raises DefinitionError.

    Attributes:
        ref: ``embed`` for a built-in function, ``py:module:qualname`` for a user's.
        parameters: without the stage's context.
        extra: whether it takes arguments beyond its parameters (``**kwargs``).
        wants_context: whether its first parameter is a :class:`StageContext`.
        digest: sha256 of its source, hexadecimal.
        call: the Python callable; no part of the function's identity.
        graph: the workflow that this is, with ref ``workflow:name`` and the graph's version as its
            digest; None for a function of one callable.
        result: the type of the result where that depends on a stage's arguments.
        iterates: names of parameters that are read piece by piece: of a list its items, of a text
            pieces that make up the text.
        streams: what others may read before the function returns: ``items`` of its list, as it
            yields them; ``text`` as it emits tokens; nothing when empty.
    """

    name: str
    ref: str
    parameters: tuple[Parameter, ...] = ()
    returns: DataType = dt.ANY
    needs: Needs = field(default_factory=Needs)
    policy: Policy = field(default_factory=Policy)
    extra: bool = False
    wants_context: bool = False
    digest: str = ""
    description: str = ""
    call: Callable[..., Any] | None = field(default=None, compare=False, repr=False)
    graph: Graph | None = field(default=None, compare=False, repr=False)
    result: ResultType | None = field(default=None, compare=False, repr=False)
    iterates: frozenset[str] = frozenset()
    streams: Literal["", "items", "text"] = ""

    def __hash__(self) -> int:
        return hash((self.ref, self.digest))

    @functools.cached_property
    def is_coroutine(self) -> bool:
        """Whether a call of it is to be awaited."""
        return inspect.iscoroutinefunction(self.call)

    @property
    def is_builtin(self) -> bool:
        return ":" not in self.ref

    def parameter(self, name: str) -> Parameter | None:
        return next((found for found in self.parameters if found.name == name), None)

    def options(self, **options: Unpack[Options]) -> Use:
        """This function for one stage: under an id of your choice, with another policy, in a loop.

        ``generate.options(timeout="30s", attempts=3)(prompt, model="small")``; takes what
        :class:`Options` says.
        """
        return Use.of(self, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Use.of(self)(*args, **kwargs)


class Demands(TypedDict, total=False):
    """What stages of a function demand of their worker.

    Attributes:
        resources: such as ``{"memory": "2GB", "cuda": 1}``.
        colocate: a stage, or several, that must run on the same worker.
        avoid: workers, hosts and stages that it must not share a worker with.
    """

    resources: Mapping[str, float | str]
    colocate: str | Sequence[str]
    avoid: str | Sequence[str]


class Options(TypedDict, total=False):
    """How one stage uses a function.

    Attributes:
        id: of the stage, instead of the name of its variable.
        timeout: seconds for one attempt, or a text such as ``"30s"``.
        attempts: how often it is tried in all, 1 to 10.
        when: a condition; the stage is skipped, and its value null, where it is false.
        each: what to fan out over: a list, a number, or a symbol for one.
        on_error: what a failed element does: ``fail`` (the default), ``skip`` or ``collect``.
        at_once: how many elements run at one time, 1 to 1000, by default 32.
        repeat: what :func:`adjoin.until` gives.
        resources: what its worker must have, such as ``{"memory": "2GB", "cuda": 1}``.
        colocate: a stage, or several, that must run on the same worker.
        avoid: workers, hosts and stages that it must not share a worker with.
    """

    id: str
    timeout: float | str | None
    attempts: int | None
    when: Any
    each: Any
    on_error: Literal["fail", "skip", "collect"]
    at_once: int
    repeat: Until | None
    resources: Mapping[str, float | str]
    colocate: str | Sequence[str]
    avoid: str | Sequence[str]


@dataclass(frozen=True)
class Use:
    """A function as one stage uses it; see :class:`Options`."""

    function: Function
    policy: Policy
    options: Options

    @classmethod
    def of(cls, function: Function, **options: Unpack[Options]) -> Use:
        policy = function.policy.override(options.get("timeout"), options.get("attempts"))
        policy = policy.demanding(
            options.get("resources"), options.get("colocate"), options.get("avoid")
        )
        if unknown := options.keys() - Options.__annotations__.keys():
            name = min(unknown)
            raise GraphError(
                f"there is no option {name!r}",
                where=location(caller()),
                hint=suggest(name, Options.__annotations__),
            )
        return cls(function, policy, options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trace = tracing.get()
        if trace is not None:
            return trace.add(self.function, args, kwargs, self)
        if self.function.is_builtin or self.function.call is None:
            raise DefinitionError(
                f"{self.function.name!r} was called outside of a workflow",
                where=location(caller()),
                hint="call it in a function decorated with @adjoin.workflow",
            )
        return self.function.call(*args, **kwargs)


@overload
def function(call: Callable[..., Any], /) -> Function: ...


@overload
def function(
    *,
    name: str = ...,
    timeout: float | str | None = ...,
    attempts: int | None = ...,
    **demands: Unpack[Demands],
) -> Callable[[Callable[..., Any]], Function]: ...


def function(
    call: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    timeout: float | str | None = None,
    attempts: int | None = None,
    **demands: Unpack[Demands],
) -> Function | Callable[[Callable[..., Any]], Function]:
    """Make a Python function (``def`` or ``async def``) one that workflows can use.

    A function that yields gives a list, and a parameter annotated ``Iterator[T]``
    (``AsyncIterator[T]`` of an ``async def``) takes one. Between two such stages each item passes
    when it is yielded. A text fits ``Iterator[str]`` as the pieces that make it up: what
    ``generate`` gives passes token by token.

    A first parameter annotated :class:`adjoin.types.StageContext` receives the stage's context, and
    then parameters called ``model`` and ``collection`` name what it works with.

    Args:
        timeout: seconds for one attempt, or a text such as ``"30s"``.
        attempts: how often a stage is tried in all, 1 to 10.
        demands: what every stage of it demands of its worker; see :class:`Demands`.

    Raises:
        DefinitionError: the signature, a bound or a default cannot be used.
    """
    local = caller().f_locals

    def decorate(call: Callable[..., Any]) -> Function:
        policy = Policy().override(timeout, attempts).demanding(**demands)
        ref = f"py:{_require_function(call)}"
        return from_callable(call, name=name, ref=ref, policy=policy, local=local)

    return decorate if call is None else decorate(call)


def builtin(
    call: Callable[..., Any],
    *,
    needs: Needs | None = None,
    policy: Policy | None = None,
    result: ResultType | None = None,
    streams_text: bool = False,
) -> Function:
    """A built-in function: its ref is its name, which is what workflow texts use."""
    _require_function(call)
    name = call.__name__
    policy = policy or Policy()
    made = from_callable(call, name=name, ref=name, needs=needs, policy=policy, result=result)
    return replace(made, streams="text") if streams_text else made


def _require_function(call: Callable[..., Any]) -> str:
    """``module:qualname`` of a plain function."""
    if not inspect.isfunction(call):
        raise DefinitionError(
            f"{call!r} is not a Python function", hint="decorate a def or an async def"
        )
    return f"{module_of(call)}:{call.__qualname__}"


def from_callable(
    call: Callable[..., Any],
    *,
    name: str,
    ref: str,
    policy: Policy,
    needs: Needs | None = None,
    local: dict[str, Any] | None = None,
    result: ResultType | None = None,
) -> Function:
    """The function behind a callable's signature."""
    hints = hints_of(call, local)
    given = list(inspect.signature(call).parameters.values())
    wants_context = bool(given) and hints.get(given[0].name) is StageContext
    extra = bool(given) and given[-1].kind is inspect.Parameter.VAR_KEYWORD
    plain = given[int(wants_context) : len(given) - int(extra)]
    iterates = frozenset(each.name for each in plain if _is_iterated(call, each.name, hints))
    parameters = tuple(_parameter(call, each, hints) for each in plain)
    returned = hints.get("return", inspect.Parameter.empty)
    made = _made_in_pieces(call, returned)
    found = Function(
        name=check_name(name or call.__name__, "a function"),
        ref=ref,
        parameters=parameters,
        returns=from_annotation(returned if made is None else made),
        needs=needs or _needs(parameters if wants_context else ()),
        policy=policy,
        extra=extra,
        wants_context=wants_context,
        digest=digest_of(call),
        description=(inspect.getdoc(call) or "").partition("\n\n")[0],
        call=call,
        result=result,
        iterates=iterates,
        streams="" if made is None else "items",
    )
    # help() and inspect.signature() then show the function that the user wrote
    for attribute in ("__doc__", "__module__", "__name__", "__qualname__"):
        object.__setattr__(found, attribute, getattr(call, attribute))
    object.__setattr__(found, "__wrapped__", call)
    return found


def _parameter(
    call: Callable[..., Any], given: inspect.Parameter, hints: dict[str, Any]
) -> Parameter:
    if given.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
        raise DefinitionError(
            f"parameter {given.name!r} of {call.__qualname__!r} cannot be given by name",
            hint="stages pass arguments by name; take a list instead",
        )
    annotation = hints.get(given.name, inspect.Parameter.empty)
    if (iterated := iteration(annotation)) is not None:
        annotation = iterated.whole
    return Parameter.of(check_name(given.name, "a parameter"), annotation, given.default)


def _is_iterated(call: Callable[..., Any], name: str, hints: Mapping[str, Any]) -> bool:
    found = iteration(hints.get(name))
    if found is None:
        return False
    is_async = inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)
    if found.is_async != is_async:
        wanted = "AsyncIterator" if is_async else "Iterator"
        raise DefinitionError(
            f"parameter {name!r} of {call.__qualname__!r} is {hints[name]}, which "
            + ("would block the worker's event loop" if is_async else "only async def can read"),
            where=call.__module__,
            hint=f"annotate it {wanted}[…], or write {'def' if is_async else 'async def'}",
        )
    return True


def _made_in_pieces(call: Callable[..., Any], returned: Any) -> Any:
    """The annotation of the list that a function gives piece by piece; None when it does not."""
    yields = inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call)
    found = iteration(returned)
    if found is not None and (yields or not inspect.iscoroutinefunction(call)):
        if found.is_async == inspect.isasyncgenfunction(call):
            return found.whole
    elif found is None and not yields:
        return None
    elif returned in (inspect.Parameter.empty, Any):
        return list
    raise DefinitionError(
        f"{call.__qualname__!r} {'yields' if yields else 'does not yield'}, "
        f"but is annotated to return {returned}",
        where=call.__module__,
        hint="a def that yields returns Iterator[T], an async def that yields AsyncIterator[T]",
    )


def _needs(parameters: tuple[Parameter, ...]) -> Needs:
    names = {each.name for each in parameters if dt.accepts(each.type, "string")}
    return Needs(
        model="model" if "model" in names else None,
        collection="collection" if "collection" in names else None,
    )
