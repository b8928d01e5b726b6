"""``validate``, ``graph``, ``explain``, ``schema``: looking at a workflow without running it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjoin.cli.options import Cluster, Json, Set, Target, open_runtime, settings_of
from adjoin.cli.terminal import note, print_json, print_table, write
from adjoin.errors import InputError

if TYPE_CHECKING:
    from adjoin.dag import Graph

_EXPLAIN_COLUMNS = (
    "stage",
    "function",
    "model or collection",
    "worker",
    "segment",
    "inputs",
    "predicted",
    "why",
)
_WHY_NOT_COLUMNS = ("term", "planned", "there", "more")


class Drawing(enum.StrEnum):
    MERMAID = "mermaid"
    SVG = "svg"
    YAML = "yaml"


def validate(workflow: Target, as_json: Json = False, set_: Set = None) -> None:
    """Check a workflow. Nothing is started and no model is needed."""
    graph = _load(workflow, set_)
    if as_json:
        print_json(_summary(graph) | {"valid": True})
        return
    stages = ", ".join(stage.id for stage in graph.stages)
    print(f"{workflow}: workflow {graph.name!r} is valid: {len(graph.stages)} stages ({stages})")
    print(f"version {graph.version}")


def graph(
    workflow: Target,
    as_: Annotated[Drawing | None, typer.Option("--format", "-f", help="How to draw it.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; its suffix says how to draw it.")
    ] = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Draw a workflow.

    As Mermaid text, SVG, or its canonical YAML.
    """
    loaded = _load(workflow, set_)
    if as_json:
        print_json(_summary(loaded))
        return
    text = _draw(loaded, as_ or _by_suffix(output))
    if output is None or str(output) == "-":
        write(text if text.endswith("\n") else f"{text}\n")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror or error}", where=str(output)
        ) from None
    note(f"wrote {output}")


def explain(
    workflow: Target,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="The plan as a Mermaid graph.")
    ] = False,
    svg: Annotated[bool, typer.Option("--svg", help="The plan as an SVG picture.")] = False,
    why_not: Annotated[
        str | None,
        typer.Option(metavar="WORKER", help="What it would cost on that worker instead."),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Of --why-not: one stage, not all.")
    ] = None,
    as_json: Json = False,
    cluster: Cluster = None,
    set_: Set = None,
) -> None:
    """Show the plan of a workflow.

    Where each stage would run, what carries its inputs, what that costs, and why. Starts a cluster.
    """
    settings = settings_of(set_)
    loaded = _load(workflow, set_)
    if stage is not None:
        if why_not is None:
            raise InputError("--stage is for --why-not", hint="give --why-not WORKER too")
        loaded.stage(stage)
    with open_runtime(cluster, settings) as runtime:
        plan = runtime.explain(loaded)
    if why_not is not None:
        other = plan.why_not(why_not, stage)
        if as_json:
            print_json(other.to_dict())
        else:
            print_table(_WHY_NOT_COLUMNS, other.rows(), right=_WHY_NOT_COLUMNS[1:])
            print(f"\n{other.verdict()}")
    elif as_json:
        print_json(plan.to_dict())
    elif svg:
        write(plan.to_svg())
    elif mermaid:
        write(plan.to_mermaid())
    else:
        found = plan.to_dict()
        rows = [_explained(each) for each in found["stages"]]
        print_table(_EXPLAIN_COLUMNS, rows)
        print(f"\n{found['seconds']:.3f} s by {' → '.join(found['critical'])}")


def schema(
    as_json: Annotated[bool, typer.Option("--json", help="It is JSON already.")] = True,
) -> None:
    """Print the JSON Schema of workflows.

    2020-12, for editors and other programs.
    """
    from importlib.resources import files

    write(files("adjoin").joinpath("workflow.schema.json").read_text(encoding="utf-8"))


def _load(target: str, set_: list[str] | None) -> Graph:
    from adjoin.loading import load_graph

    return load_graph(target, settings_of(set_))


def _by_suffix(output: Path | None) -> Drawing:
    suffix = "" if output is None else output.suffix.lower()
    return {".svg": Drawing.SVG, ".yaml": Drawing.YAML, ".yml": Drawing.YAML}.get(
        suffix, Drawing.MERMAID
    )


def _draw(graph: Graph, drawing: Drawing) -> str:
    match drawing:
        case Drawing.SVG:
            return graph.to_svg()
        case Drawing.YAML:
            return graph.to_yaml()
        case Drawing.MERMAID:
            return graph.to_mermaid()


def _summary(graph: Graph) -> dict[str, Any]:
    return {
        "workflow": graph.name,
        "version": graph.version,
        "inputs": [
            {"name": each.name, "type": str(each.type), "required": each.required}
            for each in graph.inputs
        ],
        "stages": [
            {
                "id": stage.id,
                "function": stage.function.ref,
                "model": stage.model,
                "collection": stage.collection,
                "after": sorted(graph.dependencies(stage.id)),
            }
            for stage in graph.stages
        ],
        "outputs": sorted(graph.outputs),
        "models": sorted(graph.model_names()),
        "collections": sorted(graph.collection_names()),
    }


def _explained(stage: dict[str, Any]) -> tuple[str, ...]:
    inputs = ", ".join(f"{source} ({how})" for source, how in stage["inputs"].items())
    state = stage["model"] or stage["collection"] or ""
    place = (stage["worker"], str(stage["segment"]))
    predicted = f"{sum(stage['seconds'].values()):.3f} s"
    return (stage["stage"], stage["function"], state, *place, inputs, predicted, stage["why"])
