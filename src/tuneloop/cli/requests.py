"""`tuneloop requests`: what the service has answered, and what people said about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from tuneloop.records import Route
    from tuneloop.serve.log_queries import LogFilter, LoggedAnswer

app = typer.Typer(
    help="Look at, export and clear away the log of the service's answers.",
    short_help="The log of the service's answers.",
    epilog=options.example("tuneloop requests list --route review", "tuneloop requests export reviewed.jsonl"),
    rich_markup_mode=None,
)
SHOWN_CHARS = 60

Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="From then on: 7d (ago), 24h, 2026-01-31.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then, written like --since.")]
RouteName = Annotated[str | None, typer.Option("--route", metavar="ROUTE", help="Only auto, or only review.")]
Kind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Only predict, only chat, or only completion.")
]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only what this served model answered.")]
RequestIds = Annotated[
    list[str] | None, typer.Option("--request", metavar="ID", help="Only this request; may be given several times.")
]
Containing = Annotated[
    str | None, typer.Option("--containing", metavar="TEXT", help="Only documents in which this stands, as written.")
]


app.callback(invoke_without_command=True)(options.show_help)


@app.command(
    "list", epilog=options.example("tuneloop requests list --route review --since 24h"), short_help="Show the newest."
)
def list_(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="How many at most.")] = 20,
    with_feedback: Annotated[bool, typer.Option("--with-feedback", help="Only those that somebody corrected.")] = False,
    since: Since = None,
    until: Until = None,
    route: RouteName = None,
    kind: Kind = None,
    model: Model = None,
    request: RequestIds = None,
    containing: Containing = None,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
) -> None:
    """Show the newest answers, each with what somebody said about it."""
    from tuneloop.cli.render import table
    from tuneloop.cli.session import open_session
    from tuneloop.serve.log_export import export_row
    from tuneloop.serve.log_queries import count_log, newest
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    wanted = _filter(since, until, route, model, request, containing, kind=kind, has_feedback=with_feedback)
    with open_database(session.config.store) as database:
        total, answers = count_log(database, wanted), newest(database, wanted, limit)
    data = {"total": total, "requests": [export_row(answer) for answer in answers]}
    if not answers:
        session.finish(data, "No answer in the log fits.")
        return
    headings = ["time", "request", "item", "answer", "probability", "route", "said to be", "document"]
    shown = f"{len(answers):,} of {total:,} answers."
    session.finish(data, table(headings, [_cells(answer) for answer in answers]), "", shown)


@app.command(
    "export",
    epilog=options.example("tuneloop requests export reviewed.jsonl", "tuneloop requests export log.parquet --all"),
    short_help="Write them to a file that data.sources can read.",
)
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A name that ends in .jsonl or .parquet.")],
    all_rows: Annotated[
        bool, typer.Option("--all", help="Also answers without feedback; their label and entities are empty.")
    ] = False,
    since: Since = None,
    until: Until = None,
    route: RouteName = None,
    kind: Kind = None,
    model: Model = None,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Write answers with feedback as examples: text, and what was said to be right as label and entities.

    With --all also generated texts: the prompt as text (of a chat its messages as JSON), and the answer.
    Rows whose text was dropped or hashed cannot be learnt from, and are left out without --all.
    """
    from tuneloop.cli.session import open_session
    from tuneloop.serve.log_export import export_row, open_export
    from tuneloop.serve.log_queries import count_log, read_log
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    _require_writable(file)
    wanted = _filter(since, until, route, model, None, None, kind=kind, has_feedback=not all_rows)
    with open_database(session.config.store) as database:
        total = count_log(database, wanted)
        if dry_run:
            session.finish({"dry_run": True, "rows": total}, f"Up to {total:,} answers would be written to {file}.")
            return
        written = 0
        with session.progress.task("Exporting", total) as advance, open_export(file) as write:
            for page in read_log(database, wanted):
                kept = [export_row(one) for one in page if all_rows or (one.has_feedback and one.row.text)]
                write(kept)
                written += len(kept)
                advance(len(page))
    left_out = total - written
    more = [f"{left_out:,} were left out: their text was not kept."] if left_out > 0 else []
    session.finish(
        {"file": str(file), "rows": written, "left_out": left_out}, f"{written:,} answers are in {file}.", *more
    )


@app.command(
    "purge",
    epilog=options.example("tuneloop requests purge", "tuneloop requests purge --before 90d --with-feedback"),
    short_help="Delete old ones.",
)
def purge(
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="TIME", help="Older than this: 90d, 2026-01-31 (default: as configured)."),
    ] = None,
    with_feedback: Annotated[bool, typer.Option("--with-feedback", help="With --before: also corrected ones.")] = False,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Delete answers whose time is over, as a running service does by itself every hour; or those before a time."""
    from datetime import UTC, datetime, timedelta

    from tuneloop.cli.session import open_session
    from tuneloop.cli.times import time_ago
    from tuneloop.serve.log_queries import LogFilter, count_log
    from tuneloop.serve.retention import purge as purge_rows
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    limits = session.config.serve.log
    days = (limits.retention_days, limits.feedback_retention_days)
    plain, corrected = (None if n is None else datetime.now(UTC) - timedelta(days=n) for n in days)
    if before is not None:
        plain = time_ago(before, "--before")
        corrected = plain if with_feedback else None
    with open_database(session.config.store) as database:
        if dry_run:
            old = count_log(database, LogFilter(until=plain)) if plain else 0
            session.finish({"dry_run": True, "older": old}, f"{old:,} answers are older; those without feedback go.")
            return
        with session.progress.task("Deleting", count_log(database, LogFilter(until=plain))) as advance:
            deleted = purge_rows(database, plain, corrected, advance)
    session.finish({"deleted": deleted}, f"{deleted:,} answers were deleted.")


@app.command(
    "redact",
    epilog=options.example(
        "tuneloop requests redact --containing ann@example.org",
        "tuneloop requests redact --request 0f8fad5bd9cb469fa16570867728950e",
    ),
    short_help="Remove texts, and keep the figures.",
)
def redact(
    since: Since = None,
    until: Until = None,
    request: RequestIds = None,
    containing: Containing = None,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Remove the text and all values of some answers, also from their feedback: what someone asks to be forgotten."""
    from tuneloop.cli.session import open_session
    from tuneloop.errors import UsageError
    from tuneloop.serve.log_queries import count_log
    from tuneloop.serve.retention import remove_texts
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    if not (since or until or request or containing):
        hint = "Say which: --containing TEXT, --request ID, --since or --until; --since 2000-01-01 means all."
        raise UsageError("this would remove every text", where="tuneloop requests redact", hint=hint)
    wanted = _filter(since, until, None, None, request, containing)
    with open_database(session.config.store) as database:
        count = count_log(database, wanted) if dry_run else remove_texts(database, wanted)
    if dry_run:
        session.finish({"dry_run": True, "rows": count}, f"The texts of {count:,} answers would be removed.")
        return
    session.finish({"redacted": count}, f"The texts of {count:,} answers were removed.")


def _filter(
    since: str | None,
    until: str | None,
    route: str | None,
    model: str | None,
    requests: list[str] | None,
    containing: str | None,
    *,
    kind: str | None = None,
    has_feedback: bool = False,
) -> LogFilter:
    from tuneloop.cli.times import time_ago
    from tuneloop.errors import UsageError
    from tuneloop.serve.log_queries import LogFilter
    from tuneloop.store.tables import REQUEST_KINDS

    routes: dict[str | None, Route | None] = {None: None, "auto": "auto", "review": "review"}
    if route not in routes:
        raise UsageError(f"there is no route {route!r}", where=f"--route {route}", hint="Choose auto or review.")
    if kind is not None and kind not in REQUEST_KINDS:
        hint = f"Choose from {', '.join(REQUEST_KINDS)}."
        raise UsageError(f"there is no kind of request {kind!r}", where=f"--kind {kind}", hint=hint)
    return LogFilter(
        since=None if since is None else time_ago(since, "--since"),
        until=None if until is None else time_ago(until, "--until"),
        request_ids=tuple(requests or ()),
        route=routes[route],
        kind=next((known for known in REQUEST_KINDS if known == kind), None),
        model=model,
        containing=containing,
        has_feedback=has_feedback,
    )


def _require_writable(file: Path) -> None:
    from tuneloop.cli.session import require_place
    from tuneloop.errors import UsageError
    from tuneloop.sources import WRITTEN_SUFFIXES

    if file.suffix.lower() not in WRITTEN_SUFFIXES:
        hint = f"Name a file that ends in {', '.join(WRITTEN_SUFFIXES)}."
        raise UsageError(f"the suffix {file.suffix!r} names no format", where=str(file), hint=hint)
    require_place(file, str(file))


def _cells(answer: LoggedAnswer) -> list[Any]:
    from tuneloop.cli.judging import visible

    row = answer.row
    said = answer.right_label or ("entities" if answer.right_entities is not None else "")
    text = f"({row.redaction})" if row.text is None else visible(row.text)
    is_text = row.kind != "predict"
    answered = visible((row.answer if is_text else row.label) or "")
    place = [f"{row.created_at:%Y-%m-%d %H:%M:%S}", row.request_id, row.item]
    sure = [row.kind, ""] if is_text else [f"{row.probability:.3f}", row.route]
    return [*place, _beginning(answered), *sure, visible(said), _beginning(text)]


def _beginning(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= SHOWN_CHARS else shown[: SHOWN_CHARS - 1] + "…"
