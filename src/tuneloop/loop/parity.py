"""A run beside everything that should answer as it does: its exported forms, engines, and what is served elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.errors import ArtifactError, UsageError, nearest
from tuneloop.forms import FORMS, KIND, ExportedForm, FormName, read_form
from tuneloop.progress import Progress

if TYPE_CHECKING:
    from tuneloop.export.parity.asked import Answering, Asked
    from tuneloop.export.parity.result import ParityResult
    from tuneloop.records import Example

REFERENCE = "the evaluated model"
ENGINES = ("transformers", "llamacpp", "vllm")
WRITE = "Write a form (merged), ENGINE or ENGINE@FORM (vllm@merged), export:ID, URL of a service, or URL#MODEL."


@dataclass(frozen=True)
class Compared:
    """Something to compare with the run: how it is called, by which form's tolerance it is judged, how to open it."""

    name: str
    judged_as: FormName
    open: Callable[[], Answering]
    artifact: Artifact | None = None
    form: ExportedForm | None = None
    url: str = ""


@dataclass(frozen=True)
class ParityCheck:
    """What a check found, and the artifact in which it is kept."""

    results: tuple[ParityResult, ...]
    artifact: Artifact


def check_parity_of(
    config: Config,
    run: Artifact,
    names: Sequence[str],
    store: ArtifactStore,
    progress: Progress,
    *,
    like: FormName = "merged",
) -> ParityCheck:
    """Put held-out documents through the run and through everything that `names` name, and keep the result.

    Args: names: see `find_compared` (none: every export of the run); like: by whose tolerance URLs are judged.
    Raises: UsageError: a name is unknown, or there is nothing to compare; whatever opening or asking an engine raises.
    """
    from tuneloop.dataset import dataset_of
    from tuneloop.export.items import parity_items
    from tuneloop.export.parity.stored import record_parity

    found = find_compared(config, run, names, store, progress, like=like)
    items = parity_items(dataset_of(run), config.export)
    reference = _ask_reference(config, run, items, progress)
    results = tuple(_check(one, reference, config, run, items, store, progress) for one in found)
    forms = {one.name: one.artifact.id for one in found if one.artifact is not None}
    parents = {"run": run.id, "dataset": run.parents["dataset"], **forms}
    where = {one.name: one.url.partition("#")[0] for one in found if one.url}
    return ParityCheck(results, record_parity(results, items, parents, store, where))


def find_compared(
    config: Config,
    run: Artifact,
    names: Sequence[str],
    store: ArtifactStore,
    progress: Progress,
    *,
    like: FormName = "merged",
) -> list[Compared]:
    """Return what the names name; without any, every export of the run.

    Raises: UsageError: a name is unknown or twice there, or there is no export at all; ArtifactError: no such export.
    """
    if len(set(names)) < len(names):
        raise UsageError("a name is there twice", where=" ".join(names), hint="Name each once.")
    if not names:
        exports = exports_of(run, store)
        if not exports:
            raise UsageError(
                f"run {run.id} has no export yet, and nothing else is named",
                where="tuneloop parity",
                hint=f"Run `tuneloop export` first, or name something. {WRITE}",
            )
        return [_exported(artifact, None, config, progress) for artifact in exports]
    return [_named(name, config, run, store, progress, like) for name in names]


def exports_of(run: Artifact, store: ArtifactStore) -> list[Artifact]:
    """Return the newest export of a run in each form, in the order of `FORMS`."""
    newest: dict[str, Artifact] = {}
    for artifact in store:
        if artifact.kind == KIND and artifact.parents.get("run") == run.id:
            newest[read_form(artifact).name] = artifact
    return [newest[name] for name in FORMS if name in newest]


def _named(
    name: str, config: Config, run: Artifact, store: ArtifactStore, progress: Progress, like: FormName
) -> Compared:
    if "://" in name:
        return _at_url(name, config, run, progress, like)
    engine, at, form = name.partition("@")
    if engine in ENGINES and at:
        return _exported(_export_of(run, form, store), engine, config, progress)
    if engine in ENGINES:
        return Compared(name, like, lambda: _open(config, engine, progress, run=run))
    if name.startswith("export:"):
        return _exported(store.get(name.removeprefix("export:")), None, config, progress)
    return _exported(_export_of(run, name, store), None, config, progress)


def _at_url(name: str, config: Config, run: Artifact, progress: Progress, like: FormName) -> Compared:
    from tuneloop.export.parity.service import ServiceClient
    from tuneloop.infer.engines.opening import task_of_model

    is_vllm, url = name.startswith("vllm:"), name.removeprefix("vllm:")
    task = task_of_model(run, None)
    if is_vllm or "#" in url:
        engine = "vllm" if is_vllm else "openai"
        return Compared(name, like, lambda: _open(config, engine, progress, run=run, url=url), url=url)
    return Compared(name, like, lambda: ServiceClient(url, task), url=url)


def _exported(artifact: Artifact, engine: str | None, config: Config, progress: Progress) -> Compared:
    form = read_form(artifact)
    name = form.name if engine is None else f"{engine}@{form.name}"
    return Compared(name, form.name, lambda: _open(config, engine or form.engine, progress, form=form), artifact, form)


def _export_of(run: Artifact, form: str, store: ArtifactStore) -> Artifact:
    if form not in FORMS:
        raise UsageError(
            f"there is no form, engine or address {form!r}.{nearest(form, [*FORMS, *ENGINES])}",
            where=f"tuneloop parity {form}",
            hint=WRITE,
        )
    found = next((artifact for artifact in exports_of(run, store) if read_form(artifact).name == form), None)
    if found is None:
        raise ArtifactError(
            f"run {run.id} was not exported as {form} yet",
            where=str(store.root),
            hint=f"Run `tuneloop export {form}` first, with the same configuration and the same --set.",
        )
    return found


def _open(
    config: Config,
    engine: str,
    progress: Progress,
    *,
    run: Artifact | None = None,
    form: ExportedForm | None = None,
    url: str | None = None,
) -> Answering:
    from typing import cast

    from tuneloop.infer.engines.opening import EngineKind, open_engine

    return open_engine(config, cast(EngineKind, engine), run=run, form=form, url=url, progress=progress)


def _ask_reference(config: Config, run: Artifact, items: Sequence[Example], progress: Progress) -> Asked:
    from tuneloop.export.parity.asked import ask

    engine = _open(config, "transformers", progress, run=run)
    try:
        return ask(engine, items, REFERENCE, progress)
    finally:
        engine.close()


def _check(
    one: Compared,
    reference: Asked,
    config: Config,
    run: Artifact,
    items: Sequence[Example],
    store: ArtifactStore,
    progress: Progress,
) -> ParityResult:
    """Ask one and compare it; where it calibrates its probabilities, so are the reference's."""
    from tuneloop.export.parity.asked import ask
    from tuneloop.export.parity.known import with_known_reasons
    from tuneloop.export.parity.run import check_parity
    from tuneloop.export.parity.service import ServiceClient
    from tuneloop.export.parity.tolerance import Tolerance
    from tuneloop.infer.engines.opening import open_untuned_engine

    tolerance = Tolerance(**config.export.tolerances.of(one.judged_as).model_dump())
    engine = one.open()
    try:
        asked = ask(engine, items, one.name, progress)
    finally:
        engine.close()
    if isinstance(engine, ServiceClient) and engine.is_calibrated:
        reference = _calibrated(reference, config, run, store)
    result = check_parity(
        reference,
        asked,
        items,
        tolerance,
        untuned=lambda: open_untuned_engine(config, run, progress),
        progress=progress,
    )
    return with_known_reasons(result, one.form)


def _calibrated(reference: Asked, config: Config, run: Artifact, store: ArtifactStore) -> Asked:
    """Return the reference's answers with calibrated probabilities; unstated where there is no calibration here."""
    from tuneloop.loop.stages import find_policy
    from tuneloop.records import UNSTATED_PROBABILITY

    policy = find_policy(config, run, store)
    if policy is None:
        answers = [replace(one, probability=UNSTATED_PROBABILITY) for one in reference.predictions]
    else:
        answers = policy.apply(reference.predictions)
    return replace(reference, predictions=tuple(answers))
