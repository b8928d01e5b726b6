"""How to draw tokens, as vLLM is told, and what it says of the probabilities of those it drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from adjoin.types import Alternative, Sampling

#: The logarithm of a probability of 0, as vLLM's server writes it: JSON has no infinity.
_IMPOSSIBLE = -9999.0


def sampling_params(sampling: Sampling, schema: str = "") -> Any:
    from vllm.sampling_params import (
        RequestOutputKind,
        SamplingParams,
        StructuredOutputsParams,
    )

    return SamplingParams(
        n=sampling.n,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=list(sampling.stop),
        # 0: of the token that was drawn, and of no others.
        logprobs=sampling.top_logprobs if sampling.logprobs else None,
        logit_bias=dict(sampling.logit_bias) or None,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        min_tokens=sampling.min_tokens,
        ignore_eos=sampling.ignore_eos,
        structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
        output_kind=RequestOutputKind.DELTA,
    )


def likeliest(
    logprobs: Sequence[Mapping[int, Any]] | None, most: int
) -> tuple[Alternative, ...] | UnsetType:
    """Of one token. vLLM tells of the drawn one too, whatever its rank."""
    if not logprobs or len(logprobs) != 1:
        return UNSET
    ranked = sorted(
        (each for each in logprobs[0].values() if each.rank is None or each.rank <= most),
        key=lambda each: -each.logprob,
    )
    return tuple(
        Alternative(each.decoded_token or "", max(float(each.logprob), _IMPOSSIBLE))
        for each in ranked[:most]
    )


def sum_logprobs(ids: Sequence[int], logprobs: Sequence[Mapping[int, Any]] | None) -> float | None:
    if logprobs is None:
        return None
    return float(sum(step[id].logprob for id, step in zip(ids, logprobs, strict=True)))
