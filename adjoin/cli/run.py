"""``adjoin run``: one run with its answer as it comes, or many from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjoin.cli.options import Cluster, Json, Set, Target, open_runtime, settings_of
from adjoin.cli.terminal import (
    Activity,
    note,
    one_line,
    plain,
    print_json,
    print_table,
    printable,
    shorten,
    write,
)
from adjoin.errors import AdjoinError, InputError
from adjoin.types import (
    Event,
    ModelLoading,
    Passage,
    Progress,
    RunPlanned,
    StageStarted,
    StageWarning,
    Tokens,
)

if TYPE_CHECKING:
    from adjoin import Runtime
    from adjoin.cli.report import RunReport
    from adjoin.dag import Graph

_SNIPPET = 100
_HEADING = 200


def run(
    workflow: Target,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Inputs of the workflow.")
    ] = None,
    docs: Annotated[
        Path | None,
        typer.Option(help="A file or folder for the workflow's collection; re-synced when it is."),
    ] = None,
    collection_name: Annotated[
        str | None, typer.Option(help="Which collection --docs fills, where there are several.")
    ] = None,
    inputs_file: Annotated[
        Path | None,
        typer.Option(
            "--inputs", metavar="FILE", help="Many runs: a JSON object a line; - is stdin."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Many runs: write a JSON line each, several at once."
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1024, help="Of --output: runs at once.")
    ] = 16,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the answer.")] = False,
    as_json: Json = False,
    cluster: Cluster = None,
    set_: Set = None,
) -> int:
    """Run a workflow. Tokens are printed as they come, then sources and what each stage took."""
    from adjoin.cli import batch
    from adjoin.cli.fill import check_documents, collection_to_fill, fill
    from adjoin.cli.values import parse_pairs, read_lines
    from adjoin.loading import load_graph

    settings = settings_of(set_)
    graph = load_graph(workflow, settings)
    values = parse_pairs(graph, inputs or ())
    if output is not None and inputs_file is None:
        raise InputError("--output is for many runs", hint="give --inputs too")
    if docs is not None:
        collection_to_fill(graph, collection_name)
        check_documents(docs)
    if inputs_file is not None:
        many = read_lines(graph, inputs_file, values)
    else:
        graph.check_inputs(values)
    with open_runtime(cluster, settings) as runtime:
        if docs is not None:
            fill(runtime, graph, docs, collection_name)
        if inputs_file is None:
            _run_one(runtime, graph, values, quiet=quiet, as_json=as_json)
            return 0
        if output is None and not as_json:
            return _show_many(runtime, graph, many, quiet=quiet)
        return batch.run_many(runtime, graph, many, output, concurrency)


def _run_one(
    runtime: Runtime, graph: Graph, values: Mapping[str, Any], *, quiet: bool, as_json: bool = False
) -> None:
    from adjoin.cli.report import texts_and_passages

    report = stream(runtime, graph, values, silent=as_json)
    if as_json:
        print_json(report.to_dict())
    elif not quiet:
        _, passages = texts_and_passages(report.outputs)
        print_sources(passages)
        _print_stages(report)


def _show_many(
    runtime: Runtime, graph: Graph, many: Sequence[Mapping[str, Any]], *, quiet: bool
) -> int:
    """One after another, for people to read; returns the exit code of the first error, or 0."""
    code = 0
    for values in many:
        print(*(shorten(f"{key}: {value}", _HEADING) for key, value in values.items()), sep="\n")
        try:
            _run_one(runtime, graph, values, quiet=quiet)
        except AdjoinError as error:
            note(f"error: {one_line(str(error))}")
            code = code or error.exit_code
        print(flush=True)
    return code


def stream(
    runtime: Runtime, graph: Graph, values: Mapping[str, Any], *, silent: bool = False
) -> RunReport:
    """Run it, showing the answer while it is written.

    Raises:
        AdjoinError: the run failed.
    """
    from adjoin.cli.report import RunReport

    report = RunReport(graph)
    view = _View(graph, silent=silent)
    try:
        for event in runtime.stream(graph, **values):
            report.add(event)
            view.show(event)
        if report.error is not None:
            raise report.error
        view.finish(report.outputs)
    finally:
        view.close()
    return report


class _View:
    """The run on the screen: activity on stderr until the first token, then the text on stdout."""

    def __init__(self, graph: Graph, *, silent: bool) -> None:
        from adjoin.functions.answers import last_generators

        self._activity = Activity()
        self._answers = last_generators(graph)
        self._silent = silent
        #: The stage whose tokens are on the screen; of several at once, the first.
        self._stage = ""
        self._text = ""

    def show(self, event: Event) -> None:
        match event.body:
            case Tokens(tokens=tokens) if event.stage in self._answers and not self._silent:
                self._stage = self._stage or event.stage
                if event.stage == self._stage:
                    said = (token for token in tokens if token.choice == 0 and not token.reasoning)
                    self._write("".join(token.text for token in said))
            case ModelLoading(model=model, phase=phase) if not self._text:
                self._activity.say(f"{event.stage}: {model} ({phase})")
            case Progress() as progress if not self._text:
                self._activity(progress)
            case StageStarted() if not self._text:
                self._activity.say(event.stage)
            case StageWarning() as warning:
                self._activity.hide()
                note(f"warning: stage {event.stage!r}: {one_line(str(warning))}")
            case RunPlanned() if not self._text:
                self._activity.say("running")

    def finish(self, outputs: Mapping[str, Any]) -> None:
        """Print what of the outputs is not on the screen yet."""
        from adjoin.cli.report import texts_and_passages

        self._activity.hide()
        if self._silent:
            return
        rest, _ = texts_and_passages(outputs)
        for name, value in rest.items():
            text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
            shown = self._text.rstrip()
            if shown and text.lstrip().startswith(shown):
                # what a function after the model added, such as citations
                write(text.lstrip()[len(shown) :])
            else:
                self._end_line()
                write(f"{name}: {text}" if len(rest) > 1 else text)
                self._text = text
            self._end_line()

    def close(self) -> None:
        self._activity.hide()
        self._end_line()

    def _write(self, text: str) -> None:
        if not self._text:
            text = text.lstrip()  # chat templates leave a space before the first word
        if text:
            self._activity.hide()
            write(text)
            self._text += text

    def _end_line(self) -> None:
        if self._text:
            write("\n")
            self._text = ""


def print_sources(passages: Sequence[Passage]) -> None:
    """The passages of an answer, numbered as it cites them."""
    if not passages:
        return
    print("\nsources")
    for number, passage in enumerate(passages, start=1):
        print(f"  [{number}] {passage.score:.3f}  {_origin(passage)}")
        print(f"      {shorten(passage.text, _SNIPPET)}")


def _origin(passage: Passage) -> str:
    page = passage.metadata.get("page")
    return printable(f"{passage.source}, page {page}" if page else passage.source)


def _print_stages(report: RunReport) -> None:
    from adjoin.cli.report import COLUMNS, NUMBERS

    print()
    print_table(COLUMNS, report.rows(), right=NUMBERS)
    if not report.outputs:
        note("the workflow has no output")
