"""Do all answers fit their schema, and what does that cost?

A workflow asks a small model for a JSON object with nested objects, enums, a list and a number,
many times at temperature 1. Each answer is validated here once more, with jsonschema itself, not
with what ``generate`` has. Beside it the same prompt without the schema, 20 times at most: how many
of those answers are nothing but an object that fits.

    python -m benchmarks.structured [--count 100]
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from jsonschema import Draft202012Validator

import adjoin
from adjoin import functions as fn
from benchmarks.report import arguments, report

MODEL = adjoin.ModelSpec("smollm2-135m", args={"max_model_len": 2048})
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 40},
        "kind": {"enum": ["question", "complaint", "order", "praise"]},
        "sender": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 24},
                "mood": {"enum": ["calm", "happy", "angry"]},
                "address": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "minLength": 1, "maxLength": 24},
                        "continent": {"enum": ["Africa", "America", "Asia", "Europe", "Oceania"]},
                    },
                    "required": ["city", "continent"],
                    "additionalProperties": False,
                },
            },
            "required": ["name", "mood", "address"],
            "additionalProperties": False,
        },
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 24},
                    "count": {"type": "integer", "minimum": 1, "maximum": 99},
                    "state": {"enum": ["new", "used", "broken"]},
                },
                "required": ["name", "count", "state"],
                "additionalProperties": False,
            },
            "minItems": 1,
            "maxItems": 2,
        },
    },
    "required": ["title", "kind", "sender", "items"],
    "additionalProperties": False,
}
GOODS = (
    "lamp",
    "kettle",
    "bicycle",
    "chair",
    "radio",
    "tent",
    "clock",
    "guitar",
    "mirror",
    "drill",
)
PLACES = ("Lagos", "Lima", "Osaka", "Turin", "Perth", "Quito", "Cairo", "Oslo", "Delhi", "Boston")
PROMPT = """Write down this letter as a JSON object with its title, kind, sender and items.

Hello, I am {{ name }} from {{ place }}. I bought a {{ thing }} from you, and it is broken."""


@adjoin.workflow(models={"small": MODEL})
def structured(name: str, place: str, thing: str, seed: int):  # type: ignore[no-untyped-def]
    prompt = fn.prompt(PROMPT, name=name, place=place, thing=thing)
    return fn.generate(
        prompt, model="small", schema=SCHEMA, temperature=1.0, seed=seed, max_tokens=400
    )


@adjoin.workflow(models={"small": MODEL})
def in_words(name: str, place: str, thing: str, seed: int):  # type: ignore[no-untyped-def]
    prompt = fn.prompt(PROMPT, name=name, place=place, thing=thing)
    return fn.generate(prompt, model="small", temperature=1.0, seed=seed, max_tokens=400)


def inputs(count: int) -> Iterable[dict[str, Any]]:
    for at in range(count):
        place, thing = PLACES[at % 10], GOODS[at // 10 % 10]
        yield {"name": f"Person {at}", "place": place, "thing": thing, "seed": at}


def valid(value: Any) -> bool:
    return bool(Draft202012Validator(SCHEMA).is_valid(value))


def read(text: Any) -> Any:
    """What an answer in words is, when it is nothing but JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def measured(
    runtime: adjoin.Runtime, workflow: Any, count: int, value_of: Callable[[Any], Any]
) -> dict[str, Any]:
    began = time.perf_counter()
    found = list(runtime.map(workflow, inputs(count)))
    seconds = time.perf_counter() - began
    errors = [each for each in found if isinstance(each, adjoin.AdjoinError)]
    for error in errors[:3]:
        print(f"error: {error}")
    values = [value_of(each) for each in found if not isinstance(each, adjoin.AdjoinError)]
    lengths = [len(json.dumps(value)) for value in values if valid(value)]
    return {
        "asked": count,
        "valid": len(lengths),
        "errors": len(errors),
        "different": len({json.dumps(value, sort_keys=True) for value in values}),
        "median_characters": statistics.median(lengths) if lengths else None,
        "seconds": seconds,
    }


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    count = min(10, options.count) if options.quick else options.count
    Draft202012Validator.check_schema(SCHEMA)
    with adjoin.Runtime() as runtime:
        runtime.run(in_words, **next(iter(inputs(1))))  # the model is loaded
        held = measured(runtime, structured, count, lambda value: value)
        free = measured(runtime, in_words, min(20, count), read)
    report(f"{count} answers that a schema holds", held, {"in words only": free}, options.json)
    if held["valid"] != count:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
