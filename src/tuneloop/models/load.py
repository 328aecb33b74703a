"""A base model and its tokenizer, from the embedded default, a local folder or the Hub, checked before they are opened.

Weights that unpickle and folders that bring code of their own are refused unless the configuration asks for them by
name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.config.schema import ModelConfig
from tuneloop.errors import ModelError, NetworkError, UnsafeModelError, nearest
from tuneloop.hardware import choose_dtype, measure
from tuneloop.models.chat import ChatFormat
from tuneloop.models.embedded import embedded_base_model
from tuneloop.models.quantized import loading_options
from tuneloop.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

EMBEDDED = "embedded"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md", "LICEN*", "NOTICE*"]
FINGERPRINTED = {".json", ".safetensors", ".bin", ".model", ".jinja", ".txt"}
SMALL_FILE_BYTES = 32 << 20
PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl")


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model with what is needed to talk to it."""

    model: PreTrainedModel
    chat: ChatFormat
    device: torch.device
    dtype: torch.dtype


def base_model_folder(config: ModelConfig, progress: Progress) -> Path:
    """Return the local folder of the base model, fetching it first where necessary, and check it.

    Raises: ModelError: no such folder, or one without configuration, weights or tokenizer; UnsafeModelError: it would
        run code; NetworkError: it has to be fetched and cannot be.
    """
    if config.base_model == EMBEDDED:
        return embedded_base_model(progress)
    folder = Path(config.base_model)
    if not folder.is_dir():
        folder = _fetch(config, progress)
    check_folder(folder, trust_remote_code=config.trust_remote_code, allow_pickle=config.allow_pickle)
    return folder


def load_model(config: ModelConfig, progress: Progress, adapter: Path | None = None) -> LoadedModel:
    """Load the base model (with the adapter in a PEFT folder on top) in evaluation mode, on the best device here.

    Raises: as `base_model_folder`.
    """
    import torch

    from tuneloop.models import lean

    folder = base_model_folder(config, progress)
    hardware = measure()
    device = torch.device(hardware.best_device.torch_name)
    dtype: torch.dtype = getattr(torch, choose_dtype(hardware, config.dtype))
    tokenizer, model = open_folder(folder, dtype, config)
    model.config.use_cache = False
    if adapter is not None:
        model = _with_adapter(model, adapter)
    model.to(device)
    model.eval()
    model.requires_grad_(False)
    lean.install(model)
    return LoadedModel(model, ChatFormat(tokenizer), device, dtype)


def open_folder(folder: Path, dtype: torch.dtype, config: ModelConfig) -> tuple[Any, Any]:
    """Return tokenizer and model of a folder, every weight of it from the folder's files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code, "local_files_only": True}
    safetensors = None if config.allow_pickle else True  # None takes safetensors where there are some
    packed = loading_options(folder, trust_remote_code=config.trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=safetensors, output_loading_info=True, **options, **packed
        )
    except MemoryError:
        raise
    except Exception as error:  # safetensors, tokenizers and pickle each raise types of their own for damaged files
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"the model cannot be loaded: {first_line}",
            where=str(folder),
            hint="Check that the folder is a complete Hugging Face causal language model that this version of "
            "transformers knows; fetch it again if a file is damaged.",
        ) from error
    model, loading = loaded
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"{len(missing)} weights are missing, {missing[0]} among them; they would be random",
            where=str(folder),
            hint="Fetch the model again, and check that config.json belongs to these weights.",
        )
    return tokenizer, model


def check_folder(folder: Path, *, trust_remote_code: bool = False, allow_pickle: bool = False) -> None:
    """Look at a model folder's files without opening weights.

    Raises: ModelError: configuration, weights or tokenizer are missing; UnsafeModelError: it would run code.
    """
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise ModelError(
            "this folder has no config.json",
            where=str(folder),
            hint="Give the folder that holds config.json, the weights and the tokenizer.",
        )
    _check_code(folder, trust_remote_code)
    _check_weights(folder, allow_pickle)
    if not names.intersection(TOKENIZER_FILES):
        raise ModelError(
            f"this model folder has no tokenizer (none of {', '.join(TOKENIZER_FILES)})",
            where=str(folder),
            hint="Copy the tokenizer files of the base model into the folder, or save it with "
            "`tokenizer.save_pretrained(folder)`.",
        )


def fingerprint(folder: Path) -> str:
    """Return a hash that changes when the model does: small files by content, weights by name and size."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in FINGERPRINTED):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        if size <= SMALL_FILE_BYTES:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _check_code(folder: Path, trust_remote_code: bool) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if not path.exists():
            continue
        try:
            settings = json.loads(path.read_bytes())
        except ValueError as error:
            raise ModelError(
                f"not valid JSON: {error}", where=str(path), hint="Fetch the model folder again; this file is damaged."
            ) from error
        if not isinstance(settings, dict):
            raise ModelError(
                "not a JSON object", where=str(path), hint="Fetch the model folder again; this file is damaged."
            )
        if "auto_map" in settings and not trust_remote_code:
            raise UnsafeModelError(
                "this model wants to run Python code from its folder",
                where=str(path),
                hint="Read that code first; then set model.trust_remote_code: true to allow it.",
            )


def _check_weights(folder: Path, allow_pickle: bool) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if not pickled:
        raise ModelError(
            "this folder has no weights (*.safetensors)",
            where=str(folder),
            hint="Fetch the model again, or give the folder that holds its weights.",
        )
    if not allow_pickle:
        raise UnsafeModelError(
            f"the weights are pickled ({pickled[0]}), and opening them can run code",
            where=str(folder),
            hint="Convert them to safetensors, or set model.allow_pickle: true if you trust where they come from.",
        )


def _fetch(config: ModelConfig, progress: Progress) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = HUB_FILES + (["*.bin"] if config.allow_pickle else []) + (["*.py"] if config.trust_remote_code else [])
    try:
        return Path(snapshot_download(config.base_model, revision=config.revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(
            f"{config.base_model!r} may only be fetched by those who have accepted its terms",
            where="model.base_model",
            hint="Accept them on the model's page on the Hub, and set HF_TOKEN to a token of yours.",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{config.base_model!r} has no revision {config.revision!r}",
            where="model.revision",
            hint="Give a branch, tag or commit of it, or leave model.revision out.",
        ) from error
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ModelError(
            f"{config.base_model!r} is neither a folder here nor a model on the Hub." + _like(config.base_model),
            where="model.base_model",
            hint="Give a local folder, a Hub id such as HuggingFaceTB/SmolLM2-135M-Instruct, or 'embedded'.",
        ) from error
    except (OSError, RuntimeError, HTTPError) as error:
        raise NetworkError(
            f"cannot fetch {config.base_model!r} from the Hub ({type(error).__name__})",
            where="model.base_model",
            hint="Check the network and the name; or copy the model here and give its folder, "
            "or use model.base_model: embedded.",
        ) from error


def _like(name: str) -> str:
    parent = Path(name).parent
    siblings: Iterable[Path] = parent.iterdir() if parent.is_dir() else ()
    return nearest(name, [EMBEDDED, *(str(path) for path in siblings if path.is_dir())])


def check_adapter(adapter: Path) -> None:
    """Raise ModelError where a folder holds no adapter in PEFT's layout with safe weights."""
    if not (adapter / "adapter_model.safetensors").exists():
        raise ModelError(
            "this adapter folder has no adapter_model.safetensors",
            where=str(adapter),
            hint="Train again, or give the folder of a finished run.",
        )


def _with_adapter(model: PreTrainedModel, adapter: Path) -> Any:
    from peft import PeftModel

    check_adapter(adapter)
    try:
        return PeftModel.from_pretrained(model, str(adapter)).get_base_model()
    except Exception as error:  # as in `open_folder`: also shapes that do not fit
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"the adapter cannot be loaded: {first_line}",
            where=str(adapter),
            hint="Use the base model that it was trained on; train again if a file is damaged.",
        ) from error
