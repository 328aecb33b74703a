"""A classifier behind FastAPI as tutorials write it: load the model, render the chat, `model.generate`, decode.

Nothing is slowed down on purpose. The handler is `async def` and computes in it, as most tutorials have it; on two
cores that is also the quicker way, since parallel `generate` calls would fight for them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoTokenizer

NEW_TOKENS = 24


class Document(BaseModel):
    """What is sent."""

    text: str


class Answer(BaseModel):
    """What comes back."""

    label: str


def create_app(folder: Path, system: str) -> FastAPI:
    """Return the service for a merged model and an instruction."""
    app = FastAPI()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(document: Document) -> Answer:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": document.text}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = model.generate(
                **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.eos_token_id
            )
        answer = output[0, inputs["input_ids"].shape[1] :]
        return Answer(label=tokenizer.decode(answer, skip_special_tokens=True).strip())

    return app


def main() -> None:
    """Serve on loopback."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--system", type=Path, required=True, help="file with the instruction, as JSON text")
    arguments.add_argument("--port", type=int, required=True)
    given = arguments.parse_args()
    app = create_app(given.model, json.loads(given.system.read_text(encoding="utf-8")))
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
