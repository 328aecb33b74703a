"""A merged model in 4 or 8 bits a weight, made by llm-compressor in its own environment, in a process of its own.

The scales are chosen on documents of the domain, rendered by our own chat template with their answers, as the model
saw them in training (`calibration_rows`); they are handed over as token ids, so no tokenizer can read them otherwise.
What comes back is a Hugging Face folder in the compressed-tensors format, which transformers and vLLM load.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneloop.dataset import stratified_subset
from tuneloop.environments import Environment
from tuneloop.errors import ModelError, TuneloopError, UsageError
from tuneloop.forms import FormName
from tuneloop.models.chat import ChatFormat
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress
from tuneloop.records import Example

QUANTIZED_FORMS: tuple[FormName, ...] = ("int8", "gptq-4bit", "awq-4bit")
WORKER = Path(__file__).resolve().parent / "quantize_worker.py"
WRITTEN_ANEW = ("config.json", "recipe.yaml")
LOG_LINES = 400


@dataclass(frozen=True)
class Quantized:
    """How a model was quantised.

    `group_size` weights share a scale (None in 8 bits, where a whole output channel does); `layers` is how many linear
    layers became integers; `versions` are the packages that did it.
    """

    form: FormName
    group_size: int | None
    layers: int
    calibration_examples: int
    calibration_tokens: int
    device: str
    seconds: float
    size_bytes: int
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


def calibration_rows(
    examples: Sequence[Example], task: TaskPrompt, chat: ChatFormat, *, count: int, max_tokens: int, seed: int
) -> list[list[int]]:
    """Return `count` examples (fewer where there are not so many) as token ids: prompt, answer, end of turn.

    They keep the class proportions of `examples`, which should be those of the training split. A document is cut at
    its end where prompt and answer exceed `max_tokens`.
    """
    system, rows = task.system(), []
    for example in stratified_subset(examples, count, seed):
        answer = chat.answer_ids(task.answer(example))
        prompt, _ = chat.fitted_prompt_ids(system, task.user_text(example.text), max_tokens - len(answer))
        rows.append([*prompt, *answer])
    return rows


def require_quantizable(form: FormName) -> None:
    """Find out before long work begins that what is made could not be loaded here, to be checked and used.

    Raises: UsageError: nothing here reads the format.
    """
    if form not in QUANTIZED_FORMS:
        raise ValueError(f"{form} is not made by llm-compressor, which makes {', '.join(QUANTIZED_FORMS)}")
    if find_spec("compressed_tensors") is None:
        raise UsageError(
            f"{form} is in the compressed-tensors format, and this Python has nothing that reads it",
            where="export.forms",
            hint="Install it: pip install 'tuneloop[quantized]'",
        )


def quantize(
    merged: Path,
    target: Path,
    form: FormName,
    rows: Sequence[Sequence[int]],
    environment: Environment,
    progress: Progress,
    *,
    group_size: int = 128,
    seed: int = 13,
    trust_remote_code: bool = False,
) -> Quantized:
    """Write the model in the folder `merged` as `form` to the folder `target`, which is made.

    Tokenizer, chat template and generation settings are the files of `merged`, byte for byte.

    Args: rows: token ids of calibration documents; group_size: for 4 bits, taken smaller where it does not divide the
        width of a layer.
    Raises: UsageError: as `require_quantizable`; ModelError: llm-compressor refuses the model, or transformers does
        not load the result; TuneloopError: the process was ended from outside.
    """
    require_quantizable(form)
    target.mkdir(parents=True)
    request = {
        "model": str(merged.absolute()),
        "output": str(target.absolute()),
        "form": form,
        "group_size": group_size,
        "rows": [list(map(int, row)) for row in rows],
        "seed": seed,
        "trust_remote_code": trust_remote_code,
    }
    started = time.monotonic()
    made = _run_worker(request, form, environment, progress)
    seconds = time.monotonic() - started
    _copy_the_rest(merged, target)
    progress.say(f"Checking that transformers loads the {form} form.")
    check_loads(target, rows[0] if rows else [0], trust_remote_code=trust_remote_code)
    size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    return Quantized(
        form, made["group_size"], made["layers"], len(rows), made["calibration_tokens"], made["device"],
        round(seconds, 1), size, made["versions"],
    )  # fmt: skip


def check_loads(folder: Path, row: Sequence[int], *, trust_remote_code: bool = False) -> None:
    """Load a quantised folder with transformers here, and let it read one row of token ids.

    Raises: ModelError: it does not load, weights are missing or left over, or it predicts something that is no number.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, output_loading_info=True, trust_remote_code=trust_remote_code
        )
        model, loading = loaded
        with torch.inference_mode():
            logits = model(torch.tensor([list(row)])).logits[0, -1]
    except Exception as error:  # compressed-tensors, safetensors and transformers each raise types of their own
        raise _not_loadable(folder, next(iter(str(error).splitlines()), type(error).__name__)) from error
    wrong = sorted(loading["missing_keys"]) + sorted(loading["unexpected_keys"])
    if wrong:
        raise _not_loadable(folder, f"{len(wrong)} weights do not fit, {wrong[0]} among them")
    if not bool(torch.isfinite(logits).all()):
        raise _not_loadable(folder, "it predicts numbers that are not finite")


def _not_loadable(folder: Path, found: str) -> ModelError:
    return ModelError(
        f"the quantised model was written and does not load: {found}",
        where=str(folder),
        hint="Export the merged form, and quantise that by another method; nothing was kept of this one.",
    )


def _run_worker(request: dict[str, Any], form: str, environment: Environment, progress: Progress) -> dict[str, Any]:
    """Run the worker to its end; returns what it told last."""
    command = [str(environment.python), "-I", str(WORKER)]
    variables = {
        name: value for name, value in environment.env().items() if name != "TQDM_DISABLE"
    }  # bars tell how far
    last: dict[str, Any] = {}
    shown = 0.0
    with TemporaryDirectory(prefix="tuneloop-quantize-") as scratch:
        request_file, log = Path(scratch) / "request.json", Path(scratch) / "log.txt"
        request_file.write_text(json.dumps(request), encoding="utf-8")
        with (
            progress.task(f"Quantising to {form}", 1.0) as advance,
            log.open("wb") as errors,
            subprocess.Popen(
                [*command, str(request_file)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                env=variables, text=True, encoding="utf-8",
            ) as process,
        ):  # fmt: skip
            try:
                for last in _events(process):
                    if last["event"] == "step":
                        share = max((last["at"] - 1) / last["total"], shown)
                        advance(share - shown)
                        shown = share
            except BaseException:
                process.kill()
                raise
        if last.get("event") == "done" and process.returncode == 0:
            return last
        output = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    raise _explained(form, last, process.returncode, output)


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    if process.stdout is None:
        return
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a library's child process wrote to the pipe that it inherited
        if isinstance(event, dict) and "event" in event:
            yield event


def _explained(form: str, last: dict[str, Any], code: int, output: Sequence[str]) -> TuneloopError:
    where = f"llm-compressor, while making {form}"
    if last.get("event") == "error":
        return ModelError(
            f"llm-compressor could not quantise this model ({last['kind']}: {last['message']})",
            where=where,
            hint="Its architecture may not be supported; export merged or a gguf form instead.",
        )
    if code < 0:
        return TuneloopError(
            f"the process was ended by signal {-code}",
            where=where,
            hint="Signal 9 mostly means that memory ran out: lower export.calibration_examples."
            if code == -9
            else "Run the same command again.",
        )
    ending = next((line.strip() for line in reversed(output) if line.strip()), "no message")
    return TuneloopError(
        f"the process ended with exit code {code} ({ending[:300]})",
        where=where,
        hint="Remove the environment and make it again: `tuneloop environment remove llm-compressor`, then `create`.",
    )


def _copy_the_rest(merged: Path, target: Path) -> None:
    for path in sorted(path for path in merged.iterdir() if path.is_file()):
        if ".safetensors" not in path.name and path.name not in WRITTEN_ANEW:
            shutil.copyfile(path, target / path.name)
