"""Are the answers those of the models used directly?

Retrieval: recall@1 and @5 of embed and retrieve on questions whose paragraph is known, beside
sentence-transformers with exact search. Answers: how often the gold answer is in the text, and
whether the text is the one that the same engine gives to the same prompt without adjoin.

    python -m benchmarks.quality --data xquad.en.json [--answers 40]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import adjoin
from adjoin import functions as fn
from adjoin.dag import ModelSpec
from benchmarks.report import arguments, report
from benchmarks.xquad import Question, read

PROMPT = """{% for passage in passages %}{{ passage.text }}

{% endfor %}Using only the text above, answer in one sentence: {{ question }}"""
MAX_TOKENS = 48
GENERATOR = ModelSpec("smollm2-135m", args={"max_model_len": 2048})


@adjoin.workflow
def retrieval(question: str, k: int = 5):  # type: ignore[no-untyped-def]
    return fn.retrieve(fn.embed(question, model="minilm"), collection="paragraphs", k=k)


@adjoin.workflow(models={"small": GENERATOR})
def answering(question: str, k: int = 1):  # type: ignore[no-untyped-def]
    vector = fn.embed(question, model="minilm")
    passages = fn.retrieve(vector, collection="paragraphs", k=k)
    prompt = fn.prompt(PROMPT, question=question, passages=passages)
    answer = fn.generate(prompt, model="small", max_tokens=MAX_TOKENS)
    return {"answer": answer, "prompt": prompt}


def contains(answer: str, gold: list[str]) -> bool:
    return any(each.lower() in answer.lower() for each in gold)


def recall(ranks: list[int], k: int) -> float:
    return float(np.mean([rank < k for rank in ranks]))


def by_adjoin(runtime: adjoin.Runtime, questions: list[Question]) -> list[int]:
    inputs = [{"question": question, "k": 5} for question, _, _ in questions]
    ranks = []
    for found, (_, key, _) in zip(runtime.map(retrieval, inputs), questions, strict=True):
        if isinstance(found, adjoin.AdjoinError):
            raise found
        sources = [passage.source for passage in found]
        ranks.append(sources.index(key) if key in sources else 5)
    return ranks


def directly(model: str, paragraphs: dict[str, str], questions: list[Question]) -> list[int]:
    """sentence-transformers and a matrix product."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    keys = list(paragraphs)
    corpus = encoder.encode(list(paragraphs.values()), normalize_embeddings=True)
    asked = encoder.encode([question for question, _, _ in questions], normalize_embeddings=True)
    order = np.argsort(-(asked @ corpus.T), axis=1, kind="stable")[:, :5]
    ranks = []
    for row, (_, key, _) in zip(order, questions, strict=True):
        top = [keys[at] for at in row]
        ranks.append(top.index(key) if key in top else 5)
    return ranks


def engine_alone(model: str, prompts: list[str]) -> list[str]:
    """The same engine, settings and prompts, without adjoin around it."""
    import os

    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=model, dtype="float32", max_model_len=2048, enforce_eager=True, block_size=32,
        max_num_seqs=16, disable_log_stats=True,
    )  # fmt: skip
    conversations: list[Any] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    sampling = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    return [out.outputs[0].text for out in llm.chat(conversations, sampling, use_tqdm=False)]


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--data", type=Path, required=True, help="a file in SQuAD's format")
    parser.add_argument("--answers", type=int, default=40, help="questions to answer")
    options = parser.parse_args()
    paragraphs, questions = read(options.data)
    step = max(1, len(questions) // (10 if options.quick else options.answers))
    asked = questions[::step]
    with adjoin.Runtime() as runtime:
        collection = runtime.collection("paragraphs", embedding="minilm")
        collection.add_texts(paragraphs)
        ranks = by_adjoin(runtime, questions)
        inputs = [{"question": question} for question, _, _ in asked]
        results = list(runtime.map(answering, inputs, concurrency=8))
        for result in results:
            if isinstance(result, adjoin.AdjoinError):
                raise result
        collection.delete()
        store = runtime.settings.home
    from adjoin.functions.models import ModelStore

    models = ModelStore(store)
    direct = directly(str(models.resolve("minilm").path), paragraphs, questions)
    alone = engine_alone(
        str(models.resolve("smollm2-135m").path), [result["prompt"] for result in results]
    )
    gold = [answers for _, _, answers in asked]
    ours = [result["answer"] for result in results]
    same = [a.strip() == b.strip() for a, b in zip(ours, alone, strict=True)]
    report(
        "quality",
        {
            "questions": len(questions),
            "recall_at_1": recall(ranks, 1),
            "recall_at_5": recall(ranks, 5),
            "answers": len(asked),
            "contains_gold": float(
                np.mean([contains(a, g) for a, g in zip(ours, gold, strict=True)])
            ),
            "same_text_as_engine_alone": float(np.mean(same)),
        },
        {
            "models used directly": {
                "recall_at_1": recall(direct, 1),
                "recall_at_5": recall(direct, 5),
                "contains_gold": float(
                    np.mean([contains(a, g) for a, g in zip(alone, gold, strict=True)])
                ),
            }
        },
        options.json,
    )


if __name__ == "__main__":
    main()
