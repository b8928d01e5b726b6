"""Search, change and bounds of a collection in memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adjoin.errors import Conflict, InputError, NotFound
from adjoin.types import Passage, Vector
from adjoin.vector_state.collections import Collection

D = 4


def collection(root: Path, name: str = "c") -> Collection:
    return Collection.create(root, name, embedding="minilm")


def passages(*ids: str, source: str = "s") -> list[Passage]:
    return [Passage(id=id, text=f"text of {id}", source=source) for id in ids]


def axis(*where: int) -> Vector:
    return np.eye(D, dtype=np.float32)[list(where)]


def test_search_gives_cosines_best_first(tmp_path: Path) -> None:
    c = collection(tmp_path)
    c.upsert(passages("a", "b"), np.array([[2, 0, 0, 0], [3, 3, 0, 0]], np.float32))
    found = c.search(np.array([5, 0, 0, 0], np.float32), 2)
    assert [p.id for p in found] == ["a", "b"]
    assert found[0].score == pytest.approx(1.0)
    assert found[1].score == pytest.approx(2**-0.5)
    assert found[1].text == "text of b"


def test_k_beyond_the_collection_gives_all(tmp_path: Path) -> None:
    c = collection(tmp_path)
    c.upsert(passages("a", "b"), axis(0, 1))
    assert len(c.search(axis(0)[0], 1000)) == 2


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(tmp_path: Path, k: int) -> None:
    with pytest.raises(InputError, match=f"k is {k}"):
        collection(tmp_path).search(axis(0)[0], k)


def test_an_empty_collection_finds_nothing(tmp_path: Path) -> None:
    assert collection(tmp_path).search(axis(0)[0], 3) == []


def test_another_dimension_is_named(tmp_path: Path) -> None:
    c = collection(tmp_path)
    c.upsert(passages("a"), axis(0))
    with pytest.raises(InputError, match=r"3 dimensions.* has 4.*minilm"):
        c.search(np.ones(3, np.float32), 1)
    with pytest.raises(InputError, match="3 dimensions"):
        c.upsert(passages("b"), np.ones((1, 3), np.float32))
    assert len(c) == 1


@pytest.mark.parametrize("bad", [np.zeros(D), np.full(D, np.nan), np.full(D, np.inf)])
def test_a_vector_without_direction_is_refused(tmp_path: Path, bad: Vector) -> None:
    c = collection(tmp_path)
    c.upsert(passages("a"), axis(0))
    with pytest.raises(InputError, match="zero or not finite"):
        c.search(bad.astype(np.float32), 1)
    with pytest.raises(InputError, match="zero or not finite"):
        c.upsert(passages("b"), bad.astype(np.float32)[None])
    assert c.get("b") is None


def test_shapes_must_agree(tmp_path: Path) -> None:
    c = collection(tmp_path)
    with pytest.raises(InputError, match=r"2 passages with vectors of shape \[1, 4\]"):
        c.upsert(passages("a", "b"), axis(0))
    with pytest.raises(InputError, match="one vector"):
        c.search(axis(0, 1), 1)


def test_upsert_replaces_and_the_last_of_a_batch_wins(tmp_path: Path) -> None:
    c = collection(tmp_path)
    c.upsert(passages("a", "b"), axis(0, 1))
    c.upsert([*passages("a"), Passage(id="a", text="new")], axis(1, 2))
    assert len(c) == 2
    assert c.get("a") == Passage(id="a", text="new")
    assert c.search(axis(2)[0], 1)[0].id == "a"


def test_delete_by_id_and_by_source(tmp_path: Path) -> None:
    c = collection(tmp_path)
    c.upsert(passages("a", "b", source="x"), axis(0, 1), {"x": "1"})
    c.upsert(passages("c", source="y"), axis(2), {"y": "2"})
    assert c.delete(["a", "absent"]) == 1
    assert c.delete_sources(["x", "absent"]) == 1
    assert c.sources() == {"y": "2"}
    assert [p.id for p in c.search(axis(1)[0], 9)] == ["c"]
    assert c.info.passages == 1
    assert c.info.sources == 1


def test_equal_scores_are_ordered_by_id_across_the_cut(tmp_path: Path) -> None:
    ids = [f"{i:03}" for i in range(200)]
    shuffled = list(np.random.default_rng(0).permutation(ids))
    vector = np.random.default_rng(1).standard_normal((1, 96)).astype(np.float32)
    c = collection(tmp_path)
    c.upsert(passages(*shuffled), np.repeat(vector, 200, axis=0))
    for k in (1, 5, 17, 199):
        assert [p.id for p in c.search(vector[0], k)] == ids[:k]


def test_create_twice_and_open_nothing(tmp_path: Path) -> None:
    collection(tmp_path)
    with pytest.raises(Conflict):
        collection(tmp_path)
    with pytest.raises(NotFound, match="there are: c"):
        Collection.open(tmp_path, "d")


def test_readers_see_whole_batches_while_one_writes(tmp_path: Path) -> None:
    c = collection(tmp_path)
    c.upsert(passages("a0", "b0"), axis(0, 0))
    stop = threading.Event()
    torn: list[list[str]] = []

    def read() -> None:
        while not stop.is_set():
            ids = [p.id for p in c.search(axis(0)[0], 2)]
            if len(ids) != 2 or ids[0][1:] != ids[1][1:]:
                torn.append(ids)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for turn in range(1, 200):
        fresh = [Passage(id="a0", text=str(turn)), Passage(id="b0", text=str(turn))]
        c.upsert(fresh, axis(0, 0))
    stop.set()
    for reader in readers:
        reader.join()
    assert not torn


# --- against a dict and numpy ---------------------------------------------------------------------

ids = st.sampled_from([f"p{i}" for i in range(12)])
sources = st.sampled_from(["x", "y", "z"])
grid = st.lists(st.integers(-2, 2), min_size=D, max_size=D).filter(any)
added = st.lists(st.tuples(ids, sources, grid), min_size=1, max_size=6)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), added),
        st.tuples(st.just("delete"), st.lists(ids, max_size=4)),
        st.tuples(st.just("forget"), st.lists(sources, max_size=2)),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, query=grid, k=st.integers(1, 15))
def test_behaves_as_a_dict_with_exact_search(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], query: list[int], k: int
) -> None:
    root = tmp_path_factory.mktemp("oracle")
    c = collection(root)
    oracle: dict[str, tuple[str, list[int]]] = {}
    for action, argument in steps:
        if action == "upsert":
            batch = [Passage(id=id, text=id, source=source) for id, source, _ in argument]
            c.upsert(batch, np.array([vector for *_, vector in argument], np.float32))
            oracle.update({id: (source, vector) for id, source, vector in argument})
        elif action == "delete":
            gone = [id for id in set(argument) if oracle.pop(id, None)]
            assert c.delete(argument) == len(gone)
        elif action == "forget":
            left = {id: item for id, item in oracle.items() if item[0] not in argument}
            assert c.delete_sources(argument) == len(oracle) - len(left)
            oracle = left
        else:
            c.save()
            c = Collection.open(root, "c")
    found = c.search(np.array(query, np.float32), k)
    q = np.array(query) / np.linalg.norm(query)
    cosines = {
        id: float(np.dot(np.array(v) / np.linalg.norm(v), q)) for id, (_, v) in oracle.items()
    }
    best = sorted(oracle, key=lambda id: (-round(cosines[id], 6), id))[:k]
    assert [p.id for p in found] == best
    assert [p.score for p in found] == pytest.approx([cosines[id] for id in best], abs=1e-5)
    assert all(p.source == oracle[p.id][0] for p in found)
