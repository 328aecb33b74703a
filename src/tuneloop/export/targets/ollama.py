"""An Ollama Modelfile for a GGUF form: instruction, chat template in Go's syntax, stop and context.

The Go template is made from how the model's own template writes two marked texts, and is then checked against it on
other texts: it renders byte-equal, or there is no Modelfile. Modelfile syntax: ollama/ollama, parser/parser.go; its
reader drops characters that Go does not call printable, so texts with such ones are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tuneloop.errors import UsageError
from tuneloop.export.targets.escape import render
from tuneloop.export.targets.gguf_chat import GgufChat, read_chat
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import ExportedForm
from tuneloop.models.prompt import TaskPrompt

MODELFILE = "Modelfile"
SYSTEM, DOCUMENT = "tuneloop-system-mark", "tuneloop-document-mark"
PROBES = (("Classify.", "a document"), ("One.\nTwo {{ braces }}", 'Line one\n  "two" {% raw %}'), ("é", " ünder "))
NOT_PRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"}  # Go's strconv.IsPrint, but for the ASCII space
BLANKS = " \t\r\n"
OPENING = re.compile(r"\{{2,}|\{\Z")


@dataclass(frozen=True)
class TurnParts:
    """What a template writes before the instruction, between it and the document, and after that; `alone` stands before
    a document where there is no instruction, `end` after an answer.
    """

    before: str
    between: str
    after: str
    alone: str
    end: str

    def go_template(self) -> str:
        """Return the Go template that writes the same."""
        before, between, after, alone, end = map(
            go_literal, (self.before, self.between, self.after, self.alone, self.end)
        )
        system = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{between}{{{{ else }}}}{alone}{{{{ end }}}}"
        return f"{system}{{{{ .Prompt }}}}{after}{{{{ .Response }}}}{end}"


def files(form: ExportedForm, settings: TargetSettings) -> dict[str, str]:
    """Return the Modelfile, and a script that gives it to Ollama.

    Raises: UsageError: the form is no GGUF, or instruction or template cannot be written in a Modelfile.
    """
    if form.engine != "llamacpp":
        raise UsageError(
            f"Ollama loads GGUF files, this is {form.name}",
            where=str(form.folder),
            hint="Export gguf-q8_0 or gguf-f16, and name that.",
        )
    chat = read_chat(form.path)
    system = chat.neutralize(TaskPrompt.from_dict(form.task).system())
    parts = turn_parts(chat, [(system, "a document"), *PROBES])
    modelfile = "\n".join(
        [
            f"FROM {quoted(str(form.path.absolute()), 'path of the form')}",
            f"TEMPLATE {quoted(parts.go_template(), 'chat template')}",
            f"SYSTEM {quoted(system, 'task.instruction')}",
            "PARAMETER temperature 0",
            f"PARAMETER num_ctx {settings.max_tokens}",
            *(f"PARAMETER stop {quoted(word, 'end of turn')}" for word in chat.stops),
            "",
        ]
    )
    return {MODELFILE: modelfile, "create.sh": render("ollama-create.sh.j2", name=settings.slug)}


def turn_parts(chat: GgufChat, probes: Sequence[tuple[str, str]]) -> TurnParts:
    """Return what the model's template writes around instruction and document.

    Raises: UsageError: it changes what it is given (trims it, say), so no Go template would write the same.
    """
    rendered = chat.render(SYSTEM, DOCUMENT)
    before, has_system, rest = rendered.partition(SYSTEM)
    between, has_document, after = rest.partition(DOCUMENT)
    alone, _, _ = chat.render(None, DOCUMENT).partition(DOCUMENT)
    parts = TurnParts(before, between, after, alone, chat.turn_end)
    is_same = all(
        f"{before}{system}{between}{document}{after}" == chat.render(system, document) for system, document in probes
    )
    if not (has_system and has_document and is_same):
        raise UsageError(
            "its chat template changes the texts that it is given, which no Ollama template can repeat",
            where="chat template",
            hint="Use another target; llama.cpp's own server applies the model's template as it is.",
        )
    return parts


def go_literal(text: str) -> str:
    """Return the Go template that writes this text: in text/template only `{{` means something, and a brace at the end
    would make one with what follows.
    """
    return OPENING.sub(lambda match: f'{{{{ "{match[0]}" }}}}', text)


def quoted(text: str, what: str) -> str:
    """Return a value of a Modelfile in triple quotes.

    Raises: UsageError: Ollama's reader would end it early, or drop a character of it.
    """
    dropped = next((c for c in text if c not in BLANKS and unicodedata.category(c) in NOT_PRINTABLE), None)
    if dropped is not None:
        raise _unwritable(what, f"Ollama drops the character U+{ord(dropped):04X} ({_name(dropped)}) from it")
    if any(line.rstrip().endswith('"""') for line in text.split("\n")[:-1]) or text.endswith('"""'):
        raise _unwritable(what, "it has a line that ends in three quotes, where a Modelfile's value ends")
    return f'"""{text}"""'


def _name(character: str) -> str:
    return unicodedata.name(character, "a control character").lower()


def _unwritable(what: str, found: str) -> UsageError:
    return UsageError(
        f"{found}, so the prompt would not be the one that was evaluated",
        where=what,
        hint="Write it without, train again, and export that; or use another target.",
    )
