"""GGUF to safetensors, dequantised to float32, in a process of its own.

torch and transformers are imported only in the child, so that the caller stays small and the
memory of a conversion returns to the system.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from adjoin.errors import ModelError

_TIMEOUT_S = 3600.0


def convert(gguf: Path, target: Path) -> None:
    """Write ``gguf`` as a directory that transformers and vLLM load, with tokenizer and template.

    Raises:
        ModelError: transformers cannot read the file, or there is no room for the result.
    """
    command = [sys.executable, "-m", "adjoin.functions.models.convert", str(gguf), str(target)]
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "CUDA_VISIBLE_DEVICES": "",
    }
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"the conversion to safetensors took longer than {_TIMEOUT_S:.0f} s", where=str(gguf)
        ) from None
    if done.returncode != 0:
        raise _failure(gguf, done.returncode, done.stderr)


def _failure(gguf: Path, code: int, stderr: str) -> ModelError:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    reason = lines[-1] if lines else f"the process ended with {code}"
    if code < 0:
        reason = f"the process was killed by signal {-code}, probably for lack of memory"
    hint = "try the model's safetensors instead"
    if "ModuleNotFoundError" in reason or "ImportError" in reason:
        hint = "install the engines: pip install 'adjoin[cpu]'"
    elif "No space left" in reason or "os error 28" in reason:
        hint = "free some disk space; the weights take four bytes a parameter"
    return ModelError(f"GGUF could not be converted: {reason}", where=str(gguf), hint=hint)


def _main(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.float().save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
