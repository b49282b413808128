"""A peer: a transformers model behind FastAPI, written like OpenRLHF's ``serve_rm``.

It takes rendered texts and returns the head's raw outputs, in padded batches of ``--batch``, one
request after the other. ``python -m loadtest.transformers_server --model FOLDER --port N``.
"""

from __future__ import annotations

import argparse
import asyncio
import os

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Query(BaseModel):
    """The body of ``serve_rm``."""

    query: list[str]


class Model:
    """The checkpoint, which computes one batch at a time."""

    def __init__(self, folder: str, batch: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._tokenizer.padding_side = "right"
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval()
        self._batch = batch
        self.turn = asyncio.Lock()

    def score(self, texts: list[str]) -> list[list[float]]:
        rewards: list[list[float]] = []
        for start in range(0, len(texts), self._batch):
            part = texts[start : start + self._batch]
            inputs = self._tokenizer(
                part, padding=True, return_tensors="pt", add_special_tokens=False
            )
            with torch.inference_mode():
                rewards += self._model(**inputs).logits.tolist()
        return rewards


def make_app(model: Model) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/get_reward")
    async def get_reward(query: Query) -> dict[str, list[list[float]]]:
        async with model.turn:
            return {"rewards": await asyncio.to_thread(model.score, query.query)}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    app = make_app(Model(arguments.model, arguments.batch))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
