"""Models: from a name to local files that are pinned, checked and in a format engines load."""

from __future__ import annotations

from adjoin.functions.models.catalog import CATALOG
from adjoin.functions.models.fetch import OnProgress
from adjoin.functions.models.store import ModelFiles, ModelInfo, ModelStore

__all__ = ["CATALOG", "ModelFiles", "ModelInfo", "ModelStore", "OnProgress"]
