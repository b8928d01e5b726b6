"""From a wanted model to a ready replica: files, template, fork, load; once for all who want it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from adjoin.errors import AdjoinError, EngineError, InputError, ModelError, from_wire
from adjoin.functions import engines
from adjoin.functions.engines.base import LoadSpec
from adjoin.runtime import openmp
from adjoin.runtime.children import Replica, Template
from adjoin.runtime.overseer import Overseer
from adjoin.runtime.policies.liveness import Deadlines
from adjoin.runtime.policies.restart import Failures, refusal
from adjoin.runtime.resolver import Line, Refused, Resolved
from adjoin.runtime.template import MAX_MESSAGE
from adjoin.runtime.usage_sweep import Keeper, directory_of
from adjoin.runtime.wire import Fork, HostConfig, Wanted

T = TypeVar("T")

#: Between the end of a replica's connection and the end of its process, in seconds.
_NOTICE_TIMEOUT = 2.0
#: Below the host's directory: temporary files of templates and replicas.
SCRATCH = "tmp"
_RESOLVER_LOG = "logs/resolver.log"


class Load:
    """One replica being started, or started; everybody who wants that model waits on the same."""

    def __init__(self) -> None:
        self.replica: Replica
        self.phase = "resolve"
        self.task: asyncio.Task[None]
        self._listeners: list[Callable[[str], None]] = []

    def announce(self, phase: str) -> None:
        self.phase = phase
        for tell in self._listeners:
            tell(phase)

    @contextmanager
    def heard_by(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Tell of the phase it is in, and of each to come."""
        if not self.task.done():
            tell(self.phase)
        self._listeners.append(tell)
        try:
            yield
        finally:
            self._listeners.remove(tell)

    async def wait(self) -> None:
        """Until the replica is ready. Who stops waiting does not stop the load."""
        await asyncio.shield(self.task)


class Loads:
    """All loads, templates and replicas of a host."""

    def __init__(self, directory: Path, config: HostConfig) -> None:
        self._directory = directory
        self._config = config
        self._by_wanted: dict[bytes, Load] = {}
        self._by_spec: dict[bytes, asyncio.Task[Replica]] = {}
        self._templates: dict[str, asyncio.Task[Template]] = {}
        self._failures: dict[bytes, Failures] = {}
        self._replicas: dict[str, Replica] = {}
        self._numbers = count(1)
        self._burials: set[asyncio.Task[None]] = set()
        self._usage = Keeper(directory_of(Path(config.home)), config.usage_log_bytes)

    def get(self, wanted: Wanted) -> Load:
        """The load of this model, begun now if there is none."""
        load = self._by_wanted.get(wanted.key)
        if load is None or (load.task.done() and not load.replica.alive):
            load = self._by_wanted[wanted.key] = Load()
            load.task = asyncio.create_task(self._run(wanted, load))
            load.task.add_done_callback(_look)
        return load

    async def notice(self, replica: str) -> None:
        """Give the end of a replica, which somebody else has seen, time to be seen here."""
        if known := self._replicas.get(replica):
            with suppress(TimeoutError):
                await asyncio.wait_for(known.died.wait(), _NOTICE_TIMEOUT)

    async def describe(self, *, figures: bool = False) -> dict[str, Any]:
        """Templates and replicas, as plain data; those with their engines' figures, if asked."""
        templates = [task.result().describe() for task in self._templates.values() if _ended(task)]
        replicas = await asyncio.gather(
            *(one.describe(figures=figures) for one in self._replicas.values())
        )
        return {"templates": templates, "replicas": list(replicas)}

    async def close(self) -> None:
        """End every child and wait until all are gone."""
        loads = [load.task for load in self._by_wanted.values()]
        tasks: list[asyncio.Task[Any]] = [
            *loads,
            *self._by_spec.values(),
            *self._templates.values(),
        ]
        for task in tasks:
            task.cancel()
        for replica in self._replicas.values():
            replica.kill()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(
            *(replica.died.wait() for replica in list(self._replicas.values())),
            *(task.result().stop() for task in self._templates.values() if _ended(task)),
        )

    async def _run(self, wanted: Wanted, load: Load) -> None:
        try:
            failures = self._failures.get(wanted.key, Failures())
            if refused := refusal(failures, time.monotonic()):
                raise refused
            try:
                spec = await self._limited(load, self._spec(wanted))
                load.replica = await self._replica(spec, load)
            except AdjoinError as error:
                self._failures[wanted.key] = failures.after(error, time.monotonic())
                raise
            self._failures.pop(wanted.key, None)
        except BaseException as error:
            self._by_wanted.pop(wanted.key, None)
            if isinstance(error, AdjoinError) and not error.where:
                error.where = f"model {wanted.name!r}"
            raise

    async def _limited(self, load: Load, work: Awaitable[T]) -> T:
        limit = self._config.load_timeout
        try:
            async with asyncio.timeout(limit):
                return await work
        except TimeoutError:
            raise EngineError(
                f"it was not ready after {limit:g} s, in phase {load.phase!r}",
                hint=f"raise load_timeout_s, or look at the logs in {self._directory / 'logs'}",
            ) from None

    async def _spec(self, wanted: Wanted) -> LoadSpec:
        """Resolve files and choose the engine."""
        adapter = None if wanted.engine == "auto" else engines.find(wanted.engine)
        if wanted.source.startswith("fake:"):
            adapter = engines.find("fake")
        resolved = Resolved(path="", digest=wanted.source, kind="")
        if adapter is None or adapter.files:
            resolved = await resolve(self._directory, self._config, wanted)
        adapter = adapter or engines.choose(resolved.kind)
        if resolved.kind and resolved.kind not in adapter.capabilities:
            raise ModelError(
                f"engine {adapter.name!r} cannot {resolved.kind}",
                hint="use engine: auto, or another model",
            )
        spec = LoadSpec(
            model=wanted.name,
            engine=adapter.name,
            kind=resolved.kind,
            path=resolved.path,
            digest=resolved.digest,
            args=wanted.args,
            threads=self._config.threads,
            sequences=self._config.sequences,
            prefix_caching=self._config.prefix_caching,
            kv_cache_bytes=self._config.kv_cache_bytes,
        )
        if len(msgspec.msgpack.encode(spec)) > MAX_MESSAGE // 2:
            raise InputError("the engine's arguments are too large", where="model args")
        return spec

    async def _replica(self, spec: LoadSpec, load: Load) -> Replica:
        """The replica of these very files, engine and arguments."""
        key = msgspec.msgpack.encode([spec.digest, spec.engine, sorted(spec.args.items())])
        task = self._by_spec.get(key)
        if task is None or (_ended(task) and not task.result().alive):
            task = asyncio.create_task(self._launch(spec, key, load))
            self._by_spec[key] = task
            task.add_done_callback(_look)
        try:
            return await asyncio.shield(task)
        except AdjoinError:
            if self._by_spec.get(key) is task:
                del self._by_spec[key]
            raise

    async def _launch(self, spec: LoadSpec, key: bytes, load: Load) -> Replica:
        fork = self._fork(spec, key)
        replica = Replica(fork)
        try:
            await self._limited(load, self._load(replica, spec, load))
        except BaseException:
            replica.kill()
            raise
        return replica

    async def _load(self, replica: Replica, spec: LoadSpec, load: Load) -> None:
        load.announce("template")
        template = await self._template(spec.engine)
        load.announce("fork")
        loaded = await replica.start(template)
        self._replicas[replica.id] = replica
        burial = asyncio.create_task(self._bury(replica))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)
        load.announce("load")
        await loaded

    async def _bury(self, replica: Replica) -> None:
        deadlines = Deadlines(beat_s=self._config.beat, silence_s=self._config.stall)
        watch = asyncio.create_task(Overseer(replica, deadlines).watch())
        await replica.died.wait()
        watch.cancel()
        await asyncio.to_thread(self._usage.sweep)
        del self._replicas[replica.id]

    def _fork(self, spec: LoadSpec, key: bytes) -> Fork:
        number = next(self._numbers)
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", spec.model)[:40]
        # One log a model, fresh at each start, so that logs do not pile up.
        log = f"replica-{slug}-{hashlib.sha256(key).hexdigest()[:8]}.log"
        return Fork(
            replica=f"{slug}-{number}",
            spec=spec,
            socket=str(self._directory / f"replica-{number}.sock"),
            log=str(self._directory / "logs" / log),
            usage=str(directory_of(Path(self._config.home))),
        )

    async def _template(self, engine: str) -> Template:
        task = self._templates.get(engine)
        if task is None or (task.done() and not (_ended(task) and task.result().alive)):
            if task is not None and _ended(task):
                await task.result().stop()
            starting = Template.start(
                engine, self._directory, environment(self._directory, self._config)
            )
            task = self._templates[engine] = asyncio.create_task(starting)
            task.add_done_callback(_look)
        return await asyncio.shield(task)


def environment(directory: Path, config: HostConfig) -> dict[str, str]:
    """The variables of a template. Native libraries read them once, when they are loaded."""
    return (
        os.environ
        | openmp.variables(config.threads)
        | {
            # Replicas are killed, not asked to tidy up: the host removes what they leave.
            "TMPDIR": str(directory / SCRATCH),
            # Dask has its workers give memory back at every turn. An engine takes the same again
            # for each step, and would spend a third of a prefill on pages that are new.
            "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
            "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
            "TOKENIZERS_PARALLELISM": "false",
            # The model store has everything; an engine never fetches.
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "DO_NOT_TRACK": "1",
            # Ask the driver, not the runtime, if there is a GPU: a template must not start CUDA.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
    )


async def resolve(directory: Path, config: HostConfig, wanted: Wanted) -> Resolved:
    """Local files of a model, by a process that may be heavy.

    Raises:
        ModelError: the model cannot be had, or the process died.
    """
    with (directory / _RESOLVER_LOG).open("ab") as log:
        log.truncate(0)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "adjoin.runtime.resolver"),
            *(config.home, wanted.source, wanted.engine),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        output, _ = await child.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
        raise
    for text in reversed(output.splitlines()):
        match msgspec.json.decode(text, type=Line):
            case Resolved() as files:
                return files
            case Refused(error=error):
                raise from_wire(error)
    raise ModelError(
        f"the process that fetches it ended with code {child.returncode}",
        hint=f"its log is {directory / _RESOLVER_LOG}",
    )


def _ended(task: asyncio.Task[Any]) -> bool:
    """Whether it ended well."""
    return task.done() and not task.cancelled() and task.exception() is None


def _look(task: asyncio.Task[Any]) -> None:
    """See a failure that nobody may wait for, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()
