"""Norms on CPUs by vLLM's own kernels.

It has them for CPUs, and uses them on GPUs only: on CPUs each norm is five to eight small steps of
torch. With a small model that is 6 to 11 % of the time of a step. To be imported where vLLM is
loaded: importing it registers the kernels, and :data:`CONFIG` prefers them.
"""

# No `from __future__ import annotations`: vLLM reads the annotations below as they are.
import torch
from torch import Tensor
from vllm import ir
from vllm.platforms import current_platform

_PROVIDER = "adjoin_cpu"
#: What :class:`vllm.engine.arg_utils.EngineArgs` is given as ``kernel_config``.
CONFIG = {
    "ir_op_priority": {name: [_PROVIDER, "native"] for name in ("rms_norm", "fused_add_rms_norm")}
}

current_platform.import_kernels()
_kernels = torch.ops._C


def _fits(x: Tensor, weight: Tensor | None, variance_size: int | None) -> bool:
    same = weight is not None and weight.dtype == x.dtype
    return same and variance_size is None and x.is_contiguous()


def _takes_norm(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return _fits(x, weight, variance_size)


def _takes_sum(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    return _fits(x, weight, variance_size) and x_residual.is_contiguous()


@ir.ops.rms_norm.register_impl(_PROVIDER, supports_args=_takes_norm)  # type: ignore[untyped-decorator]
def rms_norm(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> Tensor:
    out = torch.empty_like(x)
    _kernels.rms_norm(out, x, weight, epsilon)
    return out


@ir.ops.fused_add_rms_norm.register_impl(  # type: ignore[untyped-decorator]
    _PROVIDER, supports_args=_takes_sum, inplace=True
)
def fused_add_rms_norm(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    _kernels.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual
