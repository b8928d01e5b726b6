"""How well is the time of a stage predicted before its run?

A workflow as of retrieval: embed, retrieve, prompt, generate. Questions of about 50 to 1,500 tokens
in random order of size; the first ones are learned from, the others were never seen, and each is
predicted from its size before it runs. Printed is the median of the absolute relative errors of
each kind of stage and of the whole run, over the unseen questions. Learning goes on meanwhile, as
it does in use. Beside it is the least that one number for all of them could have erred by, their
median, which no prediction before the run can know: for stages whose time does not depend on the
question, what varies from run to run.

    python -m benchmarks.predict [--learn 24] [--check 30]
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
from pathlib import Path

import adjoin
from adjoin import functions as fn
from adjoin.dag import Graph, ModelSpec
from adjoin.types import RunCompleted, RunFailed, RunPlanned, StageCompleted, StageStarted
from benchmarks.report import arguments, report

MODEL = ModelSpec("smollm2-135m", args={"max_model_len": 2048})
WORDS = [
    "river", "mill", "keeper", "boat", "day", "night", "water", "stone",
    "house", "road", "field", "tree", "bird", "wind", "light", "winter",
    "summer", "market", "letter", "window", "garden", "bridge", "harbour", "song",
    "bread", "story", "teacher", "child", "engine", "wheel",
]  # fmt: skip


@adjoin.workflow(models={"small": MODEL})
def ask(question: str):  # type: ignore[no-untyped-def]
    vector = fn.embed(question, model="minilm")
    passages = fn.retrieve(vector, collection="predict", k=2)
    prompt = fn.prompt(
        "Answer from these notes.\n{% for p in passages %}{{ p.text }}\n{% endfor %}{{ question }}",
        passages=passages,
        question=question,
    )
    return fn.generate(prompt, model="small", max_tokens=32)


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


async def one(runtime: adjoin.Runtime, graph: Graph, question: str) -> dict[str, tuple[float, ...]]:
    """Predicted and actual seconds by stage, and of the run."""
    predicted: dict[str, float] = {}
    started: dict[str, float] = {}
    found: dict[str, tuple[float, ...]] = {}
    planned_at = 0.0
    async for event in runtime.astream(graph, question=question):
        match event.body:
            case RunPlanned(predicted=stages, seconds=seconds):
                predicted = {**stages, "run": seconds}
                planned_at = event.at
            case StageStarted():
                started[event.stage] = event.at
            case StageCompleted(usage=usage):
                found[event.stage] = (predicted[event.stage], usage.seconds, usage.prompt)
            case RunCompleted():
                found["run"] = (predicted["run"], event.at - planned_at, 0)
            case RunFailed(error=error):
                raise SystemExit(str(error))
    return found


async def measured(
    runtime: adjoin.Runtime, graph: Graph, learn: int, check: int
) -> dict[str, float]:
    rng = random.Random(11)
    sizes = [round(50 * 30 ** (at / (learn + check - 1))) for at in range(learn + check)]
    rng.shuffle(sizes)
    errors: dict[str, list[float]] = {}
    actuals: dict[str, list[float]] = {}
    prompts: list[float] = []
    for at, words in enumerate(sizes):
        # a word of these is about one token; the prompt has 2,048 at most, with the notes
        found = await one(runtime, graph, f"{at}: {text(rng, words)}?")
        if at < learn:
            continue
        prompts.append(max(values[2] for values in found.values()))
        for stage, (predicted, actual, _) in found.items():
            actuals.setdefault(stage, []).append(actual)
            errors.setdefault(stage, []).append(abs(predicted - actual) / actual)
    figures = {f"{name}: median error %": 100 * statistics.median(e) for name, e in errors.items()}
    figures |= {f"{name}: median error of the median %": _spread(a) for name, a in actuals.items()}
    figures |= {f"{name}: median ms": 1e3 * statistics.median(a) for name, a in actuals.items()}
    figures["generate: 90th percentile %"] = (
        100 * statistics.quantiles(errors["generate"], n=10)[-1]
    )
    return figures | {"prompt tokens: least": min(prompts), "prompt tokens: most": max(prompts)}


def _spread(actual: list[float]) -> float:
    middle = statistics.median(actual)
    return 100 * statistics.median(abs(middle - each) / each for each in actual)


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--learn", type=int, default=24)
    parser.add_argument("--check", type=int, default=30)
    options = parser.parse_args()
    learn, check = (8, 8) if options.quick else (options.learn, options.check)
    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as folder, adjoin.Runtime() as runtime:
        for number in range(12):
            Path(folder, f"{number}.txt").write_text(text(rng, 80))
        runtime.collection("predict", embedding="minilm").add_files(folder)
        figures = asyncio.run(measured(runtime, ask.graph, learn, check))
    report("predicted against actual seconds", figures, file=options.json)


if __name__ == "__main__":
    main()
