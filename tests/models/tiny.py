"""Tiny random models of several families, saved as ordinary Hugging Face folders.

`make_tiny_model(folder)` takes well under a second, needs no network, and the same arguments give the same bytes.
The weights are random: use them to check shapes, gradients, caches and files, never to check that an answer is good.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

Family = Literal["llama", "qwen2", "mistral", "gemma", "gemma3"]
FAMILIES: tuple[Family, ...] = get_args(Family)

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "Classify the document. The label is one of: Copyleft, Permissive, Proprietary, Public Domain.",
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software.",
    "Copyright (c) 2019 Example Corporation. All rights reserved. See https://example.org/licence for the terms.",
    "What is the exchange rate? I want to top up my card, but the transfer has not arrived yet.",
    '{"label": "Permissive", "entities": [{"type": "holder", "text": "Example Corporation"}]}',
]

# GQA (4 query heads, 2 key/value heads) everywhere, so that code which mixes the two counts up fails here.
SHARED: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
PARTICULAR: dict[Family, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),  # biases on q, k and v
    "mistral": ("mistral", {"tie_word_embeddings": False, "sliding_window": None, "num_hidden_layers": 3}),
    "gemma": ("gemma", {"head_dim": 32}),  # head_dim is not hidden_size / heads; scaled embeddings
    "gemma3": ("gemma3_text", {"head_dim": 32, "sliding_window": 512}),  # q/k norms, local and global layers
}


def make_tiny_model(folder: Path, family: Family = "llama", seed: int = 0) -> Path:
    """Save a random model of `family` (hidden size 64, 2 or 3 layers) with its tokenizer; returns `folder`.

    Llama, Qwen2 and Mistral get a byte-level BPE tokenizer that splits digits, the Gemmas one with byte fallback;
    all have a ChatML template and decode what they encode (the Gemmas: but for a literal ▁). No dropout, fp32.
    """
    tokenizer = _byte_fallback_tokenizer() if family.startswith("gemma") else _byte_level_tokenizer()
    model_type, particular = PARTICULAR[family]
    config = AutoConfig.for_model(model_type, **(SHARED | particular), vocab_size=len(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        _spread(model)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _spread(model: torch.nn.Module) -> None:
    """Draw the weights ten times wider than usual: with the usual 0.02 all tokens would be equally likely."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)


def _byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(tokenizer, vocab_size=400, initial_alphabet=alphabet, special_tokens=SPECIAL_TOKENS)
    return _with_chat(tokenizer)


def _byte_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece's ways: spaces become ▁, and what the vocabulary lacks becomes <0x00>-style byte tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _train(tokenizer, vocab_size=250, special_tokens=SPECIAL_TOKENS)
    learnt = json.loads(tokenizer.to_str())["model"]
    vocab: dict[str, int] = learnt["vocab"]
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    tokenizer.model = models.BPE(vocab, [tuple(merge) for merge in learnt["merges"]], byte_fallback=True)
    return _with_chat(tokenizer)


def _train(tokenizer: Tokenizer, **settings: Any) -> None:
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(show_progress=False, **settings))


def _with_chat(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
