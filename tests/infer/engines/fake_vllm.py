"""A real HTTP server on loopback that speaks vLLM's API and computes with a tiny model of this process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from tuneloop.models.load import LoadedModel

KEY = "the key of this test"
MOST_TOLD = 128


@dataclass
class FakeVllm:
    """What the server does and has seen. `template` (a Jinja text) replaces the model's own in its prompts."""

    loaded: LoadedModel
    template: str | None = None
    tells_ids: bool = True
    delay_s: float = 0.0
    served: tuple[str, ...] = ("tuneloop",)
    key: str = KEY
    url: str = ""
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    gone: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def paths(self) -> list[str]:
        return [path for path, _ in self.received]

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/tokenize":
            return {"tokens": self.prompt_ids(body), "count": 0, "max_model_len": 4096}
        if path == "/detokenize":
            return {"prompt": self.loaded.chat.tokenizer.decode(body["tokens"])}
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        wanted = body.get("logprob_token_ids") or []
        if len(wanted) > MOST_TOLD or (wanted and body["logprobs"] != len(wanted)):
            raise ValueError("Requested logprob_token_ids cannot be told")
        return {"choices": [self.choice(number, ids, body, wanted) for number, ids in enumerate(prompts)][::-1]}

    def choice(self, number: int, prompt: Sequence[int], body: dict[str, Any], wanted: list[int]) -> dict[str, Any]:
        choices = body.get("structured_outputs", {}).get("choice")
        allowed = None if choices is None else [self.ids_of(text) for text in choices]
        ids, log_probabilities, told = self.generate(prompt, body, wanted, allowed)
        return {
            "index": number,
            "text": self.loaded.chat.decode(ids),
            "token_ids": ids,
            "finish_reason": "stop" if ids[-1] in body.get("stop_token_ids", []) else "length",
            "logprobs": {"token_logprobs": log_probabilities, "top_logprobs": told},
        }

    def ids_of(self, text: str) -> list[int]:
        return self.loaded.chat.answer_ids([text])

    @torch.inference_mode()
    def generate(
        self, prompt: Sequence[int], body: dict[str, Any], wanted: list[int], allowed: list[list[int]] | None
    ) -> tuple[list[int], list[float], list[dict[str, float]]]:
        ids: list[int] = []
        log_probabilities: list[float] = []
        told: list[dict[str, float]] = []
        while len(ids) < body["max_tokens"]:
            logits = self.loaded.model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, -1]
            scores = logits.log_softmax(-1)
            masked = scores
            if allowed is not None:
                masked = torch.full_like(scores, -torch.inf)
                following = [one[len(ids)] for one in allowed if one[: len(ids)] == ids and len(one) > len(ids)]
                masked[following] = scores[following]
            token = int(masked.argmax())
            log_probabilities.append(float(scores[token]))
            named = wanted if self.tells_ids else []
            told.append({f"token_id:{one}": max(float(scores[one]), -9999.0) for one in dict.fromkeys([token, *named])})
            ids.append(token)
            if token in body.get("stop_token_ids", []):
                break
        return ids, log_probabilities, told

    def prompt_ids(self, body: dict[str, Any]) -> list[int]:
        tokenizer = self.loaded.chat.tokenizer
        text = tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True, chat_template=self.template
        )
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield a streamed answer: an empty beginning, each token, then the usage."""
        is_chat = path.endswith("/chat/completions")
        prompt = self.prompt_ids(body) if is_chat else body["prompt"]
        ids, _, _ = self.generate(prompt, body, [], None)
        if is_chat:
            yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        for number, token in enumerate(ids):
            is_end = token in body["stop_token_ids"]
            text = "" if is_end else self.loaded.chat.decode([token])
            reason = "stop" if is_end else "length" if number == len(ids) - 1 else None
            shown = {"delta": {"content": text}} if is_chat else {"text": text}
            yield {"choices": [{"index": 0, **shown, "token_ids": [token], "finish_reason": reason}]}
        yield {"choices": [], "usage": {"completion_tokens": len(ids), "prompt_tokens": len(prompt)}}


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for `fake`."""

    protocol_version = "HTTP/1.1"
    fake: FakeVllm

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send(200, {})
        elif self.is_allowed():
            self.send(200, {"data": [{"id": name} for name in self.fake.served]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.startswith("/v1") and not self.is_allowed():
            return
        with self.fake.lock:
            self.fake.received.append((self.path, body))
            self.fake.at_once += 1
            self.fake.most_at_once = max(self.fake.most_at_once, self.fake.at_once)
        try:
            if body.get("stream"):
                self.stream(body)
            else:
                time.sleep(self.fake.delay_s)
                self.send(200, self.fake.answer(self.path, body))
        except ValueError as error:
            self.send(400, {"error": {"message": str(error), "type": "BadRequestError"}})
        except OSError:  # the client has gone
            self.fake.gone.set()
            self.close_connection = True
        finally:
            with self.fake.lock:
                self.fake.at_once -= 1

    def is_allowed(self) -> bool:
        if self.headers.get("authorization") == f"Bearer {self.fake.key}":
            return True
        self.send(401, {"error": "Unauthorized"})
        return False

    def send(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, body: dict[str, Any]) -> None:
        if not (body.get("messages") or body.get("prompt")):
            raise ValueError("the prompt is empty")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in self.fake.events(self.path, body):
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
            time.sleep(self.fake.delay_s)
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *arguments: Any) -> None:
        return


@contextmanager
def serving_vllm(loaded: LoadedModel, port: int = 0, **behaviour: Any) -> Iterator[FakeVllm]:
    """Run a `FakeVllm` for the length of a block."""
    fake = FakeVllm(loaded, **behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"fake": fake}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
