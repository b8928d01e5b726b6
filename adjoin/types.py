"""The values that every package shares: passages, tokens, usage, events, the stage's context.

All are frozen msgspec structures: cheap to make, comparable, and encodable without pickle.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

#: A dense vector or a matrix of them: float32, shape ``[d]`` or ``[n, d]``.
Vector: TypeAlias = npt.NDArray[np.float32]
#: What a passage may carry beside its text.
Scalar: TypeAlias = str | int | float | bool | None


class Passage(msgspec.Struct, frozen=True):
    """A piece of a document, as it is stored and as it is found.

    Attributes:
        id: unique within its collection.
        source: where it came from, as the user named it: a path, a URL, a title.
        score: similarity to the query, larger is nearer; 0 when the passage was not searched for.
        metadata: facts to show or filter by, such as ``page``.
    """

    id: str
    text: str
    source: str = ""
    score: float = 0.0
    metadata: Mapping[str, Scalar] = {}


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation. ``role`` is system, user, assistant or tool."""

    role: str
    content: str


class Alternative(msgspec.Struct, frozen=True):
    """A token that could have been drawn, and the natural logarithm of its probability."""

    text: str
    logprob: float


class Token(msgspec.Struct, frozen=True):
    """A piece of generated text.

    Attributes:
        text: what the token adds to the answer; may be empty while a character is incomplete.
        ids: the token ids behind ``text``, in order.
        choice: which of ``n`` samples it belongs to.
        logprob: sum of the natural log-probabilities of ``ids`` when they were asked for.
        reasoning: whether it belongs to the thoughts before the answer, not to the answer.
        top: the likeliest tokens at its place, most likely first, when they were asked for; not on
            its way otherwise, and not of several ``ids``.
    """

    text: str
    ids: tuple[int, ...] = ()
    choice: int = 0
    logprob: float | None = None
    reasoning: bool = False
    top: tuple[Alternative, ...] | UnsetType = UNSET


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How to draw tokens. Bounds are checked where a value enters.

    The model's own end is not drawn before ``min_tokens``, and ends nothing with ``ignore_eos``.
    ``top_logprobs`` is how many of the likeliest tokens are told at each place, with ``logprobs``;
    ``logit_bias`` has ids of tokens, each once, with what is added to their logits. Not every
    engine can do these two.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    ignore_eos: bool = False


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a piece of work consumed. Token counts are the engine's own; times are in seconds.

    ``prompt`` counts all prompt tokens, ``cached`` those of them whose attention state was reused.
    """

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    embedded: int = 0
    seconds: float = 0.0
    cold_start_seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt=self.prompt + other.prompt,
            cached=self.cached + other.cached,
            generated=self.generated + other.generated,
            embedded=self.embedded + other.embedded,
            seconds=self.seconds + other.seconds,
            cold_start_seconds=self.cold_start_seconds + other.cold_start_seconds,
        )


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One finished sample. ``finish_reason`` is stop, length or abort.

    ``reasoning`` holds the thoughts of a model that thinks before it answers; they are no part of
    ``text``, but ``tokens`` and ``logprob`` cover them.
    """

    text: str
    finish_reason: str = "stop"
    choice: int = 0
    tokens: int = 0
    logprob: float | None = None
    reasoning: str = ""


class ToolCall(msgspec.Struct, frozen=True):
    """A model's wish to have a function called; the arguments fit the function's schema."""

    name: str
    arguments: dict[str, Any]


class Reply(msgspec.Struct, frozen=True):
    """What a model with tools answers: text, calls, or both."""

    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


# --- Events: the only thing a run emits. ----------------------------------------------------------


class EventBody(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What happened; the envelope around it says to which run, stage and attempt."""


class RunStarted(EventBody, frozen=True, kw_only=True):
    workflow: str
    version: str


class RunResumed(EventBody, frozen=True, kw_only=True):
    """Another service goes on with a durable run. What ``recorded`` names is done; what else had
    begun begins again, and counts its attempts on from a higher number."""

    recorded: tuple[str, ...] = ()


class RunPlanned(EventBody, frozen=True, kw_only=True):
    """``placement`` maps each stage to the name of its worker, ``predicted`` to its seconds from
    start to end; ``seconds`` is what all of them should take from here on."""

    placement: dict[str, str]
    predicted: dict[str, float] = {}
    seconds: float = 0.0


class StageStarted(EventBody, frozen=True, kw_only=True):
    worker: str


class ModelLoading(EventBody, frozen=True, kw_only=True):
    """A replica is being started; ``phase`` is template, fork, load or warm."""

    model: str
    phase: str


class ModelReady(EventBody, frozen=True, kw_only=True):
    """``seconds`` is how long this stage waited for the replica."""

    model: str
    seconds: float


class Tokens(EventBody, frozen=True, kw_only=True):
    tokens: tuple[Token, ...]


class Progress(EventBody, frozen=True, kw_only=True):
    """``total`` is 0 when it is not known."""

    label: str
    done: int
    total: int = 0


class Used(EventBody, frozen=True, kw_only=True):
    """A model call of a stage ended and consumed this; a stage may have several."""

    model: str
    usage: Usage


class StageSkipped(EventBody, frozen=True, kw_only=True):
    """Its condition did not hold, or a stage that it needs was skipped; its value is null."""


class StageCompleted(EventBody, frozen=True, kw_only=True):
    worker: str
    usage: Usage


class StageFailed(EventBody, frozen=True, kw_only=True):
    """``error`` is :func:`adjoin.errors.to_wire` data; ``retry``: another attempt follows."""

    error: dict[str, Any]
    retry: bool = False


class StageWarning(EventBody, frozen=True, kw_only=True):
    """A stage does something that harms others; told once for each place in its code.

    ``where`` is ``file:line, in function``; ``hint`` says what to do.
    """

    what: str
    where: str
    why: str
    hint: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why} ({self.where}); {self.hint}"


class WorkerLost(EventBody, frozen=True, kw_only=True):
    worker: str
    stages: tuple[str, ...]


class RunCompleted(EventBody, frozen=True, kw_only=True):
    """``outputs`` are the results by name, ``usage`` the sum over the recorded stages."""

    outputs: dict[str, Any]
    usage: Usage
    seconds: float


class RunFailed(EventBody, frozen=True, kw_only=True):
    error: dict[str, Any]


class RunCancelled(EventBody, frozen=True, kw_only=True):
    reason: str = ""


#: Every body there is, as a union that a decoder can tell apart.
Body: TypeAlias = (
    RunStarted
    | RunResumed
    | RunPlanned
    | StageStarted
    | ModelLoading
    | ModelReady
    | Tokens
    | Progress
    | Used
    | StageCompleted
    | StageSkipped
    | StageFailed
    | StageWarning
    | WorkerLost
    | RunCompleted
    | RunFailed
    | RunCancelled
)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened in a run.

    Attributes:
        seq: position in the run's stream, from 0, without gaps.
        at: seconds since the run started, when it happened; news of several workers may overtake
            each other on their way here.
        stage: a stage, or a call below it: ``solve[3]`` is element 3 of a fan-out, ``tree#2`` the
            second iteration of a loop, ``tree#2/draft`` a stage of the workflow that it runs;
            empty for events of the run itself.
        attempt: counts from 1; 0 for events of the run itself.
    """

    run: str
    seq: int
    at: float
    stage: str = ""
    attempt: int = 0
    body: Body


# --- What a stage can reach. ----------------------------------------------------------------------


class ModelClient(Protocol):
    """A model as a stage sees it; calls go to some replica, starting one when there is none."""

    name: str

    async def embed(self, texts: Sequence[str]) -> Vector:
        """Unit vectors of shape ``[len(texts), d]``, float32.

        Raises:
            EngineError: the replica failed.
            ModelError: the model cannot be had or does not embed.
        """
        ...

    async def capabilities(self) -> frozenset[str]:
        """What the model can do: ``embed``, ``generate``, ``score``; ``schema`` when its answers
        can be held to a JSON Schema while they are generated.

        Raises:
            ModelError: the model cannot be had.
        """
        ...

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the query, larger is better; one scale for one model.

        Raises:
            EngineError: the replica failed.
            ModelError: the model cannot be had or does not score.
        """
        ...

    def generate(
        self,
        prompt: str | Sequence[Message],
        sampling: Sampling,
        *,
        raw: bool = False,
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Token | Generation]:
        """Tokens as they come, then one :class:`Generation` for each of ``sampling.n`` samples.

        A string prompt is one user turn, put through the model's chat template where it has one;
        ``raw`` sends it untouched. ``tools`` are shown to the model in its template's own way.
        Closing the iterator aborts the generation.

        Raises:
            InputError: the prompt is empty or longer than the model's context, or there is a
                ``schema`` and the engine has no grammars.
            EngineError: the replica failed.
            ModelError: the model cannot be had or does not generate.
        """
        ...


class CollectionClient(Protocol):
    """A collection as a stage sees it."""

    name: str

    async def search(self, vector: Vector, k: int) -> list[Passage]:
        """The ``k`` nearest passages (all, when there are fewer), best first.

        Raises:
            InputError: the vector's dimension differs from the collection's.
            StateError: the stored index is damaged.
        """
        ...


class StageContext(Protocol):
    """A stage's only way to the world; the runtime implements it."""

    run: str
    stage: str
    attempt: int
    #: Seconds left until the stage is cut off; None when it has no limit.
    deadline: float | None
    #: The same for every attempt of a stage of a run.
    idempotency_key: str

    def model(self, name: str) -> ModelClient: ...

    def collection(self, name: str) -> CollectionClient: ...

    def emit(self, body: Body) -> None: ...
