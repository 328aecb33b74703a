"""`tuneloop export`: a run in the forms that others can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuneloop.artifacts import Artifact
    from tuneloop.cli.session import Session
    from tuneloop.export.run import Exported
    from tuneloop.forms import FormName

EPILOG = options.example(
    "tuneloop export",
    "tuneloop export merged gguf-q4_k_m --bundle release.tar.gz",
    "tuneloop export gptq-4bit export.group_size=64",
    "tuneloop export gguf-q4_k_m --allow-beyond-tolerance gguf-q4_k_m",
    "tuneloop export --list",
)


def export(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FORM|KEY=VALUE]...",
            help="adapter, merged, int8, gptq-4bit, awq-4bit, gguf-f16, gguf-q8_0 or gguf-q4_k_m (default: "
            "export.forms). A key=value among them overrides the configuration.",
        ),
    ] = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Export this run (default: the configuration's).")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="PATH", help="Also write them, with all papers, to a folder or a .tar.gz."),
    ] = None,
    allow_beyond_tolerance: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-beyond-tolerance", metavar="FORM", help="Export this form even if it answers differently."
        ),
    ] = None,
    list_exports: Annotated[bool, typer.Option("--list", help="List the exports that are there, and stop.")] = False,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Export the tuned model: adapter, merged, quantised or GGUF, each proven to answer like the evaluated one.

    A form that answers differently is refused (exit code 4), with the first document and token where it departs.
    """
    from tuneloop.cli.export_lists import list_all, print_exports
    from tuneloop.cli.session import chosen_run, open_session

    words = overrides or []
    session = open_session(config, [word for word in words if "=" in word], sets, as_json=as_json)
    forms = _known([word for word in words if "=" not in word], "tuneloop export")
    allowed = _known(allow_beyond_tolerance or [], "--allow-beyond-tolerance")
    if list_exports:
        list_all(session)
        return
    wanted = forms or session.config.export.forms
    chosen = chosen_run(session, run)
    if bundle is not None:
        _check_bundle(bundle, chosen, wanted)
    if dry_run:
        _plan(session, chosen, wanted, bundle)
        return
    from tuneloop.loop import stages

    done = stages.export(
        session.config, session.store, session.progress, wanted, run=chosen, allow_beyond_tolerance=allowed
    )
    written = [] if bundle is None else _write_bundle(session, bundle, done, wanted)
    print_exports(session, done, chosen, written)
    refusals = [one.refusal for one in done if one.refusal is not None]
    if refusals and as_json:
        raise typer.Exit(refusals[0].exit_code)  # the one object on stdout has them all
    if refusals:
        raise refusals[0]


def _known(words: Sequence[str], where: str) -> list[FormName]:
    """Return the forms that words name. Raises: UsageError: there is no such form."""
    from tuneloop.errors import UsageError, nearest
    from tuneloop.forms import FORMS

    for word in words:
        if word not in FORMS:
            raise UsageError(
                f"there is no form {word!r}.{nearest(word, list(FORMS))}",
                where=where,
                hint=f"Forms are {', '.join(FORMS)}.",
            )
    return [form for form in FORMS if form in words]


def _check_bundle(bundle: Path, run: Artifact, forms: Sequence[FormName]) -> None:
    from tuneloop.export.bundle import require_bundle_target

    require_bundle_target(bundle, [f"{run.id[:8]}-{form}" for form in forms])


def _plan(session: Session, run: Artifact, forms: Sequence[FormName], bundle: Path | None) -> None:
    from tuneloop.cli.stages import plan_stage

    facts: dict[str, Any] = {"run": run.id, "forms": list(forms)}
    facts |= {} if bundle is None else {"bundle": str(bundle)}
    plan_stage(session, "export", facts, session.config.export)


def _write_bundle(session: Session, bundle: Path, done: Sequence[Exported], wanted: Sequence[FormName]) -> list[Path]:
    """Bundle the forms that were asked for and not refused."""
    from tuneloop.export.bundle import write_bundle

    artifacts = [one.artifact for one in done if one.form in wanted and one.artifact is not None]
    if not artifacts:
        return []
    return write_bundle(bundle, artifacts, session.config.export, session.store, session.progress)
