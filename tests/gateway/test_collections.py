"""Collections over HTTP: filled in three ways, searched, used by workflows, each tenant's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from texts import SEARCH

API = "/api/v1/collections"
ANIMALS = {
    "documents": [
        {"text": "cats purr", "source": "cat", "metadata": {"page": 3}},
        {"text": "dogs bark", "source": "dog"},
        {"text": "fish swim", "source": "fish"},
    ]
}


@pytest.fixture
def name(client: httpx2.Client) -> Iterator[str]:
    made = f"c{uuid.uuid4().hex[:12]}"
    assert client.put(f"{API}/{made}", json={"embedding": "fake:"}).status_code == 200
    yield made
    client.delete(f"{API}/{made}")


def found(client: httpx2.Client, name: str, query: str, k: int = 1) -> list[dict[str, Any]]:
    answer = client.post(f"{API}/{name}/search", json={"query": query, "k": k})
    assert answer.status_code == 200, answer.text
    passages: list[dict[str, Any]] = answer.json()["passages"]
    return passages


def test_a_new_collection_is_empty_and_making_it_again_keeps_it(
    client: httpx2.Client, name: str
) -> None:
    assert client.get(f"{API}/{name}").json()["passages"] == 0
    client.post(f"{API}/{name}/documents", json=ANIMALS)
    again = client.put(f"{API}/{name}", json={"embedding": "fake:"}).json()
    assert (again["name"], again["passages"], again["embedding"]) == (name, 3, "fake:")
    other = client.put(f"{API}/{name}", json={"embedding": "minilm"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    names = [each["name"] for each in client.get(API).json()["collections"]]
    assert name in names


def test_json_is_added_and_found(client: httpx2.Client, name: str) -> None:
    answer = client.post(f"{API}/{name}/documents", json=ANIMALS)
    assert (answer.json()["added"], answer.json()["passages"]) == (3, 3)
    (cat,) = found(client, name, "cats purr")
    assert (cat["source"], cat["metadata"]) == ("cat", {"page": 3})
    client.post(f"{API}/{name}/documents", json=ANIMALS)
    assert client.get(f"{API}/{name}").json()["passages"] == 3


def test_lines_of_json_are_added(client: httpx2.Client, name: str) -> None:
    lines = '{"text": "cats purr", "id": "a"}\n\n{"text": "dogs bark", "id": "b"}\n'
    answer = client.post(
        f"{API}/{name}/documents", content=lines, headers={"Content-Type": "application/jsonl"}
    )
    assert answer.json()["added"] == 2
    assert [each["id"] for each in found(client, name, "dogs", 2)] == ["b", "a"]


def test_an_uploaded_file_is_known_by_its_name(client: httpx2.Client, name: str) -> None:
    def upload(text: bytes) -> dict[str, Any]:
        answer = client.post(f"{API}/{name}/files", files={"file": ("../pets/cat.md", text)})
        assert answer.status_code == 200, answer.text
        (report,) = answer.json()["files"]
        return dict(report)

    assert upload(b"# Cats\n\nThe cat is called Minka.")["added"] == 1
    (passage,) = found(client, name, "Minka")
    assert passage["source"] == "../pets/cat.md", "a name, not a path"
    assert upload(b"# Cats\n\nThe cat is called Minka.")["unchanged"] == 1
    assert upload(b"# Cats\n\nThe cat is called Felix.")["changed"] == 1
    assert "Felix" in found(client, name, "cat", 5)[0]["text"]
    assert client.get(f"{API}/{name}").json()["sources"] == 1


def test_several_files_at_once_and_one_that_cannot_be_read(
    client: httpx2.Client, name: str
) -> None:
    files = [("file", ("a.md", b"cats purr")), ("file", ("b.pdf", b"%PDF-nothing"))]
    good, bad = client.post(f"{API}/{name}/files", files=files).json()["files"]
    assert (good["added"], good["problem"]) == (1, "")
    assert (bad["added"], bad["source"]) == (0, "b.pdf")
    assert bad["problem"]
    assert "/tmp" not in bad["problem"], "where the server keeps it is nobody's business"


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("documents", {"json": {"documents": []}}),
        ("documents", {"json": {"documents": [{"text": ""}]}}),
        ("documents", {"json": {"documents": [{"text": "a", "extra": 1}]}}),
        ("documents", {"json": {"documents": [{"text": "a", "metadata": {"a": []}}]}}),
        ("documents", {"json": {"documents": [{"text": "a", "source": "a\nb"}]}}),
        ("documents", {"json": []}),
        ("documents", {"content": b"not json"}),
        ("files", {"content": b"no form"}),
        ("files", {"files": {"file": ("a.exe", b"MZ")}}),
        ("files", {"files": {"file": ("a" * 400 + ".md", b"x")}}),
        ("search", {"json": {}}),
        ("search", {"json": {"query": "a", "vector": [1.0]}}),
        ("search", {"json": {"query": "a", "k": 0}}),
        ("search", {"json": {"query": "a", "k": 10**6}}),
        ("search", {"json": {"query": "a", "k": 2**70}}),
        ("search", {"json": {"vector": [1e300]}}),
        ("search", {"json": {"vector": []}}),
        ("search", {"json": {"vector": [1.0, 2.0]}}),
    ],
)
def test_what_does_not_fit_is_refused(
    client: httpx2.Client, name: str, path: str, options: dict[str, Any]
) -> None:
    client.post(f"{API}/{name}/documents", json=ANIMALS)
    answer = client.post(f"{API}/{name}/{path}", **options)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "input"


@pytest.mark.parametrize("wrong", ["a.b", "%2e%2e", "a" * 33, "-a", "a%2Fb", "other.animals"])
def test_no_name_reaches_elsewhere(client: httpx2.Client, wrong: str) -> None:
    for answer in (client.put(f"{API}/{wrong}", json={}), client.get(f"{API}/{wrong}")):
        assert answer.status_code in (400, 404)


def test_an_embedding_model_must_be_allowed(client: httpx2.Client) -> None:
    for wrong in ("/etc/passwd", "some/model", "wheel:a==1/b"):
        answer = client.put(f"{API}/refused", json={"embedding": wrong})
        assert answer.status_code == 422


def test_a_workflow_searches_the_collection_of_its_tenant(served: Any) -> None:
    place = "/api/v1/workflows/search"
    for tenant, word in (("default", "purr"), ("first", "meow"), ("second", "hiss")):
        with served.client(tenant) as client:
            client.put(f"{API}/animals", json={"embedding": "fake:"})
            body = {"documents": [{"text": f"cats {word}", "source": tenant}]}
            assert client.post(f"{API}/animals/documents", json=body).status_code == 200
            assert client.put(place, content=SEARCH).status_code == 201
    for tenant, word in (("default", "purr"), ("first", "meow"), ("second", "hiss")):
        with served.client(tenant) as client:
            answer = client.post(f"{place}/invoke", json={"question": "cats"}).json()
            assert [each["text"] for each in answer["outputs"]["found"]] == [f"cats {word}"]
            names = {each["name"] for each in client.get(API).json()["collections"]}
            assert "animals" in names
            assert tenant == "default" or names == {"animals"}
            assert not any("." in name for name in names)
            assert client.delete(f"{API}/animals").status_code == 200
            assert client.post(f"{place}/invoke", json={"question": "x"}).status_code == 404
