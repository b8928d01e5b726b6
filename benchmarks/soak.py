"""Does anything grow? Many runs in one Runtime: processes, descriptors, /dev/shm, memory.

The slope is that of a line through the samples of the second half, so that what is allocated once
does not count. With ``--real`` the runs are of a language model and an embedding model.

    python -m benchmarks.soak [--runs 500] [--real 50]

``benchmarks.soak_shm`` does this for values between workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import adjoin
from adjoin import functions as fn
from adjoin.dag import ModelSpec
from benchmarks.report import arguments, report

FAKE = ModelSpec(source="fake:", engine="fake")
REAL = ModelSpec("smollm2-135m", args={"max_model_len": 2048})


@adjoin.workflow(models={"fake": FAKE})
def fake_rag(question: str):  # type: ignore[no-untyped-def]
    vector = fn.embed(question, model="fake")
    passages = fn.retrieve(vector, collection="soak-fake", k=2)
    prompt = fn.prompt(
        "{{ passages[0].text }} {{ question }}", passages=passages, question=question
    )
    return fn.generate(prompt, model="fake")


@adjoin.workflow(models={"small": REAL})
def real_rag(question: str):  # type: ignore[no-untyped-def]
    vector = fn.embed(question, model="minilm")
    passages = fn.retrieve(vector, collection="soak-real", k=2)
    prompt = fn.prompt(
        "{{ passages[0].text }} {{ question }}", passages=passages, question=question
    )
    return fn.generate(prompt, model="small", max_tokens=8)


def footprint(runtime: adjoin.Runtime) -> dict[str, float]:
    status = runtime.status()
    pids = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
    for host in status["hosts"].values():
        pids.append(host["pid"])
        pids += [each["pid"] for key in ("templates", "replicas") for each in host[key]]
    processes = [psutil.Process(pid) for pid in set(pids)]
    return {
        "processes": len(processes),
        "descriptors": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "shm_files": len(list(Path("/dev/shm").iterdir())),
        "memory_kb": sum(process.memory_full_info().uss for process in processes) / 1000,
    }


def slope(samples: list[tuple[int, float]]) -> float:
    """Growth a run over the second half of the samples."""
    late = samples[len(samples) // 2 :]
    runs, values = zip(*late, strict=True)
    return float(np.polyfit(runs, values, 1)[0])


def soak(
    runtime: adjoin.Runtime, run: Callable[[int], Any], runs: int, samples: int
) -> dict[str, float]:
    taken: dict[str, list[tuple[int, float]]] = {}
    every = max(1, runs // samples)
    for number in range(runs + 1):
        if number % every == 0:
            for key, value in footprint(runtime).items():
                taken.setdefault(key, []).append((number, value))
        run(number)
    return {f"{key}_per_run": slope(values) for key, values in taken.items()}


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--runs", type=int, default=500, help="with the fake engine")
    parser.add_argument("--real", type=int, default=50, help="with real models; 0 for none")
    options = parser.parse_args()
    runs, real = (100, 0) if options.quick else (options.runs, options.real)
    figures: dict[str, float] = {}
    with adjoin.Runtime() as runtime:
        for name, embedding in (
            ("soak-fake", "fake:"),
            *((("soak-real", "minilm"),) if real else ()),
        ):
            texts = {f"t{n}": f"text number {n} is about {n * n}" for n in range(50)}
            runtime.collection(name, embedding=embedding).add_texts(texts)
        found = soak(runtime, lambda n: runtime.run(fake_rag, question=f"what is {n}"), runs, 20)
        figures |= {f"fake_{key}": value for key, value in found.items()}
        if real:
            found = soak(
                runtime, lambda n: runtime.run(real_rag, question=f"what is {n}"), real, 20
            )
            figures |= {f"real_{key}": value for key, value in found.items()}
        for name in ("soak-fake", *(("soak-real",) if real else ())):
            runtime.collection(name).delete()
    report("soak", figures, file=options.json)


if __name__ == "__main__":
    main()
