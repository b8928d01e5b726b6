"""Portable generation with transformers: a token of each sample a step, without batching.

For machines that vLLM does not run on. Greedy and sampled decoding agree with the library's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adjoin.errors import ModelError
from adjoin.functions.engines.base import (
    Delta,
    EngineStats,
    Finished,
    GenerateRequest,
    LoadSpec,
    Output,
    Request,
    check_args,
    check_length,
    check_sampling,
    no_grammar,
    positive_arg,
    refuse_logits,
)
from adjoin.functions.engines.families import Family
from adjoin.functions.engines.prompts import Prompt, encode
from adjoin.functions.engines.reasoning import ReasoningSplit
from adjoin.functions.engines.sampling import draw
from adjoin.functions.engines.text import StopText
from adjoin.types import Generation, Sampling, Token, Usage

_ARGS = frozenset({"dtype", "max_model_len", "max_num_seqs"})
_DTYPES = ("auto", "float32", "float16", "bfloat16")


def load_generator(spec: LoadSpec, device: str) -> Generator:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_args("transformers", spec.args, _ARGS)
    dtype = spec.args.get("dtype", "float32" if device == "cpu" else "auto")
    if dtype not in _DTYPES:
        raise ModelError(f"dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(spec.path, **local)
    model = AutoModelForCausalLM.from_pretrained(
        spec.path, dtype=dtype, use_safetensors=True, **local
    )
    model.to(device).eval()
    longest = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
    context = min(positive_arg(spec.args, "max_model_len", longest), longest)
    capacity = positive_arg(spec.args, "max_num_seqs", 4)
    return Generator(spec.model, model, tokenizer, context=context, capacity=capacity)


class _Sample:
    """One sample: its attention state, what it said, and how it ended."""

    def __init__(self, choice: int, sampling: Sampling, prompt: Prompt, device: Any) -> None:
        import torch

        self.choice = choice
        self.sampling = sampling
        self.prompt = prompt.ids
        self.ids: list[int] = []
        self.text = StopText(sampling.stop)
        self.split = ReasoningSplit(opened=prompt.opened)
        self.reason = ""
        self.logprob = 0.0 if sampling.logprobs else None
        self.cache: Any = None
        self.random = torch.Generator(device=device)
        if sampling.seed is None:
            self.random.seed()
        else:
            self.random.manual_seed(sampling.seed + choice)
        self._shown = ""

    def decoded(self, tokenizer: Any) -> str:
        """The text that the newest token adds; empty while a character is incomplete."""
        text = str(tokenizer.decode(self.ids, skip_special_tokens=True))
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        piece = text[len(self._shown) :]
        self._shown = text
        return piece

    def generation(self, reason: str) -> Generation:
        return Generation(
            text=self.split.answer,
            reasoning=self.split.reasoning,
            finish_reason=reason,
            choice=self.choice,
            tokens=len(self.ids),
            logprob=self.logprob,
        )


class _Running:
    def __init__(self, prompt: int, samples: list[_Sample]) -> None:
        self.prompt = prompt
        self.samples = samples

    @property
    def usage(self) -> Usage:
        generated = sum(len(sample.ids) for sample in self.samples)
        return Usage(prompt=self.prompt if generated else 0, generated=generated)

    def finished(self, id: str) -> Finished:
        ended = tuple(sample.generation(sample.reason or "abort") for sample in self.samples)
        return Finished(id=id, generations=ended, usage=self.usage)


class Generator:
    capabilities = frozenset({"generate"})
    dimension = 0

    def __init__(
        self, name: str, model: Any, tokenizer: Any, *, context: int, capacity: int
    ) -> None:
        self.capacity = capacity
        self.context = context
        self._name = name
        self._model = model
        self._tokenizer = tokenizer
        self._ends = _end_ids(model, tokenizer)
        self._running: dict[str, _Running] = {}
        self._totals = Usage()

    def add(self, request: Request) -> None:
        if not isinstance(request, GenerateRequest):
            raise ModelError("it only generates", where=f"model {self._name!r}")
        if request.schema:
            raise no_grammar("transformers")
        check_sampling(request.sampling)
        refuse_logits("transformers", request.sampling)
        prompt = encode(self._tokenizer, request)
        check_length(len(prompt.ids), self.context, self._name)
        samples = [
            _Sample(choice, request.sampling, prompt, self._model.device)
            for choice in range(request.sampling.n)
        ]
        self._running[request.id] = _Running(len(prompt.ids), samples)

    def abort(self, ids: Sequence[str]) -> list[Output]:
        return [self._finish(id) for id in ids if id in self._running]

    def step(self) -> list[Output]:
        outputs: list[Output] = []
        for id, running in list(self._running.items()):
            saying = [sample for sample in running.samples if not sample.reason]
            tokens = tuple(token for sample in saying for token in self._advance(sample))
            outputs.append(Delta(id=id, tokens=tokens, usage=running.usage))
            if all(sample.reason for sample in running.samples):
                outputs.append(self._finish(id))
        return outputs

    def interrupt(self) -> None:
        """A step never waits."""

    def close(self) -> None:
        self._running.clear()

    def figures(self) -> tuple[Family, ...]:
        return ()

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._running),
            prompt_tokens=self._totals.prompt,
            generated_tokens=self._totals.generated,
        )

    def _finish(self, id: str) -> Output:
        running = self._running.pop(id)
        self._totals += running.usage
        return running.finished(id)

    def _advance(self, sample: _Sample) -> tuple[Token, ...]:
        context = (sample.prompt, sample.ids)
        logits = self._logits(sample)
        if sample.sampling.ignore_eos or len(sample.ids) < sample.sampling.min_tokens:
            logits = _without(logits, self._ends)
        id, logprob = draw(logits, sample.sampling, *context, sample.random)
        sample.ids.append(id)
        if sample.logprob is not None:
            sample.logprob += logprob
        piece = sample.text.extend("" if id in self._ends else sample.decoded(self._tokenizer))
        self._judge(sample, id)
        if sample.reason:
            piece += sample.text.flush()
            sample.cache = None
        shown = logprob if sample.sampling.logprobs else None
        last = bool(sample.reason)
        return sample.split.tokens(piece, (id,), sample.choice, shown, last=last)

    def _judge(self, sample: _Sample, id: int) -> None:
        if id in self._ends or sample.text.stopped:
            sample.reason = "stop"
        elif (
            len(sample.ids) >= sample.sampling.max_tokens
            or len(sample.prompt) + len(sample.ids) >= self.context
        ):
            sample.reason = "length"

    def _logits(self, sample: _Sample) -> Any:
        """Logits of the next token, of shape ``[vocabulary]``."""
        import torch

        new = sample.ids[-1:] or sample.prompt
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([new], device=self._model.device),
                past_key_values=sample.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        sample.cache = output.past_key_values
        return output.logits[0, -1].float()


def _without(logits: Any, ids: frozenset[int]) -> Any:
    """The logits with these tokens ruled out."""
    import torch

    return logits.index_fill(0, torch.tensor(sorted(ids), device=logits.device), -torch.inf)


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer, from the generation config and the tokenizer."""
    found: set[int] = set()
    for ends in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        if isinstance(ends, int):
            found.add(ends)
        elif ends is not None:
            found.update(int(end) for end in ends)
    return frozenset(found)
