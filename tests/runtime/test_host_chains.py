"""Samples, scores and thoughts through a host and its replicas, as real processes."""

from __future__ import annotations

import pytest
from host_fixtures import Observed, fake, nothing

from adjoin.errors import InputError
from adjoin.runtime.host_link import HostLink
from adjoin.types import Generation, Message, Sampling, Token, Used


async def test_samples_are_one_answer_and_one_usage(link: HostLink) -> None:
    seen = Observed()
    model = link.model("samples", fake(max_num_seqs=2), observe=seen.append)
    sampling = Sampling(n=5, temperature=1.0, seed=1)
    items = [item async for item in model.generate("one two three", sampling)]
    ends = [item for item in items if isinstance(item, Generation)]
    assert [end.choice for end in ends] == [0, 1, 2, 3, 4]
    for end in ends:
        own = [t.text for t in items if isinstance(t, Token) and t.choice == end.choice]
        assert "".join(own) == end.text
    (used,) = seen.of(Used)
    assert used.usage.generated == 15


async def test_scores_come_back_in_order_also_from_many_pieces(link: HostLink) -> None:
    seen = Observed()
    model = link.model("scores", fake(), observe=seen.append)
    texts = ["about tax"] * 150
    texts[100] = "rain falls"
    scores = await model.score("rain falls", texts)
    assert len(scores) == 150
    assert max(range(150), key=scores.__getitem__) == 100
    assert await model.score("rain", []) == []
    assert seen.of(Used)[0].usage.embedded == 300


async def test_a_model_says_what_it_can(link: HostLink) -> None:
    model = link.model("can", fake(), observe=nothing)
    assert await model.capabilities() == {"embed", "generate", "score"}
    with pytest.raises(InputError, match="cannot hold an answer to a schema"):
        _ = [item async for item in model.generate("x", Sampling(), schema={"type": "string"})]


async def test_thoughts_are_kept_apart_and_tools_and_turns_travel(link: HostLink) -> None:
    model = link.model("thinks", fake(answer="<think>well so</think> yes it is"), observe=nothing)
    tool = {"type": "function", "function": {"name": "now"}}
    turns = [Message("system", "be kind"), Message("user", "is it")]
    items = [item async for item in model.generate(turns, Sampling(), tools=[tool])]
    *tokens, end = items
    assert isinstance(end, Generation)
    assert (end.text, end.reasoning) == ("yes it is", "well so")
    thoughts = [t.text for t in tokens if isinstance(t, Token) and t.reasoning]
    assert "".join(thoughts) == "well so"
