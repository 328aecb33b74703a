"""How often a common prefix is really computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tuneloop.models import prefix


def count_prefix_layers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of every layer that computes a prefix from now on."""
    read: list[int] = []
    original = prefix.PrefixPass.attend

    def counted(self: prefix.PrefixPass, layer: int, *parts: Any) -> torch.Tensor:
        read.append(layer)
        return original(self, layer, *parts)

    monkeypatch.setattr(prefix.PrefixPass, "attend", counted)
    return read
