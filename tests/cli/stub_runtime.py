"""A runtime for the command line's tests: scripted events, and collections in a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from adjoin.dag import Graph
from adjoin.errors import AdjoinError, EngineError, InputError, NotFound, StageError, to_wire
from adjoin.runtime.collection import SyncReport
from adjoin.runtime.explain import Explanation
from adjoin.runtime.policies.links import Link
from adjoin.runtime.policies.placement import place
from adjoin.runtime.policies.topology import Topology, Worker
from adjoin.types import (
    Body,
    Event,
    ModelLoading,
    ModelReady,
    Passage,
    Progress,
    RunCompleted,
    RunFailed,
    RunPlanned,
    RunStarted,
    StageCompleted,
    StageStarted,
    StageWarning,
    Token,
    Tokens,
    Usage,
    Used,
)
from adjoin.vector_state.collections import CollectionInfo

PASSAGES = [
    Passage(id="a", text="Dask is a library.", source="dask.md", score=0.9, metadata={"page": 2}),
    Passage(id="b", text="It schedules\ntasks.", source="tasks.md", score=0.5),
]
GENERATED = Usage(prompt=120, cached=64, generated=5, seconds=0.5, cold_start_seconds=2.5)


class Ended(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


Cli: TypeAlias = Callable[..., Ended]


class StubRuntime:
    """Made by :func:`installed`; class attributes are the script."""

    answer: tuple[str, ...] = (" Dask", " is", " a library.")
    outputs: Mapping[str, Any]
    error: AdjoinError | None = None
    warning: StageWarning | None = None
    interrupt = False
    #: The question at which a submitted run is interrupted.
    interrupt_at = ""
    made: ClassVar[list[StubRuntime]]

    def __init__(self, cluster: str | None = None, *, settings: Any = None) -> None:
        self.cluster = cluster
        self.settings = settings
        self.closed = False
        self.calls: list[tuple[Any, ...]] = []
        self.made.append(self)

    def stream(self, graph: Graph, /, **inputs: Any) -> Iterator[Event]:
        self.calls.append(("stream", inputs))
        for number, (stage, at, body) in enumerate(self._script(graph)):
            if self.interrupt and isinstance(body, Tokens):
                raise KeyboardInterrupt
            attempt = 1 if stage else 0
            yield Event(run="run-1", seq=number, at=at, stage=stage, attempt=attempt, body=body)

    def _script(self, graph: Graph) -> Iterator[tuple[str, float, Body]]:
        yield "", 0.0, RunStarted(workflow=graph.name, version=graph.version)
        yield (
            "",
            0.1,
            RunPlanned(
                placement={stage.id: "worker-0" for stage in graph.stages},
                predicted={stage.id: 1.25 for stage in graph.stages},
                seconds=6.5,
            ),
        )
        at = 1.0
        for stage in graph.stages:
            yield stage.id, at, StageStarted(worker="worker-0")
            usage = Usage()
            if self.warning is not None and stage.function.ref == "generate":
                yield stage.id, at, self.warning
            if stage.function.ref == "generate":
                yield stage.id, at, ModelLoading(model="small", phase="load")
                yield stage.id, at, ModelReady(model="small", seconds=2.5)
                for text in self.answer:
                    yield stage.id, at, Tokens(tokens=(Token(text),))
                usage = GENERATED
                yield stage.id, at, Used(model="small", usage=usage)
            at += 1.5
            yield stage.id, at, StageCompleted(worker="worker-1", usage=usage)
        if self.error is not None:
            yield "", at, RunFailed(error=to_wire(self.error))
        else:
            yield "", at, RunCompleted(outputs=dict(self.outputs), usage=GENERATED, seconds=at)

    def map(
        self, graph: Graph, inputs: Iterable[Mapping[str, Any]], *, concurrency: int = 16
    ) -> Iterator[Any]:
        self.calls.append(("map", concurrency))
        for values in inputs:
            question = values.get("question", "")
            yield InputError("no") if question == "bad" else {"answer": question.upper()}

    async def asubmit(self, graph: Graph, /, **inputs: Any) -> StubHandle:
        self.calls.append(("submit", graph.name, inputs))
        if self.interrupt and inputs.get("question") == self.interrupt_at:
            raise KeyboardInterrupt
        if inputs.get("question") == "bad":
            failed = StageError.of("run-1", "answer", 1, EngineError("the replica died"))
            return StubHandle(RunFailed(error=to_wire(failed)))
        outputs = dict(self.reply(graph, inputs))
        return StubHandle(RunCompleted(outputs=outputs, usage=GENERATED, seconds=1.5))

    def reply(self, graph: Graph, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a submitted run answers."""
        return self.outputs

    def collection(self, name: str, *, embedding: str | None = None) -> StubCollection:
        return StubCollection(self, name, embedding)

    def collections(self) -> list[CollectionInfo]:
        return [CollectionInfo(name="remote", embedding="minilm", passages=7)]

    def explain(self, graph: Graph) -> Explanation:
        workers = tuple(
            Worker(f"worker-{n}", f"tcp://{n}", "h", collections=frozenset(held))
            for n, held in enumerate(([], ["handbook"]))
        )
        topology = Topology(1, workers)
        return Explanation(graph, place(graph, topology), topology)

    def links(self) -> list[Link]:
        protocol = self.cluster.partition("://")[0] if self.cluster else self.settings.protocol
        slower = 2.0 if protocol == "ucx" else 1.0
        seconds = {8: 0.001 * slower, 16_000_000: 0.016 * slower}
        return [
            Link(
                protocol=protocol,
                channel=channel,
                one="worker-0",
                other="worker-1",
                same_host=True,
                seconds=seconds,
            )
            for channel in ("shm", "remote")
        ]

    def close(self) -> None:
        self.closed = True


class StubHandle:
    """A run that has ended."""

    def __init__(self, body: Body) -> None:
        self._body = body

    async def aevents(self) -> AsyncIterator[Event]:
        yield Event(run="run-1", seq=0, at=1.5, body=self._body)

    def done(self) -> bool:
        return True


class StubCollection:
    def __init__(self, runtime: StubRuntime, name: str, embedding: str | None) -> None:
        self.runtime, self.name, self.embedding = runtime, name, embedding

    def add_files(
        self, path: Path, *, progress: Callable[[Progress], None] | None = None
    ) -> SyncReport:
        self.runtime.calls.append(("add_files", self.name, self.embedding, path))
        if progress is not None:
            progress(Progress(label="adding", done=1, total=2))
        skipped = (("bad.pdf", "is damaged"),)
        added = 0 if Path(path).suffix == ".pdf" else 2
        return SyncReport(
            added=added,
            changed=0,
            removed=1,
            unchanged=0,
            skipped=skipped,
            passages=9,
            usage=Usage(),
        )

    def search(self, query: str, k: int = 4) -> list[Passage]:
        if self.name == "none":
            raise NotFound("there is no collection 'none'")
        return PASSAGES[:k]

    def delete(self) -> None:
        self.runtime.calls.append(("delete", self.name))
