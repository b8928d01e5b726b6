"""What stages, edges, state and models cost, in seconds; learned from what finished.

A frozen :class:`Costs` goes into a plan, and :func:`learn` gives the next one. Time of a stage is
linear in what it works on: prompt tokens that are not cached (prefill), tokens that it generates
(decode), tokens that it embeds or scores, and bytes that it takes. How much that will be follows
from the sizes of what it takes: sizes of results, and numbers of tokens, are linear in them, so
that a prediction reaches from a run's inputs to its last stage.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from adjoin.dag import Graph
from adjoin.runtime.policies.estimates import Limit, Linear, Mean
from adjoin.runtime.policies.facts import Facts, facts_of
from adjoin.runtime.policies.topology import Topology, Worker
from adjoin.types import Usage

#: Bytes of an input that no run has given yet.
INPUT_BYTES = 400
#: Seconds that a model takes to load which nobody has seen loading.
COLD_START_S = 10.0
#: To open a collection: seconds, and bytes a second from the disk to the index. From the page cache
#: it was half a millisecond and 5e8 bytes a second; a disk is slower.
OPEN_S, OPEN_RATE = 2e-3, 2e8
#: Bytes of a collection that nobody has open.
COLLECTION_BYTES = 1e6
#: To open a collection on a host other than the one that holds it, whose disk may lack it.
FAR_STATE_S = 5.0
#: By how much a use of a function has to become slower or faster for plans to be made again.
DRIFT = 2.0
_SEEN = 3
#: How much the first time of a function counts: it often is that of importing something.
_FIRST = 0.05
_KEPT = 2048
_T = TypeVar("_T")

#: Weights and doubts for 1, prefilled, generated, embedded tokens, bytes taken; a floor in seconds.
_Prior = tuple[tuple[float, ...], tuple[float, ...], float]
_COMPUTE: dict[str, _Prior] = {
    "generate": ((0.05, 1e-3, 0.02, 0, 0), (0.2, 5e-3, 0.1, 0, 0), 0.02),
    "embed": ((0.005, 0, 0, 1e-4, 0), (0.05, 0, 0, 2e-3, 0), 2e-3),
    "rerank": ((0.005, 0, 0, 2e-4, 0), (0.05, 0, 0, 2e-3, 0), 2e-3),
}
_MODEL: _Prior = ((0.05, 1e-3, 0.02, 1e-4, 1e-9), (0.5, 5e-3, 0.1, 2e-3, 1e-6), 2e-3)
_PLAIN: _Prior = ((1e-3, 0, 0, 0, 1e-9), (0.05, 0, 0, 0, 1e-6), 3e-4)
#: Bytes of a result: constant, and for each byte taken.
_SIZES = {"embed": (1600.0, 0.0), "retrieve": (3000.0, 0.0), "prompt": (300.0, 1.0)}
_SIZE = (100.0, 0.5)
#: Latency in seconds and seconds a byte of each transport, before any transfer was seen.
_LINKS = {"shm": (1e-3, 5e-10), "remote": (1.5e-3, 2e-9), "cuda_ipc": (1e-3, 5e-11)}


class Terms(msgspec.Struct, frozen=True):
    """Predicted seconds of a stage; ``cold`` is what remains of a start after its inputs came."""

    compute: float = 0.0
    transfer: float = 0.0
    state: float = 0.0
    cold: float = 0.0

    @property
    def total(self) -> float:
        return self.compute + self.transfer + self.state + self.cold


class Work(msgspec.Struct, frozen=True):
    """What a stage will take, make and spend, wherever it runs; ``seconds`` to compute it."""

    bytes_in: float
    bytes_out: float
    prompt: float = 0.0
    cached: float = 0.0
    generated: float = 0.0
    embedded: float = 0.0
    seconds: float = 0.0


class UseCosts(msgspec.Struct, frozen=True):
    """Of one use of a function: how sizes follow from sizes.

    Attributes:
        result: bytes, of (1, bytes taken).
        prompt: prompt tokens, of the same.
        embedded: tokens embedded or scored, of the same, up to ``longest``: a text that is longer
            than its model takes is cut off.
        seconds: a moving mean, to notice drift from ``anchor``, which plans are made for.
    """

    result: Linear
    prompt: Linear
    embedded: Linear
    cached: Mean
    generated: Mean
    seconds: Mean
    anchor: float
    longest: Limit = Limit()


class Costs(msgspec.Struct, frozen=True):
    """What is known; ``epoch`` grows when a plan made with older costs may be wrong."""

    epoch: int = 0
    kinds: Mapping[str, Linear] = {}
    uses: Mapping[str, UseCosts] = {}
    inputs: Mapping[str, Mean] = {}
    starts: Mapping[str, Mean] = {}
    links: Mapping[str, Linear] = {}

    def transfer(self, one: Worker, other: Worker, transport: str, nbytes: float) -> float:
        """Seconds for a value between two workers."""
        if transport == "local":
            return 0.0
        link = self.links.get(_link(one.host, other.host, transport)) or _link_prior(transport)
        return link.at((1.0, nbytes))

    def start(self, model: str) -> float:
        """Seconds until a model that is not loaded answers."""
        found = self.starts.get(model)
        return found.value if found is not None else COLD_START_S


class Observation(msgspec.Struct, frozen=True):
    """A stage that finished: what it took and made in bytes, and what that used.

    ``usage.seconds`` is its time from the start of its attempt to its end, waiting for its model
    (``cold_start_seconds``) included.
    """

    stage: str
    bytes_in: int
    bytes_out: int
    usage: Usage


class Moved(msgspec.Struct, frozen=True):
    """A value that was fetched from one host to another, or within one."""

    source: str
    target: str
    transport: str
    nbytes: int
    seconds: float


# --- predicting -----------------------------------------------------------------------------------


def estimate(
    graph: Graph, costs: Costs, inputs: Mapping[str, float] | None = None
) -> dict[str, Work]:
    """The work of each stage for inputs of these sizes in bytes; usual ones where none is given."""
    sizes: dict[str, float] = {}
    for parameter in graph.inputs:
        given = None if inputs is None else inputs.get(parameter.name)
        usual = costs.inputs.get(_input(graph, parameter.name))
        typical = usual.value if usual is not None else INPUT_BYTES
        sizes[f"inputs.{parameter.name}"] = typical if given is None else given
    found: dict[str, Work] = {}
    for stage, facts in facts_of(graph).items():
        work = _work(facts, costs, sum(sizes[root] for root in facts.roots))
        sizes[stage] = work.bytes_out
        found[stage] = work
    return found


def _work(facts: Facts, costs: Costs, taken: float) -> Work:
    use = costs.uses.get(facts.use) or _use_prior(facts)
    x = (1.0, taken)
    prompt, embedded = use.prompt.at(x), use.longest.cap(use.embedded.at(x))
    generated = use.generated.value if facts.most is None else min(use.generated.value, facts.most)
    cached = min(use.cached.value, max(0.0, prompt - 1))
    compute = costs.kinds.get(facts.kind) or _compute_prior(facts)
    return Work(
        bytes_in=taken,
        bytes_out=use.result.at(x),
        prompt=prompt,
        cached=cached,
        generated=generated,
        embedded=embedded,
        seconds=compute.at((1.0, prompt - cached, generated, embedded, taken)),
    )


def state_seconds(collection: str, worker: Worker, topology: Topology, owner: str) -> float:
    """What it costs that a collection is not open on the worker.

    ``owner`` is where it should be by hashing: where nobody has it open, another worker's copy
    comes on top of the owner's, which changes go to.
    """
    if collection in worker.collections:
        return 0.0
    nbytes = topology.size_of(collection)
    load = OPEN_S + (COLLECTION_BYTES if nbytes is None else nbytes) / OPEN_RATE
    holders = topology.holders(collection)
    if not holders:
        return load if worker.name == owner else 2 * load
    near = any(holder.host == worker.host for holder in holders)
    return load if near else load + FAR_STATE_S


def transport_between(one: Worker, other: Worker) -> str:
    """What carries a value; CUDA IPC where both compute on devices of one host."""
    if one.name == other.name:
        return "local"
    if one.host != other.host:
        return "remote"
    return "cuda_ipc" if one.devices and other.devices else "shm"


# --- learning -------------------------------------------------------------------------------------


def learn(costs: Costs, graph: Graph, observation: Observation) -> Costs:
    """The costs after a stage of the graph finished."""
    facts = facts_of(graph)[observation.stage]
    usage = observation.usage
    seconds = max(0.0, usage.seconds - usage.cold_start_seconds)
    use = _learned_use(costs.uses.get(facts.use) or _use_prior(facts), facts, observation, seconds)
    if drifted := _drifted(use):
        use = msgspec.structs.replace(use, anchor=use.seconds.value)
    compute = costs.kinds.get(facts.kind) or _compute_prior(facts)
    tokens = (float(usage.prompt - usage.cached), float(usage.generated), float(usage.embedded))
    x = (1.0, *tokens, float(observation.bytes_in))
    compute = compute.observe(x, seconds, 1.0 if facts.kind in costs.kinds else _FIRST)
    starts = costs.starts
    if usage.cold_start_seconds > 0 and len(facts.models) == 1:
        (model,) = facts.models
        known = starts.get(model, Mean(COLD_START_S))
        starts = _with(starts, model, known.observe(usage.cold_start_seconds))
    return msgspec.structs.replace(
        costs,
        epoch=costs.epoch + drifted,
        uses=_with(costs.uses, facts.use, use),
        kinds=_with(costs.kinds, facts.kind, compute),
        starts=starts,
    )


def _learned_use(use: UseCosts, facts: Facts, seen: Observation, seconds: float) -> UseCosts:
    """How sizes follow from sizes, after one more of its stages."""
    usage = seen.usage
    x = (1.0, float(seen.bytes_in))
    longest = use.longest.observe(x[1], usage.embedded)
    embedded = use.embedded
    if longest.holds and not use.longest.holds:  # texts that were cut off had been learned from
        embedded = _use_prior(facts).embedded
    if not (longest.holds and usage.embedded == longest.value):
        embedded = embedded.observe(x, usage.embedded)
    return UseCosts(
        result=use.result.observe(x, seen.bytes_out),
        prompt=use.prompt.observe(x, usage.prompt),
        embedded=embedded,
        cached=use.cached.observe(usage.cached),
        generated=use.generated.observe(usage.generated),
        seconds=use.seconds.observe(seconds),
        anchor=use.anchor,
        longest=longest,
    )


def learn_inputs(costs: Costs, graph: Graph, sizes: Mapping[str, int]) -> Costs:
    """The costs after a run was given inputs of these sizes in bytes."""
    inputs = costs.inputs
    for name, nbytes in sizes.items():
        key = _input(graph, name)
        inputs = _with(inputs, key, inputs.get(key, Mean(INPUT_BYTES)).observe(nbytes))
    return msgspec.structs.replace(costs, inputs=inputs)


def learn_link(costs: Costs, moved: Moved) -> Costs:
    """The costs after a value was fetched."""
    key = _link(moved.source, moved.target, moved.transport)
    link = costs.links.get(key) or _link_prior(moved.transport)
    link = link.observe((1.0, float(moved.nbytes)), moved.seconds)
    return msgspec.structs.replace(costs, links=_with(costs.links, key, link))


def _drifted(use: UseCosts) -> bool:
    if use.seconds.count < _SEEN:
        return False
    # what takes next to no time may vary by any factor without changing a plan
    now, then = use.seconds.value + 2e-3, use.anchor + 2e-3
    return not then / DRIFT <= now <= then * DRIFT


@functools.lru_cache(maxsize=4096)
def _compute_prior(facts: Facts) -> Linear:
    weights, doubts, floor = _COMPUTE.get(facts.function, _MODEL if facts.models else _PLAIN)
    return Linear.prior(weights, doubts, floor)


@functools.lru_cache(maxsize=4096)
def _use_prior(facts: Facts) -> UseCosts:
    generates = bool(facts.models) and facts.function not in ("embed", "rerank")
    embeds = bool(facts.models) and facts.function != "generate"
    tokens = float(min(facts.most or 256, 256)) if generates else 0.0
    constant, slope = _SIZES.get(facts.function, _SIZE)
    if facts.function == "generate":
        constant, slope = 4 * tokens, 0.0
    none = Linear.prior((0, 0), (0, 0), 1)
    some = Linear.prior((8, 0.25), (50, 0.2), 4)
    compute = _compute_prior(facts)
    return UseCosts(
        result=Linear.prior((constant, slope), (1000, 0.5), 16),
        prompt=some if generates else none,
        embedded=some if embeds else none,
        cached=Mean(0.0),
        generated=Mean(tokens),
        seconds=Mean(0.0),
        anchor=compute.at((1.0, 200.0 * generates, tokens, 100.0 * embeds, 1000.0)),
    )


@functools.lru_cache(maxsize=4096)
def _link_prior(transport: str) -> Linear:
    latency, each = _LINKS[transport]
    return Linear.prior((latency, each), (5 * latency, 5 * each), 2e-4)


def _link(one: str, other: str, transport: str) -> str:
    return f"{transport} {' '.join(sorted({one, other}))}"


def _input(graph: Graph, name: str) -> str:
    return f"{graph.version[:16]}.{name}"


def _with(known: Mapping[str, _T], key: str, value: _T) -> Mapping[str, _T]:
    """The mapping with one entry changed; of many, the one that was not changed longest goes."""
    found = {**known}
    found.pop(key, None)
    found[key] = value
    if len(found) > _KEPT:
        del found[next(iter(found))]
    return found
