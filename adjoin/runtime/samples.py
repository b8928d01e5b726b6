"""Several samples of one prompt, as requests of their own.

So they enter an engine, end and are aborted one by one, whatever the engine makes of ``n``; the
queue sees that their prompt is the same. To the caller they are one request.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from adjoin.functions.engines.base import (
    Delta,
    Failed,
    Finished,
    GenerateRequest,
    Output,
    Request,
    check_sampling,
)
from adjoin.types import Generation, Usage


class _Group(msgspec.Struct):
    members: list[str]
    ends: list[Finished | Failed] = []


class Samples:
    """Splits requests on their way in, and puts their outputs together on the way out."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._member_of: dict[str, tuple[str, int]] = {}

    def split(self, request: Request) -> list[Request]:
        """The request itself, or one for each of its samples.

        Raises:
            InputError: its sampling is out of bounds.
        """
        if not isinstance(request, GenerateRequest) or request.sampling.n == 1:
            return [request]
        check_sampling(request.sampling)
        singles = [_single(request, choice) for choice in range(request.sampling.n)]
        self._groups[request.id] = _Group([single.id for single in singles])
        for choice, single in enumerate(singles):
            self._member_of[single.id] = (request.id, choice)
        return list(singles)

    def members(self, id: str) -> list[str]:
        """The ids under which a request runs."""
        group = self._groups.get(id)
        return group.members if group else [id]

    def join(self, outputs: Sequence[Output]) -> list[Output]:
        """The outputs as the callers expect them."""
        joined: list[Output] = []
        for output in outputs:
            if isinstance(output, Delta) and not output.tokens:
                continue  # only news of usage
            if (found := self._member_of.get(output.id)) is None:
                joined.append(output)
            elif isinstance(output, Delta):
                joined.append(_delta(output, *found))
            elif isinstance(output, Finished | Failed):
                joined += self._end(output, *found)
        return joined

    def _end(self, output: Finished | Failed, id: str, choice: int) -> list[Output]:
        group = self._groups[id]
        del self._member_of[output.id]
        if isinstance(output, Finished):
            own = tuple(_chosen(generation, choice) for generation in output.generations)
            output = msgspec.structs.replace(output, generations=own)
        group.ends.append(output)
        if len(group.ends) < len(group.members):
            return []
        del self._groups[id]
        return [_joined(id, group.ends)]


def _single(request: GenerateRequest, choice: int) -> GenerateRequest:
    seed = request.sampling.seed
    sampling = msgspec.structs.replace(
        request.sampling, n=1, seed=None if seed is None else seed + choice
    )
    return msgspec.structs.replace(request, id=f"{request.id}.{choice}", sampling=sampling)


def _delta(delta: Delta, id: str, choice: int) -> Delta:
    tokens = tuple(msgspec.structs.replace(token, choice=choice) for token in delta.tokens)
    return Delta(id=id, tokens=tokens)  # usage is told at the end


def _chosen(generation: Generation, choice: int) -> Generation:
    return msgspec.structs.replace(generation, choice=choice)


def _joined(id: str, ends: Sequence[Finished | Failed]) -> Finished | Failed:
    """All samples, or the first failure among them; the usage is the sum in any case."""
    usage = sum((end.usage for end in ends), Usage())
    for end in ends:
        if isinstance(end, Failed):
            return Failed(id=id, error=end.error, usage=usage)
    generations = [each for end in ends if isinstance(end, Finished) for each in end.generations]
    generations.sort(key=lambda generation: generation.choice)
    return Finished(id=id, generations=tuple(generations), usage=usage)
