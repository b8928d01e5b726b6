"""Haystack: four components in one pipeline, in one process. It copies what passes between them."""

from __future__ import annotations

from typing import Any

from haystack import Pipeline, component
from payloads import is_quick, payload, tell, timed


@component
class Make:
    @component.output_types(value=Any)
    def run(self, kind: str) -> dict[str, Any]:
        return {"value": payload(kind)}


@component
class Same:
    @component.output_types(value=Any)
    def run(self, value: Any) -> dict[str, Any]:
        return {"value": value}


@component
class Size:
    @component.output_types(value=int)
    def run(self, value: Any) -> dict[str, Any]:
        return {"value": len(value)}


def main() -> None:
    pipeline = Pipeline()
    pipeline.add_component("make", Make())
    pipeline.add_component("second", Same())
    pipeline.add_component("third", Same())
    pipeline.add_component("size", Size())
    pipeline.connect("make.value", "second.value")
    pipeline.connect("second.value", "third.value")
    pipeline.connect("third.value", "size.value")
    found = timed(lambda kind: pipeline.run({"make": {"kind": kind}}), quick=is_quick())
    tell(found, "haystack-ai", {"pipeline": "Pipeline", "process": "the caller's"})


if __name__ == "__main__":
    main()
