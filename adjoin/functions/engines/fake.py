"""A deterministic engine for tests and fault injection; its output is never a result.

It answers with the prompt's own words, or with ``answer``, one word a token. Its vectors are sums
of hashed words: texts that share words are near. ``args`` script its timing and its faults.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from adjoin.errors import InputError, ModelError
from adjoin.functions.engines.base import (
    Delta,
    Embedded,
    EmbedRequest,
    EngineStats,
    Finished,
    GenerateRequest,
    LoadSpec,
    Output,
    Request,
    Scored,
    ScoreRequest,
    check_args,
    check_length,
    check_sampling,
    empty_prompt,
    no_grammar,
    refuse_logits,
)
from adjoin.functions.engines.families import Family, counter
from adjoin.functions.engines.reasoning import ReasoningSplit
from adjoin.functions.engines.text import StopText
from adjoin.types import Generation, Scalar, Token, Usage, Vector


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the engine behaves.

    Attributes:
        answer: what it says instead of the prompt's words.
        words: how many words it says, by repeating itself; 0 for the answer once.
        first_token_s, interval_s: delays before the first and each further token, in seconds.
        compute: the delays keep a core busy, instead of waiting.
        embed_s: delay of an embedding, in seconds.
        load_s: how long loading takes, in seconds.
        fail_at_load: the message of a load that fails.
        crash_at_load, out_of_memory_at_load: how loading ends.
        crash_after, hang_after, out_of_memory_after: after that many tokens; 0 for never.
        mix_up: requests that are in it together get the words of the one that came first: what a
            fault in batching would do.
        dimension: of its vectors.
        max_model_len: its context, in words.
        max_num_seqs: how many sequences it takes at once.
    """

    answer: str = ""
    words: int = 0
    first_token_s: float = 0.0
    interval_s: float = 0.0
    compute: bool = False
    embed_s: float = 0.0
    load_s: float = 0.0
    fail_at_load: str = ""
    crash_at_load: bool = False
    out_of_memory_at_load: bool = False
    crash_after: int = 0
    hang_after: int = 0
    out_of_memory_after: int = 0
    mix_up: bool = False
    dimension: int = 32
    max_model_len: int = 4096
    max_num_seqs: int = 16


def read_script(args: Mapping[str, Scalar]) -> Script:
    """Raises :class:`InputError` for an unknown or mistyped argument."""
    check_args("fake", args, {field.name for field in msgspec.structs.fields(Script)})
    try:
        return msgspec.convert(dict(args), Script)
    except msgspec.ValidationError as error:
        raise InputError(str(error), where="model args") from None


def warm() -> None:
    """Nothing to import."""


def load(spec: LoadSpec) -> FakeEngine:
    script = read_script(spec.args)
    threading.Event().wait(script.load_s)
    if script.crash_at_load:
        os.kill(os.getpid(), signal.SIGKILL)
    if script.out_of_memory_at_load:
        raise MemoryError("scripted")
    if script.fail_at_load:
        raise ModelError(script.fail_at_load)
    return FakeEngine(spec.model, script)


class _Sample:
    """One sample being said."""

    def __init__(self, choice: int, pieces: list[str], stop: tuple[str, ...], due: float) -> None:
        self.choice = choice
        self.pieces = pieces
        self.text = StopText(stop)
        self.split = ReasoningSplit()
        self.count = 0
        self.due = due
        self.reason = ""

    @property
    def ended(self) -> bool:
        return self.count >= len(self.pieces)

    def generation(self) -> Generation:
        reason = (self.reason or "stop") if self.ended else "abort"
        return Generation(
            text=self.split.answer,
            reasoning=self.split.reasoning,
            finish_reason=reason,
            choice=self.choice,
            tokens=self.count,
        )


class _Running:
    """A request being answered."""

    def __init__(self, samples: list[_Sample], words: list[str]) -> None:
        self.samples = samples
        self.words = words

    @property
    def usage(self) -> Usage:
        generated = sum(sample.count for sample in self.samples)
        return Usage(prompt=len(self.words) if generated else 0, generated=generated)

    def finished(self, id: str) -> Finished:
        generations = tuple(sample.generation() for sample in self.samples)
        return Finished(id=id, generations=generations, usage=self.usage)


class FakeEngine:
    capabilities = frozenset({"embed", "generate", "score"})

    def __init__(self, model: str, script: Script) -> None:
        self.capacity = script.max_num_seqs
        self.context = script.max_model_len
        self.dimension = script.dimension
        self._model = model
        self._script = script
        self._generating: dict[str, _Running] = {}
        self._embedding: dict[str, tuple[EmbedRequest | ScoreRequest, float]] = {}
        self._wake = threading.Event()
        self._totals = Usage()

    def add(self, request: Request) -> None:
        if not isinstance(request, GenerateRequest):
            self._embedding[request.id] = (request, time.monotonic() + self._script.embed_s)
            return
        if request.schema:
            raise no_grammar("fake")
        check_sampling(request.sampling)
        refuse_logits("fake", request.sampling)
        words = _words(request)
        if not words:
            raise empty_prompt()
        check_length(len(words), self.context, self._model)
        said = words
        if self._script.mix_up and self._generating:
            said = next(iter(self._generating.values())).words
        self._generating[request.id] = _Running(self._samples(request, said), words)

    def abort(self, ids: Sequence[str]) -> list[Output]:
        outputs: list[Output] = []
        for id in ids:
            if running := self._generating.pop(id, None):
                self._totals += running.usage
                outputs.append(running.finished(id))
            elif self._embedding.pop(id, None):
                outputs.append(Finished(id=id))
        return outputs

    def step(self) -> list[Output]:
        self._wait()
        now = time.monotonic()
        outputs: list[Output] = []
        for id, (request, due) in list(self._embedding.items()):
            if due <= now:
                del self._embedding[id]
                outputs.append(self._answer(request))
        for id, running in list(self._generating.items()):
            outputs.extend(self._advance(id, running, now))
        return outputs

    def interrupt(self) -> None:
        self._wake.set()

    def close(self) -> None:
        self._generating.clear()
        self._embedding.clear()

    def figures(self) -> tuple[Family, ...]:
        told = self._totals
        return (
            counter("fake:prompt_tokens", "Words of prompts that it answered.", told.prompt),
            counter("fake:generation_tokens", "Words that it said.", told.generated),
        )

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._generating) + len(self._embedding),
            prompt_tokens=self._totals.prompt,
            generated_tokens=self._totals.generated,
            embedded_tokens=self._totals.embedded,
        )

    def _samples(self, request: GenerateRequest, words: list[str]) -> list[_Sample]:
        sampling = request.sampling
        pieces = re.findall(r"\S+\s*", self._script.answer) or [f"{word} " for word in words]
        if self._script.words:
            pieces = [pieces[i % len(pieces)] for i in range(self._script.words)]
        due = time.monotonic() + self._script.first_token_s
        samples = []
        for choice in range(sampling.n):
            said = list(pieces)
            if sampling.temperature > 0:
                seed = None if sampling.seed is None else sampling.seed + choice
                random.Random(seed).shuffle(said)
            samples.append(_Sample(choice, said, sampling.stop, due))
            if sampling.max_tokens < len(said):
                del said[sampling.max_tokens :]
                samples[-1].reason = "length"
        return samples

    def _wait(self) -> None:
        dues = [due for _, due in self._embedding.values()]
        dues += [
            sample.due
            for running in self._generating.values()
            for sample in running.samples
            if not sample.ended
        ]
        delay = min(dues, default=0.0) - time.monotonic()
        if self._script.compute:
            until = time.monotonic() + delay
            while time.monotonic() < until:
                pass
        elif delay > 0 and self._wake.wait(delay):
            self._wake.clear()

    def _advance(self, id: str, running: _Running, now: float) -> list[Output]:
        tokens = [
            token
            for sample in running.samples
            if sample.due <= now
            for token in self._say(sample, now)
        ]
        outputs: list[Output] = []
        if tokens:
            outputs.append(Delta(id=id, tokens=tuple(tokens), usage=running.usage))
        if all(sample.ended for sample in running.samples):
            del self._generating[id]
            self._totals += running.usage
            outputs.append(running.finished(id))
        return outputs

    def _say(self, sample: _Sample, now: float) -> tuple[Token, ...]:
        if sample.ended:
            return ()
        piece = sample.pieces[sample.count]
        sample.count += 1
        sample.due = now + self._script.interval_s
        self._misbehave(sample.count)
        text = sample.text.extend(piece)
        if sample.text.stopped:
            del sample.pieces[sample.count :]
            sample.reason = "stop"
        elif sample.count == len(sample.pieces):
            text += sample.text.flush()
        id = zlib.crc32(piece.encode())
        return sample.split.tokens(text, (id,), sample.choice, None, last=sample.ended)

    def _misbehave(self, count: int) -> None:
        if count == self._script.crash_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == self._script.out_of_memory_after:
            raise MemoryError("scripted")
        if count == self._script.hang_after:
            threading.Event().wait()

    def _answer(self, request: EmbedRequest | ScoreRequest) -> Embedded | Scored:
        dimension = self.dimension
        vectors = np.stack([text_vector(text, dimension) for text in request.texts])
        usage = Usage(embedded=sum(len(text.split()) for text in request.texts))
        self._totals += usage
        if isinstance(request, EmbedRequest):
            return Embedded.of(request.id, vectors, usage)
        scores = vectors @ text_vector(request.query, dimension)
        return Scored(id=request.id, scores=tuple(map(float, scores)), usage=usage)


def text_vector(text: str, dimension: int) -> Vector:
    """The unit vector of a text: the sum of a random direction for each of its words."""
    total = np.zeros(dimension, dtype=np.float64)
    for word in re.findall(r"\w+", text.lower()) or [text]:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        total += np.random.default_rng(seed).standard_normal(dimension)
    return (total / np.linalg.norm(total)).astype(np.float32)


def _words(request: GenerateRequest) -> list[str]:
    prompt: Any = request.prompt
    if not isinstance(prompt, str):
        prompt = prompt[-1].content if prompt else ""
    return str(prompt).split()
