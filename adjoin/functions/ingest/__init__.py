"""Documents on disk to passages: find them, parse them in a process with limits, cut them up."""

from __future__ import annotations

from adjoin.functions.ingest.documents import Document, Limits, ParseFailure, Section
from adjoin.functions.ingest.parser import Parser, parse_files
from adjoin.functions.ingest.passages import Chunking, embedding_text, passages_of
from adjoin.functions.ingest.scan import SUFFIXES, Found, belongs, scan
from adjoin.functions.ingest.sync import SyncPlan, plan_sync

__all__ = [
    "SUFFIXES",
    "Chunking",
    "Document",
    "Found",
    "Limits",
    "ParseFailure",
    "Parser",
    "Section",
    "SyncPlan",
    "belongs",
    "embedding_text",
    "parse_files",
    "passages_of",
    "plan_sync",
    "scan",
]
