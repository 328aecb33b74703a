"""One base model in memory, several adapters on it, one of them active at a time.

Nothing is computed by a switch: every adapter's weights lie beside the base model's, and a switch tells each layer
which of them to add. Whoever computes holds the model meanwhile (`using`), so adapters never mix.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.config.schema import ModelConfig
from tuneloop.errors import ModelError
from tuneloop.models import lean
from tuneloop.models.load import LoadedModel, base_model_folder, check_adapter, fingerprint, load_model
from tuneloop.progress import Progress

if TYPE_CHECKING:
    import torch


class SharedBase:
    """A loaded base model that takes adapters in PEFT's layout, by name. May be used from several threads.

    `fingerprint` tells which base model it is.
    """

    def __init__(self, loaded: LoadedModel, fingerprint: str = "") -> None:
        self.loaded, self.fingerprint = loaded, fingerprint
        self._lock = threading.RLock()
        self._peft: Any = None
        self._names: dict[str, str] = {}  # PEFT's own name of each adapter: one that is in no weight's name
        self._added = 0
        self._layers: list[Any] = []  # every layer that some adapter is a part of
        self._active: str | None = None

    @classmethod
    def open(cls, config: ModelConfig, progress: Progress) -> SharedBase:
        """Load a base model. Raises: as `load_model`."""
        return cls(load_model(config, progress), fingerprint(base_model_folder(config, progress)))

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that are there."""
        return tuple(self._names)

    def add(self, name: str, folder: Path) -> None:
        """Load an adapter beside those that are there; the weights of the others stay as they are.

        Raises: ModelError: there is none in the folder, or it does not fit this base model; nothing has changed then.
        """
        check_adapter(folder)
        with self._lock:
            if name in self._names:
                raise ValueError(f"there is an adapter {name!r} already")
            lean.uninstall(self.loaded.model)  # these hold on to the layers that are about to be wrapped
            self._added += 1
            internal = f"tuneloop-{self._added}"
            try:
                self._load(internal, folder)
                self._names[name] = internal
            finally:
                self._settle()

    def remove(self, name: str) -> None:
        """Let go of an adapter's weights."""
        with self._lock:
            lean.uninstall(self.loaded.model)
            self._delete(self._names.pop(name))
            self._settle()

    @contextmanager
    def using(self, name: str | None) -> Iterator[LoadedModel]:
        """Hold the model with one adapter active, or without any (None), until the block ends."""
        with self._lock:
            if name != self._active:
                self._switch(name)
            yield self.loaded

    def _load(self, internal: str, folder: Path) -> None:
        from peft import LoraConfig, PeftModel

        try:
            settings = LoraConfig.from_pretrained(str(folder))
            settings.inference_mode = True
            if self._peft is None:
                self._peft = PeftModel(self.loaded.model, settings, adapter_name=internal)
            else:
                self._peft.add_adapter(internal, settings)
            device = str(self.loaded.device)
            missing = self._peft.load_adapter(str(folder), adapter_name=internal, torch_device=device).missing_keys
            if missing:
                raise ValueError(f"{len(missing)} of its weights are missing, {missing[0]} among them")
        except Exception as error:  # PEFT, safetensors and torch each raise types of their own for what does not fit
            if self._peft is not None and internal in self._peft.peft_config:
                self._delete(internal)
            first_line = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(
                f"the adapter cannot be loaded: {first_line}",
                where=str(folder),
                hint="Use the base model that it was trained on; train again if a file is damaged.",
            ) from error

    def _delete(self, internal: str) -> None:
        for layer in self._adapted_layers():
            vars(layer)["_active_adapter"] = []  # PEFT warns when it is the active one that goes
        self._peft.delete_adapter(internal)

    def _settle(self) -> None:
        """Make the layers ready for what adapters there are now: the newest is active, so that all are made lean."""
        model: torch.nn.Module = self.loaded.model
        model.eval()
        model.requires_grad_(False)
        model.to(self.loaded.device)
        self._layers = self._adapted_layers()
        self._switch(next(reversed(self._names), None))
        lean.install(model)

    def _adapted_layers(self) -> list[Any]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [module for module in self.loaded.model.modules() if isinstance(module, BaseTunerLayer)]

    def _switch(self, name: str | None) -> None:
        """Make every layer add this adapter, or none.

        PEFT's own `set_adapter` also sets `requires_grad` of every weight, which takes most of its time.
        """
        for layer in self._layers:
            vars(layer)["_disable_adapters"] = name is None
            vars(layer)["_active_adapter"] = [] if name is None else [self._names[name]]
        self._active = name
