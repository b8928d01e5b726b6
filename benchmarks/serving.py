"""How fast is `adjoin serve` over HTTP?

A workflow of four stages that do nothing: median milliseconds of one request after another, and
requests a second of 32 clients, beside Ray Serve and LitServe. And streamed chats with one model,
at 1, 8 and 16 streams: tokens a second and median time to the first token, beside vLLM's own
server as it starts by default, and with its threads bound to all cores as its documentation
advises for CPUs. And a question answered from documents, beside the same composed by hand over HTTP
(see `serving_rag.py`). Servers run one after another in one run, each alone with the client on the
machine.

    python -m benchmarks.serving [--peers .venv-peers/bin/python] [--json FILE] [--quick]

Peers that are not installed are left out (`make peers`). vLLM's server runs in our environment.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjoin.functions.models.store import ModelStore
from adjoin.settings import Settings
from benchmarks import serving_rag
from benchmarks.load import Spoken, latency_ms, median_of, rate, speak
from benchmarks.report import arguments, report
from benchmarks.servers import free_port, serving

HERE = Path(__file__).parent
MODEL = "smollm2-135m"
STREAMS = (1, 8, 16)
MAX_TOKENS = 64
CLIENTS = 32
#: As long as a question with a few passages is short; each is another one, so that none is cached.
PROMPTS = [
    f"Write a long story about the number {n}, the sea, a mill and the keeper of a lighthouse who"
    f" counts {n} boats each day and writes their names down in a book. Begin at once."
    for n in range(100, 1000)
]
TEXT = "adjoin " * 8


async def measure_invoke(url: str, body: Mapping[str, Any], *, quick: bool) -> dict[str, float]:
    found = {
        "invoke_p50_ms": await latency_ms(url, body, 100 if quick else 500),
        "invoke_rps": await rate(url, body, CLIENTS, 2 if quick else 8),
    }
    print(f"{url}: {found}", file=sys.stderr)
    return found


async def measure_chat(base: str, model: str, *, quick: bool) -> dict[str, float]:
    url = f"{base}/v1/chat/completions"
    prompts = iter(PROMPTS)
    found: dict[str, float] = {}
    for streams in STREAMS:

        async def once(streams: int = streams) -> Spoken:
            chosen = [next(prompts) for _ in range(streams)]
            return await speak(url, model, chosen, MAX_TOKENS)

        spoken = await median_of(1 if quick else 3, once)
        found |= {f"tok_s_{streams}": spoken.tok_s, f"ttft_s_{streams}": spoken.ttft_s}
        print(f"{base}: {streams} streams: {spoken}", file=sys.stderr)  # it takes minutes
    return found


async def ours(*, quick: bool) -> dict[str, float]:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "adjoin.cli", "serve", "--dev", "--port", str(port)]
    async with serving([*command, str(HERE / "serving_flow.py")], f"{base}/readyz"):
        invoke = f"{base}/api/v1/workflows/chain/invoke"
        found = await measure_invoke(invoke, {"text": TEXT}, quick=quick)
    async with serving(command, f"{base}/readyz"):
        return found | await measure_chat(base, MODEL, quick=quick)


async def chain_peer(python: str, program: str, *, quick: bool) -> tuple[Any, Any] | None:
    """Figures of a peer that serves the four stages, and what it says about itself."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    ready = f"{url}/-/healthz" if "ray" in program else f"{url}/health"
    command = [python, str(HERE / "peers" / program), str(port)]
    try:
        async with serving(command, ready, speaks=True) as said:
            figures = await measure_invoke(f"{url}/chain", {"text": TEXT}, quick=quick)
    except TimeoutError as error:
        print(f"{program} left out: {error}", file=sys.stderr)
        return None
    return figures, said


def vllm_settings() -> dict[str, tuple[Sequence[str], Mapping[str, str]]]:
    """Options and environment of vLLM's server: as it comes, and as tuned for this machine."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    tuned = {"VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_KVCACHE_SPACE": "2"}
    both = ["--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16"]
    return {
        "vllm_default": (both, {"VLLM_CPU_KVCACHE_SPACE": "2"}),
        "vllm_tuned": ([*both, "--block-size", "32", "--enforce-eager"], tuned),
    }


def vllm_server(name: str, model: str, port: int) -> tuple[list[str], Mapping[str, str]]:
    options, environment = vllm_settings()[name]
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    return [*server, "--served-model-name", MODEL, "--port", str(port), *options], environment


async def vllm_peer(name: str, model: str, *, quick: bool) -> tuple[Any, Any] | None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command, environment = vllm_server(name, model, port)
    try:
        async with serving(command, f"{base}/health", environment):
            figures = await measure_chat(base, MODEL, quick=quick)
    except TimeoutError as error:
        print(f"{name} left out: {error}", file=sys.stderr)
        return None
    import vllm

    options = " ".join(vllm_settings()[name][0])
    return figures, {"version": vllm.__version__, "options": options, **environment}


async def rag_peer(model: str, *, quick: bool) -> tuple[Any, Any] | None:
    embedder = str(ModelStore(Settings.load().home).resolve("minilm").path)
    server = functools.partial(vllm_server, "vllm_tuned", model)
    try:
        figures = await serving_rag.by_hand(server, embedder, MODEL, quick=quick)
    except TimeoutError as error:
        print(f"by hand left out: {error}", file=sys.stderr)
        return None
    return figures, {"services": "vLLM's server (tuned), sentence-transformers in FastAPI, FAISS"}


def ratios(ours: Mapping[str, float], peers: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for peer in ("ray_serve", "litserve"):
        if peer in peers:
            found[f"ratio_{peer}_rps"] = ours["invoke_rps"] / peers[peer]["invoke_rps"]
    if "by_hand" in peers:
        found["ratio_by_hand_rag"] = peers["by_hand"]["rag_p50_ms"] / ours["rag_p50_ms"]
    for streams in STREAMS:
        tokens, first = f"tok_s_{streams}", f"ttft_s_{streams}"
        for peer in ("vllm_tuned", "vllm_default"):
            if peer in peers:
                found[f"ratio_{peer}_{tokens}"] = ours[tokens] / peers[peer][tokens]
        if "vllm_tuned" in peers:
            found[f"ttft_over_vllm_tuned_{streams}"] = ours[first] / peers["vllm_tuned"][first]
    return found


async def measure(python: str, *, quick: bool) -> tuple[Any, Any, Any]:
    figures = await ours(quick=quick) | await serving_rag.ours(quick=quick)
    found: dict[str, tuple[Any, Any] | None] = {}
    if Path(python).exists():
        found["ray_serve"] = await chain_peer(python, "ray_serve_http.py", quick=quick)
        found["litserve"] = await chain_peer(python, "litserve_http.py", quick=quick)
    else:
        print(f"{python} is not there: make peers", file=sys.stderr)
    model = str(ModelStore(Settings.load().home).resolve(MODEL, for_engine="vllm").path)
    for name in vllm_settings():
        found[name] = await vllm_peer(name, model, quick=quick)
    found["by_hand"] = await rag_peer(model, quick=quick)
    there = {name: each for name, each in found.items() if each is not None}
    return figures, {n: f for n, (f, _) in there.items()}, {n: a for n, (_, a) in there.items()}


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--peers", default=".venv-peers/bin/python", metavar="PYTHON")
    options = parser.parse_args()
    figures, peers, about = asyncio.run(measure(options.peers, quick=options.quick))
    report("serving", {**figures, **ratios(figures, peers)}, peers, options.json, about=about)


if __name__ == "__main__":
    main()
