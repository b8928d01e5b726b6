"""Functions on text: ``chunk`` and ``prompt``."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from adjoin.dag import Template
from adjoin.functions.ingest.passages import Chunking, split


def chunk(
    text: str,
    size: Annotated[int, Meta(ge=1, le=100_000)] = 200,
    overlap: Annotated[int, Meta(ge=0, le=100_000)] = 0,
) -> list[str]:
    """Cut a text where its structure allows: between paragraphs, then sentences, then words.

    ``size`` and ``overlap`` are in pieces of about one token: words of up to seven letters, numbers
    of up to three digits, single characters of other scripts, punctuation.

    Raises:
        InputError: the numbers make no sense.
    """
    return split(text, Chunking(size, overlap))


def prompt(template: Template, **variables: Any) -> str:
    """Fill in a prompt template: sandboxed Jinja with bounds on time and size.

    A list of passages prints as their sources and texts; ``{% for p in passages %}`` with
    ``{{ p.text }}``, ``{{ p.source }}`` and ``{{ p.metadata.page }}`` gives them a form of their
    own.

    Raises:
        InputError: a variable is missing, or the template uses or makes more than it may.
    """
    from adjoin.functions.builtin.template import render

    return render(template.text, variables)
