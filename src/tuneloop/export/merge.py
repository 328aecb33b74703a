"""Base model and adapter as one ordinary Hugging Face folder.

Layers are merged one after the other in float32, where the model lies, and rounded once to the dtype of the folder:
nothing needs the memory of a second model. Which formula merges a layer (LoRA's, rank-stabilised, DoRA's) is PEFT's
to know. Whether the result answers like base and adapter together is measured in `agreement`.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.config.schema import ModelConfig
from tuneloop.errors import ModelError
from tuneloop.export.tokenizer import write_tokenizer
from tuneloop.models.chat import ChatFormat
from tuneloop.models.load import base_model_folder, open_folder
from tuneloop.progress import Progress

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Merged:
    """What was merged: how many layers, into weights of which dtype, and whether the embeddings had to be untied."""

    layers: int
    dtype: str
    is_untied: bool


def merge(
    model: ModelConfig, adapter: Path, target: Path, *, dtype: str, max_shard_size: str, progress: Progress
) -> Merged:
    """Write base model and adapter as one model, with tokenizer, chat template and generation settings.

    Args: target: a folder that is made; dtype: `auto` for the base model's own; max_shard_size: as "4GB".
    Raises: ModelError: base or adapter cannot be loaded, do not fit each other, or leave the dtype's range;
        NetworkError: the base model has to be fetched and cannot be.
    """
    import torch

    folder = base_model_folder(model, progress)
    own = own_dtype(folder)
    name = own if dtype == "auto" else dtype
    kind: torch.dtype = getattr(torch, name)
    tokenizer, base = open_folder(folder, getattr(torch, own), model)  # unrounded until it is merged
    adapted = _adapted(base, adapter)
    is_untied = _untie_adapted_embeddings(adapted)
    layers = _merge_layers(adapted, kind, adapter, progress)
    merged = adapted.unload().to(kind)
    chat = ChatFormat(tokenizer)
    _settle(merged, chat, is_untied=is_untied)
    target.mkdir(parents=True)
    progress.say(f"Writing {layers} merged layers as {name}.")
    merged.save_pretrained(target, max_shard_size=max_shard_size)
    write_tokenizer(chat, folder, target)
    return Merged(layers, name, is_untied)


def own_dtype(folder: Path) -> str:
    """Return the dtype in which a model folder says that its weights are (float32 where it does not say)."""
    config = json.loads((folder / "config.json").read_bytes())
    stated = config.get("dtype") or config.get("torch_dtype")
    return stated if stated in DTYPES else "float32"


def _adapted(base: Any, adapter: Path) -> Any:
    """Return the base model with the adapter on top, as a PeftModel."""
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").exists():
        raise _broken(adapter, "it has no adapter_model.safetensors")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # untied where that matters
            adapted: Any = PeftModel.from_pretrained(base, str(adapter))
    except Exception as error:  # shapes, names, damaged files: each library raises its own
        raise _broken(adapter, next(iter(str(error).splitlines()), type(error).__name__)) from error
    if adapted.peft_config["default"].modules_to_save:
        raise _broken(adapter, "it holds whole layers beside the low-rank ones (modules_to_save)")
    _require_same_names(adapted, adapter)
    return adapted


def _require_same_names(adapted: Any, adapter: Path) -> None:
    """Refuse an adapter of another model: PEFT passes over weights that it finds no place for, or does not find."""
    from peft.utils import get_peft_model_state_dict
    from safetensors import safe_open

    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        found = set(file.keys())
    if odd := sorted(expected ^ found):
        raise _broken(adapter, f"{len(odd)} of its weights do not fit the base model, {odd[0]} among them")


def _untie_adapted_embeddings(adapted: Any) -> bool:
    """Give input and output embeddings weights of their own where they share them and only one side is adapted.

    Merging changes the weights in place: on a shared matrix the adapter of one side would change the other as well.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = adapted.get_base_model()
    ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    if None in ends or not any(isinstance(end, BaseTunerLayer) for end in ends):
        return False
    into: Any
    out: Any
    into, out = (end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends)
    if into.weight is not out.weight and into.weight.data_ptr() != out.weight.data_ptr():
        return False
    out.weight = type(out.weight)(out.weight.detach().clone(), requires_grad=False)
    return True


def _merge_layers(adapted: Any, dtype: torch.dtype, adapter: Path, progress: Progress) -> int:
    """Merge every adapted layer; returns how many there were."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, module) for name, module in adapted.named_modules() if isinstance(module, BaseTunerLayer)]
    with progress.task("Merging the adapter", len(layers)) as advance:
        for name, layer in layers:
            _merge_layer(layer, dtype, name, adapter)
            advance(1)
    return len(layers)


def _merge_layer(layer: Any, dtype: torch.dtype, name: str, adapter: Path) -> None:
    layer.float()  # one rounding, at the end; half precision would round the adapter's part and the sum
    try:
        layer.merge(safe_merge=True)
    except ValueError as error:
        raise _broken(adapter, f"{name} would hold numbers that are not finite") from error
    base = layer.get_base_layer().to(dtype)
    if not base.weight.isfinite().all():
        raise ModelError(
            f"the merged weights of {name} do not fit into {dtype}".replace("torch.", ""),
            where="export.dtype",
            hint="Set export.dtype to bfloat16 or float32, which hold larger numbers.",
        )


def _settle(merged: Any, chat: ChatFormat, *, is_untied: bool) -> None:
    """Set what the folder says about itself: caches are used, answers end at the turn's end, and nothing is sampled.

    Servers take their defaults from generation_config.json: a base model's temperature would shuffle the answers.
    """
    merged.config.use_cache = True
    if is_untied:
        merged.config.tie_word_embeddings = False
    settings = merged.generation_config
    stated = settings.eos_token_id
    known = [] if stated is None else [stated] if isinstance(stated, int) else list(stated)
    ends = list(dict.fromkeys([chat.end_of_turn_id, *known]))
    settings.eos_token_id = ends[0] if len(ends) == 1 else ends
    settings.do_sample = False
    settings.temperature = settings.top_p = settings.top_k = settings.min_p = settings.typical_p = None
    settings.repetition_penalty = None


def _broken(adapter: Path, found: str) -> ModelError:
    return ModelError(
        f"the adapter cannot be merged: {found}",
        where=str(adapter),
        hint="Use the base model that it was trained on; train again if a file is damaged.",
    )
