"""`tuneloop lineage`: from an artifact back to the rows it came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from rich.tree import Tree

    from tuneloop.artifacts import Artifact, ArtifactStore

EPILOG = options.example("tuneloop lineage", "tuneloop lineage 3f9a", "tuneloop lineage 3f9a --verify")


def lineage(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="An artifact's id, or how it begins.")] = None,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the checksum of every file.")] = False,
    as_json: options.Json = False,
) -> None:
    """List all artifacts, or show what one was made from, step by step, down to the source files."""
    from tuneloop.cli.session import open_session, split_id

    id, overrides = split_id(id, overrides)
    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    chosen = list(session.store) if id is None else list(_ancestors(session.store, session.store.get(id)))
    if verify:
        with session.progress.task("Verifying checksums", len(chosen)) as advance:
            for artifact in chosen:
                session.store.verify(artifact)
                advance(1)
    described = [_describe(artifact) for artifact in chosen]
    if id is None:
        session.finish({"artifacts": described}, _listing(chosen, session.store))
    else:
        session.finish({"id": chosen[0].id, "artifacts": described}, _tree(session.store, chosen[0]))


def _ancestors(store: ArtifactStore, artifact: Artifact) -> Iterator[Artifact]:
    """Yield the artifact, then everything it was made from, each once."""
    seen: set[str] = set()
    waiting = [artifact]
    while waiting:
        here = waiting.pop(0)
        if here.id in seen:
            continue
        seen.add(here.id)
        yield here
        waiting += [store.get(parent) for parent in here.parents.values()]


def _describe(artifact: Artifact) -> dict[str, Any]:
    kept = ("parents", "inputs", "summary", "seed", "packages", "machine", "finished_at", "wall_time_s")
    about = {name: artifact.manifest[name] for name in kept}
    return {"kind": artifact.kind, "id": artifact.id, "path": str(artifact.path), **about}


def _listing(artifacts: list[Artifact], store: ArtifactStore) -> Any:
    from tuneloop.cli.render import table

    if not artifacts:
        return f"No artifacts in {store.root} yet; `tuneloop data prepare` makes the first."
    rows = [[a.kind, a.id, str(a.manifest["finished_at"])[:19], _brief(a)] for a in artifacts]
    return table(["kind", "id", "finished (UTC)", "summary"], rows)


def _tree(store: ArtifactStore, artifact: Artifact, role: str = "") -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    title = Text.assemble((f"{role}: ", "dim") if role else "", (artifact.kind, "bold"), f" {artifact.id}")
    tree = Tree(title)
    tree.add(Text(f"{artifact.path}  ({str(artifact.manifest['finished_at'])[:19]} UTC)", "dim"))
    if brief := _brief(artifact):
        tree.add(Text(brief))
    sources = artifact.manifest["inputs"].get("sources", [])
    for source in sources if isinstance(sources, list) else []:
        tree.add(Text(_source_line(source)))
    for parent_role, parent in artifact.parents.items():
        tree.add(_tree(store, store.get(parent), parent_role))
    return tree


def _source_line(source: Any) -> str:
    """Return one line for a source file as a dataset's inputs record it."""
    if not isinstance(source, dict):
        return str(source)
    return f"source: {source.get('name', '?')}  (sha256 {str(source.get('sha256', '?'))[:16]})"


def _brief(artifact: Artifact) -> str:
    from tuneloop.cli.render import brief

    return "; ".join(f"{name.replace('_', ' ')}: {brief(value)}" for name, value in artifact.summary.items())
