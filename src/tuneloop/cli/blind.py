"""`tuneloop blind`: people compare and rate answers without knowing whose they are."""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tuneloop.cli import options
from tuneloop.errors import UsageError

if TYPE_CHECKING:
    from tuneloop.cli.judging import Screen
    from tuneloop.cli.session import Session
    from tuneloop.evaluate.people.blind import Study, StudyItem
    from tuneloop.evaluate.people.rating import Form, FormItem
    from tuneloop.store.database import Database
    from tuneloop.store.tables import Choice

CHOICES: dict[str, Choice] = {"l": "left", "r": "right", "t": "tie", "b": "both_bad"}
PAIR_KEYS = {"l": "left", "r": "right", "t": "tie", "b": "both bad"}
MORE_KEYS = {"d": "whole document", "c": "comment", "u": "back", "q": "quit"}


class _ComparesByDefault(TyperGroup):
    """Takes `tuneloop blind A B` for `tuneloop blind compare A B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in where subjects or options come first."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["compare", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(
    cls=_ComparesByDefault,
    help="Let people judge answers without knowing whose they are; `blind A B` is short for `blind compare A B`.",
    short_help="Let people judge without knowing whose answer it is.",
    epilog=options.example("tuneloop blind compare tuned few-shot --person ann", "tuneloop blind result"),
    rich_markup_mode=None,
)

Person = Annotated[str | None, typer.Option("--person", metavar="NAME", help="Who judges (default: the login name).")]
Subjects = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SUBJECT...", help="As in `tuneloop compare`; a key=value among them overrides the configuration."
    ),
]
All = Annotated[bool, typer.Option("--all", help="Also show items on which both answer the same.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Say at the end who is who, and what all votes come to.")]
StudyId = Annotated[str | None, typer.Option("--study", metavar="ID", help="Only this study (default: all).")]


app.callback(invoke_without_command=True)(options.show_help)


@app.command(
    "compare",
    epilog=options.example(
        "tuneloop blind compare tuned few-shot", "tuneloop blind compare tuned run:3f2a91 --person ann"
    ),
    short_help="Which of two answers is better?",
)
def compare(
    subjects: Subjects = None,
    person: Person = None,
    all_items: All = False,
    reveal: Reveal = False,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Show two answers to a document side by side, left and right at random, and keep which one is better.

    Every answer is kept at once: quit with q (or Ctrl-C) and go on later.
    """
    from tuneloop.cli.contenders import ask_subjects, require_subjects, split_words
    from tuneloop.cli.session import open_session
    from tuneloop.cli.stages import dataset_facts, plan_stage

    names, overrides = split_words(subjects)
    session = open_session(config, overrides, sets, as_json=as_json)
    require_subjects(names, [2], "blind")
    name = person or _login_name()
    if dry_run:
        facts = {**dataset_facts(session), "subjects": names, "person": name, "all_items": all_items}
        plan_stage(session, "blind compare", facts, session.config.judge)
        return
    from tuneloop.cli.judging import Screen
    from tuneloop.evaluate.people.blind import judged_count, open_study, study_items
    from tuneloop.evaluate.people.blind import person as rater_of
    from tuneloop.store.database import open_database

    field = ask_subjects(session, names)
    with open_database(session.config.store) as database:
        study = open_study(database, field.dataset_id, field.contenders, session.config.judge.seed)
        items = study_items(study, field.examples, field.contenders, only_different=not all_items)
        rater_id = rater_of(database, name)
        screen = Screen(on_stderr=as_json)
        screen.begin(field.task)
        _judge_pairs(screen, database, study, rater_id, items)
        judged = judged_count(database, study, rater_id, items)
        _finish_pairs(session, database, study, {"person": name, "judged": judged, "total": len(items)}, reveal=reveal)


@app.command("rate", epilog=options.example("tuneloop blind rate tuned --person ann"), short_help="How good is it?")
def rate(
    subjects: Subjects = None,
    person: Person = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Rate one subject's answers from 1 to 5 for factuality, relevance, style and safety."""
    from tuneloop.cli.contenders import ask_subjects, require_subjects, split_words
    from tuneloop.cli.session import open_session
    from tuneloop.cli.stages import dataset_facts, plan_stage

    names, overrides = split_words(subjects)
    session = open_session(config, overrides, sets, as_json=as_json)
    require_subjects(names, [1], "blind rate")
    name = person or _login_name()
    if dry_run:
        facts = {**dataset_facts(session), "subject": names[0], "person": name}
        plan_stage(session, "blind rate", facts, session.config.judge)
        return
    from tuneloop.cli.judging import Screen
    from tuneloop.evaluate.people.blind import form_items
    from tuneloop.evaluate.people.blind import person as rater_of
    from tuneloop.store.database import open_database

    field = ask_subjects(session, names)
    (contender,) = field.contenders
    items = form_items(field.examples, contender, session.config.judge.seed)
    with open_database(session.config.store) as database:
        screen = Screen(on_stderr=as_json)
        screen.begin(field.task)
        rater_id = rater_of(database, name)
        done = _fill_forms(screen, database, field.dataset_id, contender.id, rater_id, items)
    session.finish(
        {"subject": contender.id, "person": name, "rated": done, "total": len(items), "finished": done == len(items)},
        f"{done:,} of {len(items):,} answers are rated by {name}.",
        "",
        "Next: tuneloop blind result",
    )


@app.command("result", epilog=options.example("tuneloop blind result", "tuneloop blind result --json"))
def result(
    overrides: options.Overrides = None,
    study: StudyId = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
) -> None:
    """Reveal who is who: what people and judge models prefer, how sure that is, and whether they agree."""
    from tuneloop.cli.blind_result import results_of_dataset
    from tuneloop.cli.session import open_session
    from tuneloop.store.database import open_database

    session = open_session(config, overrides, sets, as_json=as_json)
    with open_database(session.config.store) as database:
        data, lines = results_of_dataset(session, database, study)
    session.finish(data, *lines)


def _judge_pairs(screen: Screen, database: Database, study: Study, rater_id: int, items: list[StudyItem]) -> None:
    """Ask until everything is judged or the person stops."""
    from tuneloop.evaluate.people.blind import next_pair, previous_pair, record

    pair = next_pair(database, study, rater_id, items)
    while pair is not None:
        screen.show_pair(pair)
        started, comment = time.monotonic(), ""
        while (key := screen.key(PAIR_KEYS | MORE_KEYS)) in ("d", "c"):
            if key == "d":
                screen.show_pair(pair, whole=True)
            else:
                comment = screen.line("Comment:")
        if key == "q":
            return
        if key == "u":
            pair = previous_pair(database, study, rater_id, items) or pair
            continue
        record(database, pair.id, CHOICES[key], time.monotonic() - started, comment)
        pair = next_pair(database, study, rater_id, items)


def _fill_forms(
    screen: Screen, database: Database, dataset_id: str, subject: str, rater_id: int, items: list[FormItem]
) -> int:
    """Ask until every form is filled in or the person stops; returns how many are."""
    from tuneloop.evaluate.people.rating import next_form, record_form

    while (form := next_form(database, subject, rater_id, items)) is not None:
        started = time.monotonic()
        scores, comment = _ask_scores(screen, form)
        if scores is None:
            return form.number - 1
        record_form(
            database,
            dataset_id=dataset_id,
            subject=subject,
            item_id=form.item.id,
            rater_id=rater_id,
            scores=scores,
            seconds=time.monotonic() - started,
            comment=comment,
        )
    return len(items)


def _ask_scores(screen: Screen, form: Form) -> tuple[dict[str, int] | None, str]:
    """Return (criterion → score, comment), or (None, "") where the person stops."""
    from tuneloop.evaluate.people.rating import RUBRIC, SCORES

    screen.show_form(form)
    scores: dict[str, int] = {}
    comment = ""
    keys = {"1": "worst", "5": "best"} | {str(score): "" for score in SCORES[1:-1]}
    while len(scores) < len(RUBRIC):
        criterion = RUBRIC[len(scores)]
        screen.show_criterion(criterion)
        key = screen.key(dict(sorted(keys.items())) | MORE_KEYS)
        if key == "q":
            return None, ""
        if key == "d":
            screen.show_form(form, whole=True)
        elif key == "c":
            comment = screen.line("Comment:")
        elif key == "u":
            scores.popitem() if scores else None
        else:
            scores[criterion.name] = int(key)
    return scores, comment


def _finish_pairs(session: Session, database: Database, study: Study, facts: dict[str, Any], *, reveal: bool) -> None:
    from tuneloop.cli.blind_result import study_result

    judged, total = facts["judged"], facts["total"]
    data = {"study": study.id, **facts, "finished": judged == total}
    lines = [f"{judged:,} of {total:,} pairs are judged by {facts['person']}."]
    if not total:
        lines = ["Both answer every item the same; --all shows them anyway."]
    elif judged < total:
        lines.append("The same command goes on where you stopped.")
    if reveal:
        found, shown = study_result(database, study, session.config.judge.min_kappa)
        session.finish({**data, "result": found}, *lines, "", *shown)
        return
    session.finish(data, *lines, "", f"Next: tuneloop blind result --study {study.id}   (it says who is who)")


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError(
            "nobody is logged in by name", where="--person", hint="Say who judges: --person ann"
        ) from error
