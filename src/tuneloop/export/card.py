"""The model card beside an exported form: how to load it, how it was proven, and what the evaluation found.

The evaluation writes a card with all figures; here it gets the metadata of the form and a part in front that says what
is in this folder. Without an evaluation the card says that there was none.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tuneloop.export.identity import front_matter
from tuneloop.export.licences import licence_chain
from tuneloop.export.source import Source
from tuneloop.forms import CARD, GGUF, MODEL, POLICY, ExportedForm
from tuneloop.models.embedded import HUB_NAME

LIBRARIES = {"adapter": "peft", "merged": "transformers"}
RELATIONS = {"adapter": "adapter", "merged": "finetune"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LOAD_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, "adapter")
tokenizer = AutoTokenizer.from_pretrained("adapter")"""
LOAD_MODEL = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("model", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("model")"""
ASK = """
messages = [
    {{"role": "system", "content": {system}}},
    {{"role": "user", "content": "a document"}},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**inputs, do_sample=False, max_new_tokens={tokens})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
ASK_GGUF = """from llama_cpp import Llama

model = Llama("model.gguf", n_ctx={context})
messages = [
    {{"role": "system", "content": {system}}},
    {{"role": "user", "content": "a document"}},
]
answer = model.create_chat_completion(messages, temperature=0.0, max_tokens={tokens})
print(answer["choices"][0]["message"]["content"])"""


def write_card(folder: Path, source: Source, form: ExportedForm) -> None:
    """Write README.md into the folder of a form, which holds everything else already."""
    metadata, body = front_matter(source.card or _unevaluated(source))
    metadata |= _metadata(source, form)
    known = {name: value for name, value in metadata.items() if value is not None}
    head = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=100)
    title, _, rest = body.partition("\n")
    parts = [f"---\n{head}---\n", title, "", _this_form(source, form), rest.lstrip("\n")]
    (folder / CARD).write_text("\n".join(parts), encoding="utf-8")


def _metadata(source: Source, form: ExportedForm) -> dict[str, Any]:
    chain = licence_chain(source.base, source.config.export, form.name)
    is_on_hub = HUB_ID.fullmatch(source.base.title) is not None and not Path(source.base.loadable).is_dir()
    stated = chain[-1].licence
    return {
        "library_name": "gguf" if form.engine == "llamacpp" else LIBRARIES.get(form.name, "transformers"),
        "base_model": source.base.title if is_on_hub else None,
        "base_model_relation": RELATIONS.get(form.name, "quantized") if is_on_hub else None,
        "license": None if stated is None else stated.lower(),
        "pipeline_tag": "text-generation",
    }


def _this_form(source: Source, form: ExportedForm) -> str:
    """Return the part that says what is in the folder."""
    about = {
        "adapter": "`adapter/` holds the adapter alone, in PEFT's layout; it answers rightly on its base model only.",
        "merged": "`model/` holds base model and adapter merged into one ordinary model.",
    }.get(form.name, f"`{form.path.name}` holds base model and adapter merged into one model, as {form.name}.")
    lines = ["## This export", "", about, "", *_base_note(source, form), *_code(source, form), ""]
    routed = f"Probabilities are calibrated and answers routed by `{POLICY}`. " if source.policy else ""
    lines += [f"{routed}What it may be asked is in `task.json`, how it was compared with the original in `form.json`."]
    lines += ["", _parity_sentence(form), "", "Licences:", ""]
    for link in licence_chain(source.base, source.config.export, form.name):
        stated = link.licence or "not stated"
        lines.append(f"- {link.what} ({_plain(link.name)}): {_plain(stated)} ({link.stated_in})")
    return "\n".join([*lines, ""])


def _base_note(source: Source, form: ExportedForm) -> list[str]:
    if form.name != "adapter" or source.base.loadable != HUB_NAME or source.config.model.base_model == HUB_NAME:
        return []
    return [
        "It was trained on the embedded copy of this model, whose weights were rounded to four bits before; on the "
        "weights of the Hub its answers differ a little. The merged form has exactly the weights that were evaluated.",
        "",
    ]


def _code(source: Source, form: ExportedForm) -> list[str]:
    system = json.dumps(source.task.system(), ensure_ascii=False)
    tokens = source.config.evaluate.max_new_tokens
    if form.path.name == GGUF:
        code = ASK_GGUF.format(system=system, tokens=tokens, context=source.config.model.max_tokens)
    else:
        load = LOAD_MODEL if form.path.name == MODEL else LOAD_ADAPTER.format(base=json.dumps(source.base.title))
        code = load + "\n" + ASK.format(system=system, tokens=tokens)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return [f"{fence}python", code, fence]


def _parity_sentence(form: ExportedForm) -> str:
    found = str(form.parity.get("verdict", ""))
    allowed = " That is beyond its tolerance, and was allowed by name." if form.is_allowed_beyond else ""
    return f"Compared with the model that was evaluated: {_plain(found)}{allowed}"


def _unevaluated(source: Source) -> str:
    task = source.task
    answers = f"one of {len(task.labels)} labels" if task.has_label else "entities"
    tags = yaml.safe_dump({"tags": ["tuneloop"]})
    return (
        f"---\n{tags}---\n\n# {task.kind} {source.run.id[:8]}\n\n{_plain(source.base.title)}, tuned to give a document "
        f"{answers}. It was not evaluated when this was exported: nothing is known about how often it is right.\n"
    )


def _plain(text: str) -> str:
    """Return foreign text in one line, without characters that Markdown or HTML would act on."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", line)
