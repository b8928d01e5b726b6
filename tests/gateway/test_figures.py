"""Engines' own figures put together, without a cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from adjoin.errors import TransportError
from adjoin.functions.engines.families import MAX_SAMPLES, Family, Sample, counter, families
from adjoin.runtime.gateway import figures
from adjoin.runtime.gateway.figures import families_of, merge
from adjoin.runtime.gateway.metrics import Metrics


class NoDeployments:
    def current(self) -> list[Any]:
        return []


def replica(name: str, told: tuple[Family, ...] | None, **more: Any) -> dict[str, Any]:
    own = {} if told is None else {"figures": msgspec.msgpack.encode(told)}
    known = {"id": name, "model": "m", "state": "ready", "running": 1, "queued": 0, "rss": 5}
    return known | {"totals": {}} | own | more


def exposed(hosts: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """By name and the values of host, replica and what: parsed as Prometheus does."""
    text = Metrics(NoDeployments()).text(hosts).decode()  # type: ignore[arg-type]
    return {
        (each.name, *(each.labels.get(of, "") for of in ("host", "replica", "what"))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_a_familys_replicas_are_told_apart_and_its_head_is_written_once() -> None:
    hosts = {
        host: {"replicas": [replica(f"{host}-1", (counter("vllm:tokens", "Some.", number),))]}
        for host, number in (("a", 3), ("b", 4))
    }
    found = exposed(hosts)
    assert found["vllm:tokens_total", "a", "a-1", ""] == 3
    assert found["vllm:tokens_total", "b", "b-1", ""] == 4
    text = Metrics(NoDeployments()).text(hosts).decode()  # type: ignore[arg-type]
    assert text.count("# TYPE vllm:tokens_total counter") == 1


def test_what_is_silent_is_left_out_and_counted() -> None:
    hosts = {
        "hung": None,
        "a": {
            "replicas": [
                replica("good", (counter("e:x", "", 1),)),
                replica("silent", None),
                replica("mad", None, figures=b"\xff no figures"),
                replica("coming", None, state="loading"),
            ]
        },
    }
    found = exposed(hosts)
    assert found["e:x_total", "a", "good", ""] == 1
    assert found["adjoin_metrics_left_out_total", "hung", "", "host"] == 1
    assert found["adjoin_metrics_left_out_total", "a", "", "replica"] == 2
    assert found["adjoin_engine_running", "a", "silent", ""] == 1


@pytest.mark.parametrize(
    "family",
    [
        counter("adjoin_runs", "One of ours.", 1),
        counter("e:x\n1", "A name over two lines.", 1),
        Family("e:x", "fancy", "No such type.", ()),
        Family("e:x", "gauge", "Another's sample.", (Sample("adjoin_runs_total", {}, 1.0),)),
        Family("e:x", "gauge", "Too many.", (Sample("e:x", {}, 1.0),) * (MAX_SAMPLES + 1)),
    ],
)
def test_an_engine_cannot_say_what_is_not_its_own(family: Family) -> None:
    metrics = merge([(("h", "m", "r"), (family,))])
    assert [sample for metric in metrics for sample in metric.samples] == []


def test_labels_of_the_place_are_ours() -> None:
    labels = {"host": "there", "engine": "0", "no label": "x"}
    (metric,) = merge(
        [(("h", "m", "r"), (Family("e:x", "gauge", "", (Sample("e:x", labels, 1),)),))]
    )
    (sample,) = metric.samples
    assert sample.labels == {
        "host": "h", "model": "m", "replica": "r", "exported_host": "there", "engine": "0",
    }  # fmt: skip


def test_types_that_differ_are_those_of_the_first() -> None:
    gauge = Family("e:x", "gauge", "", (Sample("e:x", {}, 1.0),))
    (metric,) = merge([(("h", "m", "1"), (gauge,)), (("h", "m", "2"), (counter("e:x", "", 2),))])
    assert (metric.type, [sample.value for sample in metric.samples]) == ("gauge", [1.0])


def test_a_registry_is_read_by_prefix_without_when_its_counters_were_made() -> None:
    registry = CollectorRegistry()
    Counter("e:x", "Good.", ["model_name"], registry=registry).labels("m").inc(2)
    Histogram("e:s", "Seconds.", buckets=(1.0,), registry=registry).observe(0.5)
    Counter("other", "Bad.", registry=registry).inc()
    read = families(registry.collect(), "e:")
    assert read[0] == Family(
        "e:x", "counter", "Good.", (Sample("e:x_total", {"model_name": "m"}, 2),)
    )
    assert [(each.name, each.value) for each in read[1].samples] == [
        ("e:s_bucket", 1), ("e:s_bucket", 1), ("e:s_count", 1), ("e:s_sum", 0.5),
    ]  # fmt: skip
    assert len(read) == 2
    assert families_of(replica("r", read)) == read


class Stuck:
    """A cluster of three hosts: one answers, one never does, one fails."""

    topology = SimpleNamespace(
        workers=[SimpleNamespace(host=host, name=f"{host}-0") for host in ("good", "hung", "lost")]
    )

    async def call(self, worker: str, request: Any) -> Any:
        assert request.figures
        if worker == "hung-0":
            await asyncio.Event().wait()
        if worker == "lost-0":
            raise TransportError("gone")
        return {"replicas": []}


async def test_a_host_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_PATIENCE_S", 0.01)
    told = await figures.ask_hosts(Stuck())  # type: ignore[arg-type]
    assert told == {"good": {"replicas": []}, "hung": None, "lost": None}
