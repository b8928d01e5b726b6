"""``deploy``, ``invoke``, ``ps``, ``logs``, ``usage``: a running service, from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from adjoin.cli.client import Remote, Url
from adjoin.cli.options import Json, Set, Target, settings_of, split_pair
from adjoin.cli.terminal import Activity, note, print_json, print_table, shorten, write
from adjoin.errors import AdjoinError, InputError, from_wire
from adjoin.types import Passage

Name = Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")]
_WORKFLOWS = "/api/v1/workflows"
_RUNS = "/api/v1/runs"
_KINDS = ("prompt", "cached", "generated", "embedded")


def deploy(workflow: Target, url: Url = None, as_json: Json = False, set_: Set = None) -> None:
    """Have a service take this workflow for new runs; the same one again changes nothing.

    It is checked here first and sent as one text with its templates; functions of your own have to
    be importable there, from a module in the service's allowed_modules.
    """
    from adjoin.loading import load_graph

    graph = load_graph(workflow, settings_of(set_))
    with Remote(url) as remote:
        answer = remote.call("PUT", f"{_WORKFLOWS}/{graph.name}", content=graph.to_yaml())
    if as_json:
        print_json(answer)
    elif answer["changed"]:
        note(f"deployed {graph.name}, revision {answer['revision']}")
    else:
        note(f"{graph.name} is deployed already, as revision {answer['revision']}")


def invoke(
    name: Name,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Inputs of the workflow.")
    ] = None,
    background: Annotated[
        bool, typer.Option("--async", help="Print the run's id and leave it running.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds until the run is cut off.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Run a workflow of a service. Tokens of the answer are printed as they come."""
    with Remote(url) as remote:
        about = remote.call("GET", f"{_WORKFLOWS}/{name}")
        options: dict[str, Any] = {
            "json": values_of(about["inputs"]["properties"], inputs or ()),
            "params": {} if timeout is None else {"timeout": timeout},
        }
        path = f"{_WORKFLOWS}/{name}/invoke"
        if background:
            run = remote.call("POST", path, headers={"Prefer": "respond-async"}, **options)
            print_json(run) if as_json else print(run["id"])
        elif as_json:
            print_json(remote.call("POST", path, **options))
        else:
            _show(remote.events("POST", path, **options), frozenset(about["answers"]))


def ps(url: Url = None, as_json: Json = False) -> None:
    """What is deployed on a service, and its newest runs."""
    with Remote(url) as remote:
        found = remote.call("GET", _WORKFLOWS) | remote.call("GET", f"{_RUNS}?limit=20")
    if as_json:
        print_json(found)
        return
    if not found["workflows"]:
        note("nothing is deployed; adjoin deploy WORKFLOW does")
        return
    numbers = ("revision", "running", "waiting")
    print_table(
        ("workflow", *numbers, "state", "version"),
        [
            (
                each["name"],
                *(str(each[key]) for key in numbers),
                each["state"],
                each["version"][:12],
            )
            for each in found["workflows"]
        ],
        right=numbers,
    )
    if found["runs"]:
        print()
        print_table(
            ("run", "workflow", "state", "began", "seconds"),
            [_run_row(each) for each in found["runs"]],
            right=("seconds",),
        )


def logs(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """The events of a run, from the first; of one that goes on, as they come."""
    with Remote(url) as remote:
        for event in remote.events("GET", f"{_RUNS}/{run}/events"):
            if as_json:
                print(json.dumps(event, ensure_ascii=False), flush=True)
            else:
                print(event_line(event), flush=True)


def usage(
    by: Annotated[
        str,
        typer.Option(help="tenant, workflow, version, stage, model, day: any, with commas."),
    ] = "workflow",
    since: Annotated[datetime | None, typer.Option(help="From this time on (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this time (UTC).")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Of all tenants (scope admin).")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """What the workflows of a service have used, what of it is billed, and what it comes to."""
    query: dict[str, Any] = {"by": by, "everyone": everyone}
    for name, when in (("since", since), ("until", until)):
        if when is not None:
            query[name] = when.replace(tzinfo=UTC).timestamp()
    with Remote(url) as remote:
        if as_csv:
            print(remote.text("GET", "/api/v1/usage", params=query, kind="text/csv"), end="")
            return
        lines = remote.call("GET", "/api/v1/usage", params=query)["usage"]
    if as_json:
        print_json(lines)
        return
    keys = tuple(dict.fromkeys(key for key in by.split(",") if key))
    columns = (*keys, *_KINDS, "wasted", "open", "engine s", "revenue", "margin")
    rows = [(*(_key(key, line[key]) for key in keys), *_sums(line)) for line in lines]
    print_table(columns, rows, right=columns[len(keys) :])


def _key(key: str, value: Any) -> str:
    if key == "day":
        return datetime.fromtimestamp(value * 86_400, UTC).date().isoformat()
    return str(value)[:12] if key == "version" else str(value)


def _sums(line: Mapping[str, Any]) -> tuple[str, ...]:
    """Of prompts, cached tokens are a part; wasted and open count all tokens."""
    tokens = [f"{line['billed'][kind]:,}" for kind in _KINDS]
    others = [
        f"{sum(line[kind][each] for each in ('prompt', 'generated', 'embedded')):,}"
        for kind in ("wasted", "open")
    ]
    money = (f"{line[kind]:.6g}" for kind in ("revenue", "margin"))
    return (*tokens, *others, f"{line['billed']['seconds']:.3f}", *money)


def values_of(properties: Mapping[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Values of ``key=value`` texts, by the JSON Schema of a workflow's inputs; the service checks
    them in full.

    Raises:
        InputError: one is unknown, given twice, or should be JSON and is not.
    """
    from adjoin.dag.names import suggest

    found: dict[str, Any] = {}
    for pair in pairs:
        key, text = split_pair(pair, "an input")
        if key not in properties:
            raise InputError(f"there is no input {key!r}", hint=suggest(key, properties))
        if key in found:
            raise InputError(f"input {key!r} is given twice")
        if properties[key].get("type") == "string":
            found[key] = text
            continue
        try:
            found[key] = json.loads(text)
        except ValueError:
            raise InputError(f"input {key!r} is not JSON: {text[:60]!r}") from None
    return found


def event_line(event: Mapping[str, Any]) -> str:
    """An event for people: when, where, what, and what is said with it."""
    body = dict(event["body"])
    kind = body.pop("type")
    if kind == "Tokens":
        said = repr("".join(token["text"] for token in body["tokens"]))
    else:
        said = " ".join(f"{key}={json.dumps(value)}" for key, value in body.items())
    return f"{event['at']:9.3f}  {event['stage'] or '-':<16} {kind:<14} {shorten(said, 200)}"


def _show(events: Iterable[Mapping[str, Any]], answers: frozenset[str]) -> None:
    """The answer while it is written, then what of the outputs is not on the screen yet."""
    said = ""
    with Activity("waiting") as activity:
        for event in events:
            body = event["body"]
            match body["type"]:
                case "Tokens" if event["stage"] in answers and len(answers) == 1:
                    tokens = (t for t in body["tokens"] if not (t["choice"] or t["reasoning"]))
                    text = "".join(token["text"] for token in tokens)
                    activity.hide()
                    write(text if said else text.lstrip())
                    said += text
                case "StageStarted" if not said:
                    activity.say(event["stage"])
                case "RunCompleted":
                    activity.hide()
                    _print_outputs(body["outputs"], said.strip())
                case "RunFailed":
                    raise _ended(said, from_wire(body["error"]))
                case "RunCancelled":
                    raise _ended(said, from_wire({"code": "cancelled", "message": body["reason"]}))


def _ended(said: str, error: AdjoinError) -> AdjoinError:
    if said:
        write("\n")
    return error


def _print_outputs(outputs: Mapping[str, Any], said: str) -> None:
    from adjoin.cli.report import texts_and_passages
    from adjoin.cli.run import print_sources

    outputs, passages = texts_and_passages({k: _passages(v) for k, v in outputs.items()})
    for name, value in outputs.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if said and text.strip().startswith(said):
            write(f"{text.strip()[len(said) :]}\n")  # what a function after the model added
        else:
            write(f"{name}: {text}\n" if len(outputs) > 1 else f"{text}\n")
    print_sources(passages)


def _passages(value: Any) -> Any:
    """Passages, where JSON has them; anything else as it is."""
    import msgspec

    try:
        found = msgspec.convert(value, list[_Passage])
    except msgspec.ValidationError:
        return value
    return [msgspec.convert(msgspec.to_builtins(each), Passage) for each in found]


class _Passage(Passage, frozen=True, forbid_unknown_fields=True):
    """What an object of JSON must be to be shown as a passage."""


def _run_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["created"]))
    seconds = f"{run['seconds']:.3f}" if "seconds" in run else ""
    return (run["id"], run["workflow"], run["state"], began, seconds)
