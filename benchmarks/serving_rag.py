"""A question answered from documents over HTTP: `adjoin serve`, and composed by hand.

By hand is vLLM's server (tuned), an embedding service, and FAISS in the client, which embeds the
question, searches, writes the prompt and asks the model: the same documents, passages, prompt,
models and parameters.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import faiss
import numpy as np

from adjoin.settings import Settings
from adjoin.types import Passage
from adjoin.vector_state.collections import Collection
from benchmarks.load import post
from benchmarks.servers import free_port, serving

ROOT = Path(__file__).parent.parent
COLLECTION = "handbook"
WORKFLOW = ROOT / "examples" / "rag" / "workflow.yaml"
K = 3
PACKAGES = (
    *("dask", "distributed", "faiss", "fastapi", "jinja2", "msgspec", "numpy", "pydantic"),
    *("pyyaml", "rich", "torch", "transformers", "typer", "uvicorn", "vllm", "prometheus-client"),
)
QUESTIONS = [f"What does the package {name} do?" for name in PACKAGES]
CLIENTS = 8

Ask = Callable[[aiohttp.ClientSession, str], Awaitable[str]]


async def measure(ask: Ask, *, quick: bool) -> dict[str, float]:
    """Median milliseconds of one question after another, and answers a second of eight clients."""
    questions = QUESTIONS[: 6 if quick else len(QUESTIONS)]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        await asyncio.gather(*(ask(session, f"Who made {n}?") for n in range(CLIENTS)))
        times = []
        for question in questions:
            began = time.perf_counter()
            await ask(session, question)
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
        waiting = [f"{question} Explain." for question in questions]
        await asyncio.gather(*(_client(session, ask, waiting) for _ in range(CLIENTS)))
        seconds = time.perf_counter() - began
    found = {
        "rag_p50_ms": statistics.median(times) * 1e3,
        "rag_answers_s": len(questions) / seconds,
    }
    print(found, file=sys.stderr)
    return found


async def _client(session: aiohttp.ClientSession, ask: Ask, waiting: list[str]) -> None:
    while waiting:
        await ask(session, waiting.pop())


async def ours(*, quick: bool) -> dict[str, float]:
    """Needs the example's collection, which is made where it is not there."""
    add_documents()
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "adjoin.cli", "serve", "--dev", "--port", str(port)]
    url = f"{base}/api/v1/workflows/rag/invoke"

    async def ask(session: aiohttp.ClientSession, question: str) -> str:
        answer = await post(session, url, {"question": question, "k": K})
        return str(json.loads(answer)["outputs"]["answer"])

    async with serving([*command, str(WORKFLOW)], f"{base}/readyz"):
        return await measure(ask, quick=quick)


def add_documents() -> None:
    with tempfile.TemporaryDirectory() as folder:
        documents = ROOT / "examples" / "rag" / "documents.py"
        subprocess.run([sys.executable, str(documents), folder], check=True)
        add = [sys.executable, "-m", "adjoin.cli", "collections", "add", COLLECTION, folder]
        subprocess.run([*add, "--embedding", "minilm"], check=True, stdout=subprocess.DEVNULL)


class ByHand:
    """The client of the three services."""

    def __init__(self, embedding: str, chat: str, model: str) -> None:
        self._embedding = embedding
        self._chat = chat
        self._model = model
        self._passages: list[Passage] = []
        self._index = faiss.IndexFlatIP(1)

    async def prepare(self) -> None:
        stored = Collection.open(Settings.load().home / "collections", COLLECTION)
        async with aiohttp.ClientSession() as session:
            (probe,) = await self._embed(session, ["anything"])
            self._passages = stored.search(np.asarray(probe, dtype=np.float32), len(stored))
            texts = [passage.text for passage in self._passages]
            vectors = [
                v
                for at in range(0, len(texts), 32)
                for v in await self._embed(session, texts[at : at + 32])
            ]
        self._index = faiss.IndexFlatIP(len(probe))
        self._index.add(np.asarray(vectors, dtype=np.float32))

    async def ask(self, session: aiohttp.ClientSession, question: str) -> str:
        vector = np.asarray(await self._embed(session, [question]), dtype=np.float32)
        _, (rows,) = self._index.search(vector, K)
        passages = [self._passages[row].text.replace("\n", " ") for row in rows]
        text = "".join(f"{passage}\n\n" for passage in passages)
        prompt = f"{text}Using only the text above, answer in one sentence: {question}"
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 64,
            "temperature": 0,
            "frequency_penalty": 0.3,
            "stop": "\n",
        }
        answer = await post(session, self._chat, body)
        return str(json.loads(answer)["choices"][0]["message"]["content"])

    async def _embed(self, session: aiohttp.ClientSession, texts: list[str]) -> Any:
        return json.loads(await post(session, self._embedding, {"texts": texts}))


async def by_hand(
    vllm: Callable[[int], tuple[list[str], Mapping[str, str]]],
    embedder: str,
    model: str,
    *,
    quick: bool,
) -> dict[str, float]:
    """``vllm`` gives command and environment of its server at a port."""
    chat, embedding = free_port(), free_port()
    command, environment = vllm(chat)
    service = [sys.executable, str(ROOT / "benchmarks" / "peers" / "embedding_http.py")]
    async with (
        serving(command, f"http://127.0.0.1:{chat}/health", environment),
        serving([*service, embedder, str(embedding)], f"http://127.0.0.1:{embedding}/health"),
    ):
        client = ByHand(
            f"http://127.0.0.1:{embedding}/embed",
            f"http://127.0.0.1:{chat}/v1/chat/completions",
            model,
        )
        await client.prepare()
        return await measure(client.ask, quick=quick)
