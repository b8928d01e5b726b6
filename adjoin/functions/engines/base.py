"""What every engine offers, and the values that go in and come out.

An engine is driven by one thread: requests are added, each :meth:`Engine.step` advances all that
run and says what is new. It knows nothing of processes, sockets or queues.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np

from adjoin.errors import AdjoinError, InputError, to_wire
from adjoin.functions.engines.families import Family
from adjoin.types import Generation, Message, Sampling, Scalar, Token, Usage, Vector


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an engine needs to load a model.

    Attributes:
        model: the name to use in messages.
        engine: the adapter's name.
        kind: ``embed``, ``generate`` or ``score``; empty for an engine without files.
        path: directory of the pinned files; empty for an engine without files.
        digest: sha256 over those files.
        args: the engine's own arguments, in its spelling.
        threads: CPU threads it may use.
        sequences: the most that enter it at once, whatever it could take; 0 for no such limit.
        prefix_caching: whether a prompt may reuse the attention state of earlier ones.
        kv_cache_bytes: for attention state, on CPUs.
    """

    model: str
    engine: str
    kind: str = ""
    path: str = ""
    digest: str = ""
    args: dict[str, Scalar] = {}
    threads: int = 1
    sequences: int = 0
    prefix_caching: bool = True
    kv_cache_bytes: int = 1 << 30


class Account(msgspec.Struct, frozen=True, array_like=True):
    """Whom the tokens of a request are counted for.

    Attributes:
        tenant, workflow, version: whose run it is, and of what; empty where nobody said.
        run: empty for what is no part of a run, such as a search.
        stage: of the workflow itself; ``attempt`` counts its dispatches, across workers.
        place: the stage, or a call below it such as ``solve[3]``; ``tries`` counts that call's.
        model: as the workflow names it.
        waited: seconds that this call waited for its replica to be loaded.
    """

    tenant: str = ""
    workflow: str = ""
    version: str = ""
    run: str = ""
    stage: str = ""
    attempt: int = 0
    place: str = ""
    tries: int = 0
    model: str = ""
    waited: float = 0.0


class Rate(msgspec.Struct, frozen=True, array_like=True):
    """What a token of each kind takes of a budget; ``prompt`` is of those that were not cached."""

    prompt: float = 1.0
    cached: float = 1.0
    generated: float = 1.0
    embedded: float = 1.0

    def of(self, usage: Usage) -> float:
        """What this usage comes to."""
        return (
            (usage.prompt - usage.cached) * self.prompt
            + usage.cached * self.cached
            + usage.generated * self.generated
            + usage.embedded * self.embedded
        )


class Allowance(msgspec.Struct, frozen=True, array_like=True):
    """What was left of a budget when a request was sent.

    Requests in one replica whose ``key`` is the same draw on it together; ``name`` is for messages.
    """

    key: str
    name: str
    left: float
    rate: Rate = Rate()


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """``raw`` sends a string untouched, else it is one user turn of the model's chat template.

    Only requests with the same ``salt`` share cached prefixes. ``schema`` is the text of the JSON
    Schema that the answer must fit, empty for none; ``tools`` are function tools in OpenAI's shape.
    """

    id: str
    prompt: str | list[Message]
    sampling: Sampling
    raw: bool = False
    salt: str = ""
    schema: str = ""
    tools: list[dict[str, Any]] = []
    account: Account = Account()
    allowances: tuple[Allowance, ...] = ()


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    texts: list[str]
    account: Account = Account()
    allowances: tuple[Allowance, ...] = ()


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How well does each text answer the query?"""

    id: str
    query: str
    texts: list[str]
    account: Account = Account()
    allowances: tuple[Allowance, ...] = ()


Request: TypeAlias = GenerateRequest | EmbedRequest | ScoreRequest


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """What a step added to a request; ``usage`` is all that this one has consumed so far.

    Of work without tokens to show, such as part of a batch of texts, it has none.
    """

    id: str
    tokens: tuple[Token, ...] = ()
    usage: Usage = Usage()


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A generation ended, or any request was aborted: then it may have no ``generations``."""

    id: str
    generations: tuple[Generation, ...] = ()
    usage: Usage = Usage()


class Embedded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Unit vectors: little-endian float32, ``rows`` by ``dimension``, row after row."""

    id: str
    rows: int
    dimension: int
    data: bytes
    usage: Usage = Usage()

    @classmethod
    def of(cls, id: str, vectors: Vector, usage: Usage) -> Embedded:
        rows, dimension = vectors.shape
        data = np.ascontiguousarray(vectors, dtype="<f4").tobytes()
        return cls(id=id, rows=rows, dimension=dimension, data=data, usage=usage)

    @property
    def vectors(self) -> Vector:
        return np.frombuffer(self.data, dtype="<f4").reshape(self.rows, self.dimension)


class Scored(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A score for each text, in order; larger is better."""

    id: str
    scores: tuple[float, ...]
    usage: Usage = Usage()


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """This request failed, no other did; ``error`` is :func:`adjoin.errors.to_wire` data."""

    id: str
    error: dict[str, Any]
    usage: Usage = Usage()

    @classmethod
    def of(cls, id: str, error: BaseException, usage: Usage | None = None) -> Failed:
        return cls(id=id, error=to_wire(error), usage=usage or Usage())


Output: TypeAlias = Delta | Finished | Embedded | Scored | Failed


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """``running`` counts requests; the tokens are totals since the load."""

    running: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    embedded_tokens: int = 0


class Engine(Protocol):
    """A loaded model. All methods but :meth:`interrupt` and :meth:`figures` belong to
    the thread that loaded it.

    Attributes:
        capabilities: of ``embed``, ``generate`` and ``score``, and ``schema`` when it can hold
            answers to a JSON Schema.
        capacity: how many sequences (samples or texts) it takes at once with profit.
        context: largest number of tokens of a prompt and its answer, or of a text.
        dimension: of its vectors; 0 when it does not embed.
    """

    capabilities: frozenset[str]
    capacity: int
    context: int
    dimension: int

    def add(self, request: Request) -> None:
        """Take a request in.

        Raises:
            InputError: it is empty, too long or out of bounds; nothing was taken in.
            ModelError: the model cannot do this.
        """
        ...

    def abort(self, ids: Sequence[str]) -> list[Output]:
        """Forget requests and free what they hold; a :class:`Finished` for each that ran.

        The prompt of one that has no token yet is not counted: it may not have been computed.
        """
        ...

    def step(self) -> list[Output]:
        """Advance all requests: only what is new, in order for each request.

        A failure of one request is a :class:`Failed`; an exception means that the engine is lost.
        """
        ...

    def interrupt(self) -> None:
        """Let a step that merely waits return early; called from any thread."""
        ...

    def close(self) -> None: ...

    def stats(self) -> EngineStats: ...

    def figures(self) -> tuple[Family, ...]:
        """What it tells Prometheus under its own names, if anything; called from any thread."""
        ...


def did_you_mean(word: str, known: Collection[str]) -> str:
    """``did you mean 'x'?``, or the names there are."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(sorted(known))}" if known else "it takes none"


def check_args(engine: str, args: Mapping[str, Scalar], allowed: Collection[str]) -> None:
    """Refuse arguments that an engine does not take from a workflow."""
    for name in args:
        if name not in allowed:
            raise InputError(
                f"engine {engine!r} takes no argument {name!r} from a workflow",
                where="model args",
                hint=did_you_mean(name, allowed),
            )


def positive_arg(args: Mapping[str, Scalar], name: str, default: int) -> int:
    """A whole number above zero."""
    value = args.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            f"{name} must be a whole number above 0, not {value!r}", where="model args"
        )
    return value


#: As OpenAI has them, and vLLM.
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 300
MAX_BIAS = 100.0
#: Bounds of sampling: name, lowest, highest. Shared by all engines.
_BOUNDS = (
    ("max_tokens", 1, 1_000_000),
    ("temperature", 0.0, 10.0),
    ("top_p", 1e-6, 1.0),
    ("top_k", 0, 1_000_000),
    ("n", 1, 64),
    ("min_tokens", 0, 1_000_000),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
    ("repetition_penalty", 0.01, 10.0),
    ("top_logprobs", 0, MAX_TOP_LOGPROBS),
)
_MAX_STOPS = 16
_MAX_STOP_CHARACTERS = 256


def check_sampling(sampling: Sampling) -> None:
    """Refuse what no engine should see.

    Raises:
        InputError: a value is out of its bounds.
    """
    for name, low, high in _BOUNDS:
        value = getattr(sampling, name)
        if not math.isfinite(value) or not low <= value <= high:
            raise InputError(f"{name} is {value}, not between {low:g} and {high:g}")
    if sampling.n > 1 and sampling.temperature == 0:
        raise InputError(
            f"n is {sampling.n} at temperature 0, where all samples would be the same",
            hint="set a temperature above 0",
        )
    if sampling.min_tokens > sampling.max_tokens:
        raise InputError(
            f"min_tokens is {sampling.min_tokens}, above max_tokens, {sampling.max_tokens}"
        )
    if sampling.top_logprobs and not sampling.logprobs:
        raise InputError("top_logprobs without logprobs", hint="ask for logprobs too")
    check_bias(sampling.logit_bias)
    if len(sampling.stop) > _MAX_STOPS:
        raise InputError(f"{len(sampling.stop)} stop strings, more than {_MAX_STOPS}")
    for stop in sampling.stop:
        if not 1 <= len(stop) <= _MAX_STOP_CHARACTERS:
            raise InputError(
                f"a stop string of {len(stop)} characters, not 1 to {_MAX_STOP_CHARACTERS}"
            )


def check_bias(bias: Sequence[tuple[int, float]]) -> None:
    """Refuse a ``logit_bias`` that is out of bounds.

    Raises:
        InputError: there are too many, or an id or a value is out of its bounds.
    """
    if len(bias) > MAX_BIASES:
        raise InputError(
            f"logit_bias has {len(bias)} tokens",
            where="logit_bias",
            hint=f"give at most {MAX_BIASES}",
        )
    for id, value in bias:
        if id < 0 or not -MAX_BIAS <= value <= MAX_BIAS:  # NaN is not in any range
            raise InputError(
                f"logit_bias of token {id} is {value}",
                where="logit_bias",
                hint=f"ids are from 0, values from {-MAX_BIAS:g} to {MAX_BIAS:g}",
            )


def refuse_logits(engine: str, sampling: Sampling) -> None:
    """For an engine that neither tells other tokens than the drawn nor changes their logits.

    Raises:
        InputError: that was asked for.
    """
    for name in ("top_logprobs", "logit_bias"):
        if getattr(sampling, name):
            raise InputError(
                f"engine {engine!r} has no {name}", hint="use engine vllm, or leave it out"
            )


def check_length(tokens: int, context: int, model: str) -> None:
    """A prompt must leave room for at least one token."""
    if tokens >= context:
        raise InputError(
            f"the prompt has {tokens} tokens, but the context of {model!r} holds {context}"
            " with the answer",
            hint="shorten the prompt, or ask for fewer passages",
            tokens=tokens,
            context=context,
        )


def empty_prompt() -> AdjoinError:
    return InputError("the prompt is empty", hint="give the model something to answer")


def no_grammar(engine: str) -> AdjoinError:
    return InputError(
        f"engine {engine!r} cannot hold an answer to a schema while it generates",
        hint="use engine vllm, or leave the schema out and parse the answer",
    )
