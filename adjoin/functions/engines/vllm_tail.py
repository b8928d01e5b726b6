"""Sharing of the last, partly filled block of a prompt, as a KV connector of vLLM.

vLLM shares attention state in whole blocks, and of a prompt that it knows to the end it computes
the last block again: with blocks of 32 tokens, 1 to 32 tokens for each further sample of a prompt.
Here a request that enters copies that block from one that runs and has the same tokens in it, so
that one token is left to compute. Only vLLM imports this, and only where scheduler and worker share
a process, so that a copy is made before anything else can touch the block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    SupportsHMA,
)
from vllm.v1.kv_cache_interface import FullAttentionSpec

if TYPE_CHECKING:
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.request import Request


class _Source(NamedTuple):
    """Where the beginning of a block is already computed, and how many tokens of it."""

    block: int
    tokens: int


class Copies(KVConnectorMetadata):  # type: ignore[misc]  # vLLM's classes are not typed here
    """Blocks to copy before a step: from, to."""

    def __init__(self, pairs: list[tuple[int, int]]) -> None:
        self.pairs = pairs


class TailConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """One object of this class decides, in the scheduler, and another one copies, in the worker."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._block_size = int(vllm_config.cache_config.block_size)
        #: Other models have blocks that mean something else, or are let go before the end.
        groups = kv_cache_config.kv_cache_groups
        self._uniform = [isinstance(each.kv_cache_spec, FullAttentionSpec) for each in groups] == [
            True
        ]
        self._running: dict[str, Request] = {}
        #: By the request that may copy: from where, and to which of its blocks.
        self._found: dict[str, tuple[int, int]] = {}
        self._pairs: list[tuple[int, int]] = []
        self._layers: list[Any] = []

    # --- in the scheduler -------------------------------------------------------------------------

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int, bool]:
        whole = num_computed_tokens // self._block_size
        source = _Source(0, 0)
        if self._uniform:
            found = (self._shared(request, other, whole) for other in self._running.values())
            source = max((source, *found), key=lambda each: each.tokens)
        self._found[request.request_id] = (source.block, whole)
        return source.tokens, False

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int
    ) -> None:
        found = self._found.pop(request.request_id, None)
        if found is not None and num_external_tokens:
            source, whole = found
            self._pairs.append((source, blocks.get_block_ids()[0][whole]))
        self._running[request.request_id] = request

    def _shared(self, request: Request, other: Request, whole: int) -> _Source:
        """What ``other`` has computed, in earlier steps, of the block behind ``whole`` ones."""
        begin = whole * self._block_size
        end = min(begin + self._block_size, other.num_computed_tokens, request.num_tokens - 1)
        if end <= begin or not _same_before(request, other, whole):
            return _Source(0, 0)
        wanted, there = request.all_token_ids[begin:end], other.all_token_ids[begin:end]
        tokens = next(
            (at for at, (a, b) in enumerate(zip(wanted, there, strict=True)) if a != b), end - begin
        )
        if not tokens:
            return _Source(0, 0)
        blocks = self._kv_cache_manager.get_block_ids(other.request_id)[0]
        return _Source(blocks[whole], tokens)

    def build_connector_meta(self, scheduler_output: Any) -> Copies:
        pairs, self._pairs = self._pairs, []
        return Copies(pairs)

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, None]:
        self._running.pop(request.request_id, None)
        return False, None

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, None]:
        return self.request_finished(request, [])

    # --- in the worker ----------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        self._layers = list(kv_caches.values())

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        for source, target in self._get_connector_metadata().pairs:
            for layer in self._layers:
                layer[target].copy_(layer[source])

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Copied already."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Nothing leaves the cache."""

    def wait_for_save(self) -> None:
        """Nothing leaves the cache."""


def _same_before(request: Request, other: Request, whole: int) -> bool:
    """Whether two requests mean the same by their tokens, and share so many blocks before."""
    if request.lora_request or other.lora_request or request.mm_features or other.mm_features:
        return False
    if not whole:
        return bool(request.cache_salt == other.cache_salt)
    # A block's hash covers all before it, and the salt.
    return (
        min(len(request.block_hashes), len(other.block_hashes)) >= whole
        and request.block_hashes[whole - 1] == other.block_hashes[whole - 1]
    )
