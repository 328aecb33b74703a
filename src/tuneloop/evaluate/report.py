"""One evaluation as a page to read and a page to paste: report.html (self-contained) and report.md.

The HTML asks nothing of the network and runs no script; its content security policy forbids both, should hostile text
ever get past the escaping. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tuneloop.artifacts import write_durably
from tuneloop.evaluate import charts, tables, wording
from tuneloop.evaluate.compare import Comparison, SubjectAnswers, deciding_score, spoken_name
from tuneloop.evaluate.mistakes import confusions, entity_mistakes
from tuneloop.records import Example

NAMED_CLASSES = 24  # a matrix with more rows is drawn as a map; longer tables of labels are folded
SHOWN_PAIRS = 12
SHOWN_CONFUSIONS = 20
OPEN_PAIRS = 4


def write_report(
    folder: Path,
    comparison: Comparison,
    *,
    items: Sequence[Example],
    answers: Mapping[str, SubjectAnswers],
    history: Sequence[Mapping[str, Any]],
    dataset_report: Mapping[str, Any],
    lineage: Sequence[Mapping[str, Any]],
) -> None:
    """Write report.html and report.md into `folder`, which exists.

    `history` holds points with step and any of train_loss, validation_loss, learning_rate, grad_norm; `dataset_report`
    any of rows_read, examples, dropped, splits, labels, text_chars; `lineage` artifact manifests, oldest first. What is
    missing is left out of the report.
    """
    page = _page(comparison, items, answers, history, dataset_report, lineage)
    for name, environment in (("report.html", _html()), ("report.md", _markdown())):
        text = environment.get_template(f"{name}.j2").render(page)
        write_durably(folder / name, text.encode("utf-8"))


def _page(
    comparison: Comparison,
    items: Sequence[Example],
    answers: Mapping[str, SubjectAnswers],
    history: Sequence[Mapping[str, Any]],
    dataset_report: Mapping[str, Any],
    lineage: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return everything that the templates show."""
    name = comparison.candidate or comparison.best_baseline or comparison.subjects[0].name
    subject = comparison.subject(name)
    pairs = confusions(items, answers, name) if subject.closed else []
    return {
        "comparison": comparison,
        "verdict": comparison.verdict,
        "subject": subject,
        "said": spoken_name(subject),
        "titles": {scores.name: scores.title for scores in comparison.subjects},
        "scale": _scale(comparison),
        "metric_rows": tables.metric_rows(comparison),
        "metric_names": tables.METRIC_NAMES,
        "curves": _present(
            [charts.loss_curve(history), charts.learning_rate_curve(history), charts.gradient_norm_curve(history)]
        ),
        "pairs": pairs,
        "shown_pairs": SHOWN_PAIRS,
        "shown_confusions": SHOWN_CONFUSIONS,
        "open_pairs": OPEN_PAIRS,
        "named_classes": NAMED_CLASSES,
        "is_named": len(comparison.labels) <= NAMED_CLASSES,
        "matrix": subject.closed.confusion if subject.closed else (),
        "heat_map": _heat_map(comparison, name),
        "classes": tables.classes_worst_first(comparison, name),
        "reliability": _present([charts.reliability_diagram(subject.calibration)] if subject.calibration else []),
        "entity_mistakes": entity_mistakes(items, answers[name]) if subject.entities else [],
        "data": dataset_report,
        "label_splits": tables.label_split_rows(dataset_report),
        "counts_of": tables.counts_of,
        "lineage": tables.lineage_rows(lineage),
        "surroundings": tables.surroundings(lineage),
    }


def _scale(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the deciding score of each subject for the bars at the top."""
    return [
        {"name": subject.name, "title": subject.title, "score": deciding_score(subject)}
        for subject in comparison.subjects
    ]


def _heat_map(comparison: Comparison, name: str) -> Markup | None:
    closed = comparison.subject(name).closed
    if closed is None or len(comparison.labels) <= NAMED_CLASSES:
        return None
    return Markup(charts.confusion_heat_map(closed.confusion))


def _present(drawings: Sequence[str | None]) -> list[Markup]:
    """Return the charts that could be drawn; matplotlib's output holds no foreign text."""
    return [Markup(drawing) for drawing in drawings if drawing is not None]


@cache
def _html() -> Environment:
    return _environment(autoescape=True, finalize=_made_visible)


@cache
def _markdown() -> Environment:
    return _environment(autoescape=False, finalize=_made_markdown)


def _environment(**options: Any) -> Environment:
    environment = Environment(
        loader=PackageLoader("tuneloop.evaluate"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    for write in (
        wording.percent,
        wording.points,
        wording.signed_points,
        wording.range_of,
        wording.seconds,
        wording.p_value,
        wording.interval_words,
    ):
        environment.filters[write.__name__] = write
    environment.filters["unbroken"] = _unbroken
    environment.filters["breakable"] = _breakable
    return environment


def _made_visible(value: Any) -> Any:
    """Applied to everything a template prints, before escaping."""
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _made_markdown(value: Any) -> Any:
    return wording.markdown(value) if isinstance(value, str) else value


def _unbroken(sentence: str) -> str:
    """Keep a number and its percent sign on one line."""
    return sentence.replace(" %", "\u00a0%").replace("± ", "±\u00a0")


def _breakable(label: str) -> Markup:
    """Escape a label and let lines break after its underscores."""
    return Markup(str(escape(wording.visible(label))).replace("_", "_<wbr>"))
