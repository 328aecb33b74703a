"""`tuneloop deploy`: the files with which an exported form runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuneloop.artifacts import Artifact
    from tuneloop.cli.session import Session

EPILOG = options.example(
    "tuneloop deploy docker --output deploy --with name=claims",
    "tuneloop deploy kubernetes merged --output deploy --with database_url=postgresql://tuneloop@db/tuneloop",
    "tuneloop deploy ollama gguf-q8_0 --output deploy",
    "tuneloop deploy hub merged --output uploaded --with repo=OWNER/NAME --dry-run",
)


def deploy(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="hub, ollama, kubernetes, docker, compose, modal, systemd or vllm (a command line)."
        ),
    ],
    form: Annotated[
        str | None,
        typer.Argument(metavar="[FORM|ID]", help="Which export (default: the first that the target can take)."),
    ] = None,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Of this run (default: the configuration's).")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder for the files; made where needed.")
    ] = Path("deploy"),
    given: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="KEY=VALUE", help="A setting of the target, as name=claims or replicas=3."),
    ] = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Write what a target needs to run an exported form: image, manifests, unit, Modelfile; or upload it to the Hub.

    Nothing is started. docs/deploy.md says what to do with the files, and which settings --with takes.
    """
    from tuneloop.cli.session import open_session, split_id
    from tuneloop.export.targets.settings import TargetSettings
    from tuneloop.export.targets.write import plan, write
    from tuneloop.forms import read_form

    form, words = split_id(form, overrides)
    session = open_session(config, words, sets, as_json=as_json)
    settings = TargetSettings.of(_pairs(given or []))
    artifact = _export_for(session, target, form, run)
    exported = read_form(artifact)
    data: dict[str, Any] = {"target": target, "form": exported.name, "export": artifact.id, "output": str(output)}
    if dry_run:
        sizes = plan(target, exported, settings)
        listed = [f"  {name}  {size:,} bytes" for name, size in sizes.items()]
        verb = "uploaded" if target == "hub" else f"written to {output}"
        data |= {"dry_run": True, "files": sizes}
        session.finish(data, f"{exported.name} {artifact.id} would be {verb} (nothing was):", *listed)
        return
    paths = write(target, exported, settings, output)
    data |= {"files": [str(path) for path in paths]}
    headline = f"{exported.name} {artifact.id} for {target}:"
    session.finish(data, headline, *(f"  {path}" for path in paths), "", "Next: see docs/deploy.md.")


def _pairs(words: Sequence[str]) -> dict[str, str]:
    from tuneloop.errors import UsageError

    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError("this is no KEY=VALUE", where=f"--with {word}", hint="Write --with name=claims.")
        found[key.strip()] = value
    return found


def _export_for(session: Session, target: str, form: str | None, run: str | None) -> Artifact:
    """Return the export that is named by form or id, or the first of the run that the target can take.

    Raises: UsageError: there is no such target, or no export for it; ArtifactError: no export has this id.
    """
    from tuneloop.cli.session import chosen_run
    from tuneloop.errors import UsageError, nearest
    from tuneloop.export.targets.write import TARGETS, takes
    from tuneloop.forms import FORMS, read_form
    from tuneloop.loop.parity import exports_of

    if target not in TARGETS:
        hint = f"There are {', '.join(TARGETS)}.{nearest(target, list(TARGETS))}"
        raise UsageError(f"there is no target {target!r}", where=f"tuneloop deploy {target}", hint=hint)
    if form is not None and form not in FORMS:
        return session.store.get(form)
    exports = exports_of(chosen_run(session, run), session.store)
    fitting = [one for one in exports if (read_form(one).name == form if form else takes(target, read_form(one)))]
    if not fitting:
        wanted = form or ("gguf-q8_0" if target == "ollama" else "merged")
        raise UsageError(
            f"there is no export {form or f'that {target} takes'} of this run yet",
            where=f"tuneloop deploy {target}",
            hint=f"Run `tuneloop export {wanted}` first, with the same configuration and the same --set.",
        )
    return fitting[0]
