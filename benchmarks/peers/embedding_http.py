"""An embedding service as one writes it by hand: sentence-transformers behind FastAPI."""

from __future__ import annotations

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

MODEL, PORT = sys.argv[1], int(sys.argv[2])

app = FastAPI()
torch.set_num_threads(2)
model = SentenceTransformer(MODEL, device="cpu")


class Texts(BaseModel):
    texts: list[str]


@app.get("/health")
def health() -> str:
    return "up"


@app.post("/embed")
def embed(body: Texts) -> list[list[float]]:
    vectors = model.encode(body.texts, normalize_embeddings=True)
    return [[float(number) for number in vector] for vector in vectors]


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error")
