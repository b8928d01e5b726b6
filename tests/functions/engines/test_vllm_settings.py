from __future__ import annotations

from typing import Any

import pytest

from adjoin.errors import InputError
from adjoin.functions.engines.base import LoadSpec
from adjoin.functions.engines.vllm import engine_settings
from adjoin.types import Scalar


def settings(device: str = "cpu", **args: Scalar) -> dict[str, Any]:
    spec = LoadSpec(model="m", engine="vllm", path="/models/m", kv_cache_bytes=123, args=args)
    return engine_settings(spec, device)


def test_a_cpu_gets_what_was_measured_and_a_gpu_its_own_defaults() -> None:
    cpu, cuda = settings(), settings("cuda")
    assert (cpu["dtype"], cpu["block_size"], cpu["kv_cache_memory_bytes"]) == ("float32", 32, 123)
    assert cpu["enforce_eager"]
    assert {"dtype", "block_size", "kv_cache_memory_bytes", "enforce_eager"} & set(cuda) == set()
    assert cuda["enable_prefix_caching"]


def test_what_the_workflow_sets_wins() -> None:
    found = settings(dtype="bfloat16", max_model_len=2048, max_num_seqs=4)
    assert (found["dtype"], found["max_model_len"], found["max_num_seqs"]) == ("bfloat16", 2048, 4)


def test_without_prefix_caching_nothing_of_a_prompt_is_shared() -> None:
    assert "kv_transfer_config" in settings()
    for found in (
        settings(enable_prefix_caching=False),
        engine_settings(LoadSpec(model="m", engine="vllm", prefix_caching=False), "cpu"),
    ):
        assert not found["enable_prefix_caching"]
        assert "kv_transfer_config" not in found


def test_two_replicas_draw_different_numbers() -> None:
    assert settings()["seed"] != settings()["seed"]


def test_a_misspelled_argument_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'max_model_len'"):
        settings(max_model_length=2048)


@pytest.mark.parametrize(
    "name", ["trust_remote_code", "model", "load_format", "worker_cls", "logits_processors"]
)
def test_what_runs_code_or_names_files_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        settings(device="cpu", **{name: True})


@pytest.mark.parametrize("value", [0, -1, True, "many", 1.5])
def test_sequences_are_a_whole_number_above_zero(value: Scalar) -> None:
    with pytest.raises(InputError, match="max_num_seqs"):
        settings(max_num_seqs=value)
