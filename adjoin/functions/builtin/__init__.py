"""The functions that every workflow has. Importing them loads no engine, index or parser."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from adjoin.dag import Function, Needs, builtin
from adjoin.functions.builtin import generation, parsing, ranking, text, vectors, voting

chunk = builtin(text.chunk)
embed = builtin(vectors.embed, needs=Needs(model="model"))
retrieve = builtin(vectors.retrieve, needs=Needs(collection="collection"))
rerank = builtin(ranking.rerank, needs=Needs(model="model"))
prompt = builtin(text.prompt)
generate = builtin(
    generation.generate, needs=Needs(model="model"), result=generation.result, streams_text=True
)
parse = builtin(parsing.parse, result=parsing.result)
vote = builtin(voting.vote)
select = builtin(voting.select)

#: By the name that workflow texts use.
BUILTINS: Mapping[str, Function] = MappingProxyType(
    {
        each.name: each
        for each in (chunk, embed, retrieve, rerank, prompt, generate, parse, vote, select)
    }
)

__all__ = [
    "BUILTINS",
    "chunk",
    "embed",
    "generate",
    "parse",
    "prompt",
    "rerank",
    "retrieve",
    "select",
    "vote",
]
