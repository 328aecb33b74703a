"""`tuneloop parity`: does everything that serves the model answer as the model that was evaluated?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneloop.cli import options
from tuneloop.cli.contenders import split_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from tuneloop.artifacts import Artifact
    from tuneloop.cli.session import Session
    from tuneloop.forms import FormName
    from tuneloop.loop.parity import ParityCheck

EPILOG = options.example(
    "tuneloop parity",
    "tuneloop parity merged gguf-q8_0 vllm@merged",
    "tuneloop parity http://127.0.0.1:8000 --like gguf-q8_0",
    "tuneloop parity vllm:http://127.0.0.1:8001/v1#claims export.parity_examples=500",
)


def parity(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ENGINE-OR-URL|KEY=VALUE]...",
            help="An exported form (merged), export:ID, an engine (vllm, vllm@merged), the URL of a tuneloop service, "
            "URL#MODEL of an OpenAI-compatible API, or vllm:URL#MODEL; none: every export of the run. A key=value "
            "among them overrides the configuration.",
        ),
    ] = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Compare with this run (default: the configuration's).")
    ] = None,
    like: Annotated[
        str, typer.Option("--like", metavar="FORM", help="Judge engines and URLs by the tolerance of this form.")
    ] = "merged",
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Put held-out documents through the evaluated model and through its forms, engines and URLs; exit code 4 where one
    answers beyond its tolerance, with the first document and token where it departs.
    """
    from tuneloop.cli.session import chosen_run, open_session

    words, overrides = split_words(names)
    session = open_session(config, overrides, sets, as_json=as_json)
    form = _form(like)
    chosen = chosen_run(session, run)
    if dry_run:
        _plan(session, chosen, words, form)
        return
    from tuneloop.loop.parity import check_parity_of

    check = check_parity_of(session.config, chosen, words, session.store, session.progress, like=form)
    _finish(session, check, chosen)


def _form(word: str) -> FormName:
    from tuneloop.errors import UsageError, nearest
    from tuneloop.forms import FORMS

    found = next((form for form in FORMS if form == word), None)
    if found is None:
        hint = f"Forms are {', '.join(FORMS)}.{nearest(word, list(FORMS))}"
        raise UsageError(f"there is no form {word!r}", where=f"--like {word}", hint=hint)
    return found


def _plan(session: Session, run: Artifact, words: Sequence[str], like: FormName) -> None:
    from tuneloop.cli.stages import plan_stage
    from tuneloop.loop.parity import find_compared

    found = find_compared(session.config, run, words, session.store, session.progress, like=like)
    plan_stage(session, "parity", {"run": run.id, "compared": [one.name for one in found]}, session.config.export)


def _finish(session: Session, check: ParityCheck, run: Artifact) -> None:
    """Print table and verdicts, and end with exit code 4 where one is beyond its tolerance."""
    from tuneloop.cli.render import table
    from tuneloop.errors import GateRefused
    from tuneloop.export.parity.words import table_of

    lines: list[RenderableType] = [table(*table_of(check.results)), ""]
    for result in check.results:
        begins_with_name = result.sentence.startswith(result.other)
        first = result.sentence[:1] if begins_with_name else result.sentence[:1].upper()
        lines.append(f"{first}{result.sentence[1:]}.")
        lines += [f"  Likely cause: {cause}." for cause in result.causes]
        lines += [f"  Note: {note}." for note in result.notes]
    data: dict[str, Any] = {
        "run": run.id,
        "within_tolerance": all(result.is_within for result in check.results),
        "results": [result.to_dict() for result in check.results],
        "kind": check.artifact.kind,
        "id": check.artifact.id,
        "path": str(check.artifact.path),
    }
    session.finish(data, *lines, "", f"{check.artifact.kind} {check.artifact.id}: {check.artifact.path}")
    if not data["within_tolerance"]:
        raise typer.Exit(GateRefused.exit_code)
