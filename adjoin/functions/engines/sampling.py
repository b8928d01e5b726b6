"""Drawing a token from logits, with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adjoin.types import Sampling


def draw(
    logits: Any, sampling: Sampling, prompt: Sequence[int], said: Sequence[int], generator: Any
) -> tuple[int, float]:
    """The next token and its natural log-probability under the model.

    ``logits`` is a float32 tensor of shape ``[vocabulary]``. Repetition is penalised over prompt
    and answer, presence and frequency over the answer only, as OpenAI and vLLM define them.
    """
    import torch

    scores = penalised(logits, sampling, prompt, said)
    if sampling.temperature == 0:
        id = int(scores.argmax())
    else:
        probabilities = torch.softmax(restricted(scores / sampling.temperature, sampling), dim=-1)
        id = int(torch.multinomial(probabilities, 1, generator=generator))
    return id, float(torch.log_softmax(logits, dim=-1)[id])


def penalised(logits: Any, sampling: Sampling, prompt: Sequence[int], said: Sequence[int]) -> Any:
    import torch

    scores = logits.clone()
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *said}), device=logits.device)
        factor = sampling.repetition_penalty
        scores[seen] = torch.where(scores[seen] > 0, scores[seen] / factor, scores[seen] * factor)
    if said and (sampling.presence_penalty or sampling.frequency_penalty):
        counts = torch.bincount(
            torch.tensor(said, device=logits.device), minlength=scores.shape[-1]
        )
        scores -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
    return scores


def restricted(scores: Any, sampling: Sampling) -> Any:
    """Minus infinity for all but the ``top_k`` best and the nucleus of ``top_p``."""
    import torch

    if 0 < sampling.top_k < scores.shape[-1]:
        least = torch.topk(scores, sampling.top_k).values[-1]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = torch.sort(scores, descending=True)
        probabilities = torch.softmax(ordered, dim=-1)
        # A token is kept when those before it hold less than top_p: so the best always is.
        cut = probabilities.cumsum(dim=-1) - probabilities >= sampling.top_p
        scores = scores.index_fill(0, order[cut], -torch.inf)
    return scores
