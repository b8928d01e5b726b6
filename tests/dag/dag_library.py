"""Functions for the tests of graphs: stand-ins for the built-in ones, and a few of a user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from adjoin import dag
from adjoin.types import Passage, StageContext, Vector


async def embed(ctx: StageContext, texts: str | list[str], *, model: str) -> Vector:
    raise NotImplementedError


async def retrieve(
    ctx: StageContext,
    vector: Vector,
    *,
    collection: str,
    k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4,
) -> list[Passage]:
    raise NotImplementedError


def prompt(template: dag.Template | str, **variables: Any) -> str:
    raise NotImplementedError


async def generate(
    ctx: StageContext, prompt: str, *, model: str, max_tokens: int = 256, temperature: float = 0.0
) -> str:
    """Generate text.

    More about it.
    """
    raise NotImplementedError


def chunk(text: str, size: int = 200, overlap: int = 0) -> list[str]:
    raise NotImplementedError


EMBED, RETRIEVE, PROMPT, GENERATE, CHUNK = (
    dag.builtin(each) for each in (embed, retrieve, prompt, generate, chunk)
)
REGISTRY: Mapping[str, dag.Function] = {
    each.ref: each for each in (EMBED, RETRIEVE, PROMPT, GENERATE, CHUNK)
}


@dag.function
def cite(answer: str, passages: list[Passage]) -> str:
    return f"{answer} [{passages[0].source}]"


@dag.function(timeout="5s", attempts=2)
def join(parts: Any, size: float = 1.5) -> str:
    return str(parts)


def undecorated(text: str) -> str:
    return text


USER = {each.ref: each for each in (cite, join)}


def import_function(module: str, name: str) -> Any:
    if module != "dag_library":
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    return globals()[name]


def load(text: str, **options: Any) -> dag.Graph:
    options = {"file": "w.yaml", "registry": REGISTRY, **options}
    return dag.load_yaml(
        text, import_function=import_function, allowed_modules=["dag_library", "absent"], **options
    )


def resolve(ref: str, digest: str) -> dag.Function:
    return REGISTRY.get(ref) or USER[ref]


RAG_YAML = """\
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: rag}
spec:
  inputs: {question: {type: string, maxLength: 4000}, k: {type: integer, default: 4}}
  models:
    small: {source: smollm2-135m, engine: auto, args: {max_model_len: 2048}}
  stages:
    embed:    {uses: embed, with: {texts: "${inputs.question}", model: minilm}}
    passages: {uses: retrieve, with: {vector: "${embed}", collection: handbook, k: "${inputs.k}"}}
    prompt:
      uses: prompt
      with: {template: {file: answer.md}, question: "${inputs.question}", passages: "${passages}"}
    answer:
      uses: generate
      with: {prompt: "${prompt}", model: small, max_tokens: 128}
      timeout: 30s
      retry: {attempts: 3}
    cite:     {uses: "py:dag_library:cite", with: {answer: "${answer}", passages: "${passages}"}}
  outputs: {answer: "${cite}", sources: "${passages}"}
"""
TEMPLATE = "Answer {{ question }}:\n{% for p in passages %}{{ p.text }}\n{% endfor %}"
