"""`tuneloop keys`: who may use the service, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from datetime import datetime

    from tuneloop.cli.session import Session
    from tuneloop.serve.guard import Scope
    from tuneloop.serve.keys import KeyFacts, NewKey

app = typer.Typer(
    help="Make, list, rotate and revoke the API keys of the service.",
    short_help="API keys of the service.",
    epilog=options.example("tuneloop keys create billing --scope predict --expires 90d", "tuneloop keys list"),
    rich_markup_mode=None,
)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The id of a key, its beginning, or its name.")]
Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="When it ends: 90d, 24h, 2030-12-31 (default: never)."),
]
RequestQuota = Annotated[
    int | None,
    typer.Option("--requests-per-minute", metavar="N", min=1, help="Its own quota instead of the configuration's."),
]
TokenQuota = Annotated[
    int | None,
    typer.Option("--tokens-per-minute", metavar="N", min=1, help="Its own quota instead of the configuration's."),
]


app.callback(invoke_without_command=True)(options.show_help)


@app.command(
    "create",
    epilog=options.example(
        "tuneloop keys create billing --scope predict --expires 90d",
        "tuneloop keys create reviewers --scope feedback --scope review",
    ),
    short_help="Make a key.",
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom or what it is for; shown in lists.")],
    scope: Annotated[
        list[str],
        typer.Option("--scope", metavar="SCOPE", help="predict, feedback, review or admin; several times for several."),
    ],
    expires: Expires = None,
    requests_per_minute: RequestQuota = None,
    tokens_per_minute: TokenQuota = None,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Make a key and print it: this once, since only its hash is stored. A running service knows it within a second."""
    from tuneloop.cli.session import open_session
    from tuneloop.cli.times import time_to_come
    from tuneloop.serve.keys import create_key
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    scopes = [_scope(word) for word in scope]
    expires_at = None if expires is None else time_to_come(expires, "--expires")
    if dry_run:
        facts = {"name": name, "scopes": scopes, "expires_at": expires_at}
        session.finish({"dry_run": True, **facts}, f"A key for {name} would be made: {', '.join(scopes)}.")
        return
    with open_database(session.config.store) as database:
        made = create_key(
            database,
            name,
            scopes,
            expires_at=expires_at,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
    _show_new(session, made)


@app.command("list", epilog=options.example("tuneloop keys list", "tuneloop keys list --json"))
def list_(
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
) -> None:
    """List all keys, also those that are expired or revoked; no secret is shown, since none is stored."""
    from tuneloop.cli.render import table
    from tuneloop.cli.session import open_session
    from tuneloop.serve.keys import list_keys
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    with open_database(session.config.store) as database:
        rows = [_facts(key) for key in list_keys(database)]
    if not rows:
        session.finish({"keys": []}, "There are no keys.", "", "Next: tuneloop keys create NAME --scope predict")
        return
    shown = ("id", "name", "status", "scopes", "created_at", "expires_at", "last_used_at")
    cells = [[_cell(row[name]) for name in shown] for row in rows]
    session.finish({"keys": rows}, table([name.removesuffix("_at").replace("_", " ") for name in shown], cells))


@app.command(
    "rotate",
    epilog=options.example("tuneloop keys rotate billing", "tuneloop keys rotate 7kq2v --overlap 7d"),
    short_help="Replace a key.",
)
def rotate(
    key: Key,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="SPAN", help="How long the old key stays good: 24h, 7d, 0s.")
    ] = "24h",
    expires: Expires = None,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Make a new key with the same name, scopes and quotas; the old one stays good for a while, so nothing breaks."""
    from tuneloop.cli.session import open_session
    from tuneloop.cli.times import time_span, time_to_come
    from tuneloop.serve.keys import find_key, rotate_key
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    stays, expires_at = time_span(overlap, "--overlap"), expires and time_to_come(expires, "--expires")
    with open_database(session.config.store) as database:
        if dry_run:
            old = find_key(database, key)
            facts = {"dry_run": True, "id": old.id, "name": old.name, "overlap": overlap}
            session.finish(facts, f"The key {old.id} ({old.name}) would be replaced, and end after {overlap}.")
            return
        made = rotate_key(database, key, overlap=stays, expires_at=expires_at or None)
        old = find_key(database, made.facts.replaces or "")
    _show_new(session, made, f"The old key {old.id} is good until {_cell(old.expires_at)}.")


@app.command("revoke", epilog=options.example("tuneloop keys revoke billing"), short_help="End a key now.")
def revoke(
    key: Key,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """End a key. A running service refuses it within about a second; what is under way is answered."""
    from tuneloop.cli.session import open_session
    from tuneloop.serve.keys import find_key, revoke_key
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    with open_database(session.config.store) as database:
        found = find_key(database, key) if dry_run else revoke_key(database, key)
    marked = {"dry_run": True} if dry_run else {}
    done = "would be revoked" if dry_run else "is revoked"
    session.finish({**marked, **_facts(found)}, f"The key {found.id} ({found.name}) {done}.")


def _scope(word: str) -> Scope:
    from tuneloop.errors import UsageError, nearest
    from tuneloop.serve.guard import SCOPES

    if word not in SCOPES:
        hint = f"Choose from {', '.join(SCOPES)}.{nearest(word, list(SCOPES))}"
        raise UsageError(f"there is no scope {word!r}", where=f"--scope {word}", hint=hint)
    return next(scope for scope in SCOPES if scope == word)


def _show_new(session: Session, made: NewKey, *more: str) -> None:
    data = {"key": made.secret, **_facts(made.facts)}
    about = f"id {made.facts.id}, {', '.join(made.facts.scopes)}, {_until(made.facts.expires_at)}"
    session.finish(data, made.secret, "", f"This is shown once: keep it now. ({about})", *more)


def _until(moment: datetime | None) -> str:
    return "without end" if moment is None else f"until {_cell(moment)}"


def _facts(key: KeyFacts) -> dict[str, Any]:
    """Return what may be shown of a key."""
    from dataclasses import asdict
    from datetime import UTC, datetime

    facts = {name: value for name, value in asdict(key).items() if name != "hash"}
    return {**facts, "status": key.status(datetime.now(UTC))}


def _cell(value: Any) -> str:
    if value is None:
        return "never"
    if isinstance(value, tuple | list):
        return ", ".join(value)
    return value if isinstance(value, str) else f"{value:%Y-%m-%d %H:%M} UTC"
