"""What `python -m vllm.entrypoints.cli.main serve …` is in a fake environment: a `FakeVllm` on the model it is given.

Notes its arguments and the variables that it was started with in `started.json`, beside the chat template.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from itertools import pairwise
from pathlib import Path

from tests.infer.engines.fake_vllm import serving_vllm
from tuneloop.config.schema import ModelConfig
from tuneloop.models.load import load_model
from tuneloop.progress import SILENT


def main() -> None:
    arguments = sys.argv[1:]
    named = dict(pairwise(arguments))
    template = Path(named["--chat-template"])
    modules = json.loads(named["--lora-modules"]) if "--lora-modules" in arguments else None
    config = ModelConfig(base_model=arguments[1], dtype="float32")
    loaded = load_model(config, SILENT, Path(modules["path"]) if modules else None)
    loaded.chat.tokenizer.chat_template = template.read_text()
    names = (named["--served-model-name"], *([modules["name"]] if modules else []))
    variables = {name: value for name, value in os.environ.items() if name.startswith(("VLLM", "HF_"))}
    (template.parent / "started.json").write_text(json.dumps({"arguments": arguments, "variables": variables}))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with serving_vllm(loaded, int(named["--port"]), served=names, key=os.environ["VLLM_API_KEY"]):
        ended.wait()


if __name__ == "__main__":
    main()
