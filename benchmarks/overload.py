"""What does `adjoin serve` do when more comes than it can answer?

Requests come whether or not earlier ones were answered (an open loop, at random intervals), from
another process than the service's. First the most that it answers a second is found; then come a
normal load, three times that most for a while, and a normal load again. Then, of two tenants on one
model, one sends its share and then ten times its share, in turns, while the other goes on as
before.

    python -m benchmarks.overload [--seconds 60] [--model NAME] [--part load|tenants] [--json FILE]

The model is a scripted stand-in unless one is named: what is measured is the queue and the door,
and they have to hold for any model. How long accepted requests took is what the service says of
each run (`waited` and `seconds` of its answer); how long refusals took is seen from the client and
in the service's own histogram.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from adjoin.runtime.database import open_file, state_path
from adjoin.runtime.gateway.keys import KeyStore
from adjoin.settings import Settings
from benchmarks.open_loop import Load, Sent, capacity, offer, percentile
from benchmarks.report import arguments, report
from benchmarks.servers import free_port, serving

#: A part of what the service can do that is called a normal load.
NORMAL = 0.7
OVERLOAD = 3.0
GREEDY = 10.0
REPEATS = 5
AFTER_S = 8.0
#: Slower than this, in multiples of the 99th percentile of a normal load, is not normal.
SLOW = 1.1
#: Answers have from 8 to 32 tokens.
TOKENS = range(8, 33)
WORKFLOW = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {{name: say}}
spec:
  inputs: {{question: {{type: string}}, max_tokens: {{type: integer}}}}
  models:
    it: {model}
  stages:
    answer:
      uses: generate
      with: {{prompt: "${{inputs.question}}", model: it, max_tokens: "${{inputs.max_tokens}}"}}
  outputs: {{answer: "${{answer}}"}}
"""
SCRIPTED = '{source: "fake:", args: {words: 100, first_token_s: 0.1, interval_s: 0.03}}'


@dataclass(frozen=True)
class Service:
    """A running service, and a client of it for each tenant."""

    base: str
    clients: dict[str, aiohttp.ClientSession]

    def load(self, tenant: str, rate: float, seconds: float) -> Load:
        url = f"{self.base}/api/v1/workflows/say/invoke"
        return Load(self.clients[tenant], url, rate, seconds, TOKENS)

    async def metrics(self) -> str:
        async with self.clients["a"].get(f"{self.base}/metrics") as answer:
            return await answer.text()


@contextlib.asynccontextmanager
async def started(model: str) -> AsyncIterator[Service]:
    """A service of its own home, with the workflow deployed for two tenants."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="adjoin-overload-") as home:
        known = Path(Settings.load().home) / "models"
        if known.exists():
            (Path(home) / "models").symlink_to(known)
        state = open_file(state_path(Settings(home=Path(home))))
        keys = KeyStore(state)
        texts = {t: keys.create(t, ("invoke", "deploy", "observe"))[1] for t in ("a", "b")}
        state.close()
        environment = {"ADJOIN_HOME": home, "ADJOIN_ALLOWED_MODELS": '["*"]'}
        command = [sys.executable, "-m", "adjoin.cli", "serve", "--port", str(port)]
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(serving(command, f"{base}/readyz", environment))
            clients = {}
            for tenant, key in texts.items():
                connector = aiohttp.TCPConnector(limit=0)
                headers = {"Authorization": f"Bearer {key}"}
                session = aiohttp.ClientSession(connector=connector, headers=headers)
                clients[tenant] = await stack.enter_async_context(session)
                text = WORKFLOW.format(model=model)
                place = f"{base}/api/v1/workflows/say"
                async with clients[tenant].put(place, data=text) as answer:
                    if answer.status != 201:
                        raise RuntimeError(await answer.text())
            yield Service(base, clients)


async def measure_load(service: Service, most: float, seconds: float) -> dict[str, float]:
    """Normal load, three times the most, and normal load again."""
    normal = await offer(service.load("a", NORMAL * most, seconds / 2))
    over = await offer(service.load("a", OVERLOAD * most, seconds))
    after = await offer(service.load("a", NORMAL * most, AFTER_S))
    # What was under way when it began and ended belongs to neither.
    edge = max(percentile(_totals(normal), 99), 1.0)
    counted = [s for s in over if s.ok and edge <= s.ended <= seconds]
    goodput = len(counted) / (seconds - edge)
    refused = [s.taken for s in over if not s.ok]
    usual = percentile(_totals(normal), 99)
    # One in a hundred is slower than the 99th percentile also when all is normal.
    late = [s.ended for s in after if not s.ok or (s.total or 0) > SLOW * usual]
    return {
        "capacity_rps": most,
        "normal_p50_s": percentile(_totals(normal), 50),
        "normal_p99_s": usual,
        "normal_refused": sum(not s.ok for s in normal) / len(normal),
        "over_offered_rps": len(over) / seconds,
        "over_goodput_of_peak": goodput / most,
        "over_p50_s": percentile(_totals(over), 50),
        "over_p99_s": percentile(_totals(over), 99),
        "over_p99_of_normal": percentile(_totals(over), 99) / usual,
        "refused": len(refused) / len(over),
        "refused_p50_ms": percentile(refused, 50) * 1e3,
        "refused_p99_ms": percentile(refused, 99) * 1e3,
        "refused_in_50_ms": _within(await service.metrics(), "0.05"),
        "other_failures": sum(s.status not in (200, 503) for s in [*normal, *over, *after]),
        "normal_again_s": max(late, default=0.0),
        "after_p99_s": percentile(_totals([s for s in after if s.began > 5]), 99),
    }


async def measure_tenants(
    service: Service, most: float, seconds: float, repeats: int
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """What b sees while a sends its share, and ten times its share: medians of several turns."""
    share = most / 2
    rows = []
    for turn in range(repeats):
        row: dict[str, float] = {}
        for name, times in (("share", 1.0), ("greedy", GREEDY)):
            loads = (
                service.load("b", share / 2, seconds),
                service.load("a", share * times, seconds),
            )
            small, large = await asyncio.gather(
                *(offer(load, seed=2 * turn + at) for at, load in enumerate(loads))
            )
            row |= {
                f"b_p50_s_{name}": percentile(_totals(small), 50),
                f"b_p95_s_{name}": percentile(_totals(small), 95),
                f"b_refused_{name}": sum(not s.ok for s in small) / len(small),
                f"a_answered_rps_{name}": sum(s.ok for s in large) / seconds,
            }
            await asyncio.sleep(1)  # what is under way ends
        rows.append(row)
    medians = {key: percentile([row[key] for row in rows], 50) for key in rows[0]}
    return medians | {
        "b_p95_raised_by": medians["b_p95_s_greedy"] / medians["b_p95_s_share"] - 1
    }, rows


def _totals(sent: Sequence[Sent]) -> list[float]:
    return [s.total for s in sent if s.total is not None]


def _within(metrics: str, bucket: str) -> float:
    """The part of the refusals whose answer began in so many seconds, as the service counted."""
    counts = {"all": 0.0, "within": 0.0}
    for line in metrics.splitlines():
        if line.startswith("adjoin_http_seconds_bucket") and 'status="503"' in line:
            counts["all"] += float(line.split()[-1]) if 'le="+Inf"' in line else 0.0
            counts["within"] += float(line.split()[-1]) if f'le="{bucket}"' in line else 0.0
    return counts["within"] / counts["all"] if counts["all"] else 1.0


async def measure(options: Any) -> tuple[dict[str, float], list[dict[str, float]]]:
    model = SCRIPTED if options.model is None else f'{{source: "{options.model}"}}'
    seconds = options.seconds or (10.0 if options.quick else 60.0)
    figures: dict[str, float] = {}
    rows: list[dict[str, float]] = []
    async with started(model) as service:
        most = await capacity(service.load("a", 0.0, 4.0 if options.quick else 15.0), clients=40)
        print(f"capacity: {most:.1f} requests a second", file=sys.stderr)
        if options.part in (None, "load"):
            figures |= await measure_load(service, most, seconds)
        if options.part in (None, "tenants"):
            turns = (1, 6.0) if options.quick else (REPEATS, seconds / 6)
            found, rows = await measure_tenants(service, most, turns[1], turns[0])
            figures |= {"capacity_rps": most, **found}
    return figures, rows


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--seconds", type=float, help="how long there is too much")
    parser.add_argument("--model", help="a model of the store instead of the scripted one")
    parser.add_argument("--part", choices=("load", "tenants"), help="only one of the two questions")
    options = parser.parse_args()
    figures, rows = asyncio.run(measure(options))
    report("overload", figures, None, options.json, rows=rows)


if __name__ == "__main__":
    main()
