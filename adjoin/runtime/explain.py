"""A plan made readable."""

from __future__ import annotations

from typing import Any

from adjoin.dag import Graph
from adjoin.runtime.policies.placement import Plan, Topology


class Explanation:
    """Where each stage of a graph runs, what carries its inputs, and why it runs there."""

    def __init__(self, graph: Graph, plan: Plan, topology: Topology) -> None:
        self.graph = graph
        self.plan = plan
        self.topology = topology

    def to_dict(self) -> dict[str, Any]:
        """Plain data: stages with worker, segment, model, inputs by transport, and reason."""
        segment_of = {
            stage: number
            for number, segment in enumerate(self.plan.segments)
            for stage in segment.stages
        }
        return {
            "workflow": self.graph.name,
            "version": self.graph.version,
            "epoch": self.plan.epoch,
            "workers": {worker.name: worker.address for worker in self.topology.workers},
            "stages": [
                {
                    "stage": stage.id,
                    "function": stage.function.name,
                    "worker": self.plan.placement[stage.id],
                    "segment": segment_of[stage.id],
                    "model": stage.model,
                    "collection": stage.collection,
                    "inputs": {
                        edge.source: edge.transport
                        for edge in self.plan.edges
                        if edge.target == stage.id
                    },
                    "why": self.plan.reasons[stage.id],
                }
                for stage in self.graph.stages
            ],
        }

    def to_mermaid(self) -> str:
        """The graph with one box a segment and the transport on each edge."""
        lines = ["flowchart LR"]
        for number, segment in enumerate(self.plan.segments):
            lines.append(f'  subgraph segment{number}["{segment.worker}"]')
            for name in segment.stages:
                model = self.graph.stage(name).model
                label = f"{name}<br/>{model}" if model else name
                lines.append(f'    {name}["{label}"]')
            lines.append("  end")
        lines += [
            f"  {edge.source} -->|{edge.transport}| {edge.target}" for edge in self.plan.edges
        ]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        """A table: stage, function, worker, segment, inputs, state, why."""
        rows = [("stage", "function", "worker", "segment", "inputs", "state", "why")]
        for stage in self.to_dict()["stages"]:
            state = [
                *([f"model {stage['model']}"] if stage["model"] else []),
                *([f"collection {stage['collection']}"] if stage["collection"] else []),
            ]
            inputs = [f"{source} ({how})" for source, how in stage["inputs"].items()]
            rows.append(
                (
                    stage["stage"],
                    stage["function"],
                    stage["worker"],
                    str(stage["segment"]),
                    ", ".join(inputs) or "-",
                    ", ".join(state) or "-",
                    stage["why"],
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )
