"""`tuneloop serve`: the tuned model behind HTTP."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from tuneloop.cli.session import Session
    from tuneloop.config.schema import Config
    from tuneloop.config.serving import ServedModelConfig
    from tuneloop.loop.serving import Opened

EPILOG = options.example(
    "tuneloop serve",
    "tuneloop serve --run 3f9c2a7d --port 9000",
    "tuneloop serve --export 81c0d2e4",
    "tuneloop serve --as-configured   # take back what was switched over HTTP",
    "tuneloop serve --engine vllm serve.deadline_s=10",
    "tuneloop serve --host 0.0.0.0   # needs a key: tuneloop keys create --help",
)

Run = Annotated[str | None, typer.Option("--run", metavar="ID", help="Serve this run (default: the configuration's).")]
Export = Annotated[str | None, typer.Option("--export", metavar="ID", help="Serve this export.")]
AsConfigured = Annotated[
    bool, typer.Option("--as-configured", help="Forget switches made over HTTP; serve what the configuration says.")
]
Engine = Annotated[
    str | None, typer.Option("--engine", metavar="NAME", help="transformers, vllm, llamacpp or openai (serve.engine).")
]
Host = Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen (serve.host).")]
Port = Annotated[int | None, typer.Option("--port", metavar="N", help="The port; 0 takes a free one (serve.port).")]


def serve(
    overrides: options.Overrides = None,
    run: Run = None,
    export: Export = None,
    as_configured: AsConfigured = False,
    engine: Engine = None,
    host: Host = None,
    port: Port = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Answer over HTTP until Ctrl-C or SIGTERM: /v1/predict, an OpenAI-compatible API, health and metrics.

    Listens on this machine only, unless there are API keys. With --json one object tells the URL when it is ready.
    """
    from tuneloop.cli.session import open_session

    given = {"serve.engine": engine, "serve.host": host, "serve.port": port}
    words = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    session = open_session(config, [*(overrides or []), *words], sets, as_json=as_json)
    sources = _sources(session.config, run, export)
    if dry_run:
        settings = session.config.serve
        names = [source.model_dump(exclude_none=True) for source in sources]
        facts = {"dry_run": True, "host": settings.host, "port": settings.port, "models": names}
        shown = ", ".join(source.name for source in sources)
        session.finish(facts, f"Would serve {shown} with {settings.engine} on {settings.host} port {settings.port}.")
        return
    _serve(session, sources, is_explicit=bool(run or export), as_configured=as_configured)


def _sources(config: Config, run: str | None, export: str | None) -> tuple[ServedModelConfig, ...]:
    """Return what is served: what the command line names, what the configuration lists, or its own run."""
    from tuneloop.config.serving import ServedModelConfig
    from tuneloop.errors import UsageError
    from tuneloop.loop.serving import DEFAULT_MODEL

    if run is not None and export is not None:
        raise UsageError("both a run and an export are named", where="--run, --export", hint="Name one of them.")
    if run is not None or export is not None:
        return (ServedModelConfig(name=DEFAULT_MODEL.name, run=run, export=export),)
    return config.serve.models or (DEFAULT_MODEL,)


def _serve(session: Session, sources: tuple[ServedModelConfig, ...], *, is_explicit: bool, as_configured: bool) -> None:
    """Open everything, say where it is once it answers, and serve until a signal."""
    import logging

    from tuneloop.loop.serving import open_service
    from tuneloop.serve.lifecycle import bind, run, url_of

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    settings = session.config.serve
    with (
        open_service(session.config, session.store, session.progress) as opened,
        bind(settings.host, settings.port) as listener,
    ):
        if as_configured:
            opened.forget_switches()
        chosen, notes = opened.choose_models(sources, is_explicit=is_explicit)
        for note in notes:
            session.progress.say(note)
        opened.service.models.open_all(chosen)
        run(opened.service, opened.app, listener, lambda: _say_ready(session, opened, url_of(listener)))
    session.progress.say("Stopped.")


def _say_ready(session: Session, opened: Opened, url: str) -> None:
    """Print where it answers, and a line to try it."""
    models = opened.service.models.listing()
    key = " -H 'Authorization: Bearer '\"$TUNELOOP_KEY\"" if opened.needs_keys else ""
    body = json.dumps({"documents": "A document of yours."})
    curl = f"curl {url}/v1/predict{key} -H 'Content-Type: application/json' -d '{body}'"
    lines = [f"  {model['name']}: version {model['version']}, {model['engine']}" for model in models]
    keys = "Requests need a key." if opened.needs_keys else "Requests need no key; only this machine can reach it."
    facts = {"url": url, "needs_keys": opened.needs_keys, "models": models, "curl": curl}
    session.finish(facts, f"Serving on {url} (Ctrl-C stops it).", *lines, keys, "", f"  {curl}")
    sys.stdout.flush()
