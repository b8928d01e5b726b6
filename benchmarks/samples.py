"""How often is the prompt of several samples computed, and what does that save?

Eight samples of one prompt of about 800 tokens: as one stage with ``n=8``, as eight runs of the
same prompt, and, beside them, as eight runs whose prompts differ from their first word on, so that
nothing can be shared. Tokens are the engine's own counts, as the runs' usage has them.

    python -m benchmarks.samples [--rounds 3]
"""

from __future__ import annotations

import asyncio
import statistics
import time

import adjoin
from adjoin import functions as fn
from adjoin.dag import Graph, ModelSpec
from adjoin.types import RunCompleted, Usage
from benchmarks.report import arguments, report

SAMPLES = 8
MODEL = ModelSpec("smollm2-135m", args={"max_model_len": 2048})
SENTENCE = (
    "The river runs past the old mill and the keeper counts the boats that come by each day. "
)


@adjoin.workflow(models={"small": MODEL})
def one_stage(prompt: str):  # type: ignore[no-untyped-def]
    return fn.generate(prompt, model="small", n=SAMPLES, temperature=0.8, max_tokens=32)


@adjoin.workflow(models={"small": MODEL})
def one_sample(prompt: str):  # type: ignore[no-untyped-def]
    return fn.generate(prompt, model="small", temperature=0.8, max_tokens=32)


async def usage(runtime: adjoin.Runtime, graph: Graph, prompt: str) -> Usage:
    async for event in runtime.astream(graph, prompt=prompt):
        if isinstance(event.body, RunCompleted):
            return event.body.usage
    raise SystemExit("the run did not complete")


async def measured(
    runtime: adjoin.Runtime, graph: Graph, prompts: list[str]
) -> tuple[float, float]:
    """Prompts computed, in prompts; seconds for all."""
    began = time.perf_counter()
    used = await asyncio.gather(*(usage(runtime, graph, prompt) for prompt in prompts))
    seconds = time.perf_counter() - began
    total = sum(used, Usage())
    return (total.prompt - total.cached) / (total.prompt / SAMPLES), seconds


async def rounds(runtime: adjoin.Runtime, count: int) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {"n": [], "runs": [], "alone": []}
    await usage(runtime, one_sample.graph, "Warm up.")
    for number in range(count):
        body = SENTENCE * 40 + f"How many boats came by? ({number})"
        found["n"].append(await measured(runtime, one_stage.graph, [f"First {number}: {body}"]))
        same = [f"Second {number}: {body}"] * SAMPLES
        found["runs"].append(await measured(runtime, one_sample.graph, same))
        apart = [f"{number} {at} {'xyz'[at % 3]} is a number: {body}" for at in range(SAMPLES)]
        found["alone"].append(await measured(runtime, one_sample.graph, apart))
    return found


def figures(values: list[tuple[float, float]]) -> dict[str, float]:
    computed, seconds = zip(*values, strict=True)
    return {"prompts_computed": statistics.mean(computed), "seconds": statistics.median(seconds)}


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with adjoin.Runtime() as runtime:
        found = asyncio.run(rounds(runtime, 1 if options.quick else options.rounds))
    report(
        "8 samples of one prompt",
        figures(found["n"]),
        {
            "eight runs, same prompt": figures(found["runs"]),
            "eight runs, nothing shared": figures(found["alone"]),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
