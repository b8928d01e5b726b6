"""What has to be mended in vLLM 0.32 on CPUs, before an engine is made."""

from __future__ import annotations

from typing import Any


def never_compile() -> None:
    """Without this, the first request with log-probabilities compiles a kernel for 20 s."""
    import torch._dynamo

    torch._dynamo.config.disable = True


def keep_seeds() -> None:
    """Let requests with a seed have prompts that are computed in chunks.

    vLLM draws a token after each chunk, throws it away and sets the request's generator back by an
    offset, which generators on CPUs do not have: the engine is lost. Here such a generator starts
    anew instead, since nothing that was drawn from it has been kept.
    """
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if CPUModelRunner._bookkeeping_sync.__module__ == __name__:
        return
    original = CPUModelRunner._bookkeeping_sync

    def bookkeeping(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = self.input_batch
        discarded = self.discard_request_mask.np[: batch.num_reqs].nonzero()[0]
        aside = {
            at: batch.generators.pop(at) for at in map(int, discarded) if at in batch.generators
        }
        for generator in aside.values():
            generator.manual_seed(generator.initial_seed())
        try:
            return original(self, *args, **kwargs)
        finally:
            batch.generators.update(aside)

    CPUModelRunner._bookkeeping_sync = bookkeeping
