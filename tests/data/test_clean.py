from __future__ import annotations

from tuneloop.data.clean import drop_conflicts, drop_duplicates, reject_rare_labels
from tuneloop.records import Entity, Example, example_id


def rows(*pairs: tuple[str, str | None]) -> list[Example]:
    return [
        Example(id=example_id(text, label, None), text=text, label=label, source="a.csv", row=number)
        for number, (text, label) in enumerate(pairs, start=1)
    ]


def test_the_label_of_most_rows_wins_a_conflict_and_the_others_are_listed() -> None:
    kept, dropped = drop_conflicts(rows(("t", "y"), ("t", "x"), ("u", "y"), ("t", "x")))
    assert [example.row for example in kept] == [2, 3, 4]
    assert [(row.row, row.reason, row.kept) for row in dropped] == [(1, "conflicting-label", kept[0].id)]
    assert "'x' (2 times), 'y' (1 times)" in dropped[0].detail


def test_a_tie_drops_every_row_of_the_text() -> None:
    kept, dropped = drop_conflicts(rows(("t", "y"), ("t", "x"), ("t", "z"), ("u", "y")))
    assert [example.row for example in kept] == [4]
    assert [(row.row, row.kept) for row in dropped] == [(1, ""), (2, ""), (3, "")]


def test_the_first_of_equal_texts_stays_and_the_others_point_to_it() -> None:
    kept, dropped = drop_duplicates(rows(("t", "x"), ("u", "x"), ("t", "x")))
    assert [example.row for example in kept] == [1, 2]
    assert [(row.row, row.kept, row.score) for row in dropped] == [(3, kept[0].id, 1.0)]


def test_a_duplicate_with_other_entities_says_so() -> None:
    first = Example(id="1", text="Acme", entities=(), source="a.csv", row=1)
    second = Example(id="2", text="Acme", entities=(Entity("party", "Acme", 0, 4),), source="a.csv", row=2)
    _, dropped = drop_duplicates([first, second])
    assert "its entities differ" in dropped[0].detail


def test_rows_of_a_rare_label_are_rejected_with_the_count() -> None:
    kept, rejected = reject_rare_labels(rows(("a", "x"), ("b", "x"), ("c", "y"), ("d", None)), at_least=2)
    assert [example.text for example in kept] == ["a", "b", "d"]
    assert [row.dropped.reason for row in rejected] == ["rare-label"]
    assert "'y' has 1 example " in rejected[0].dropped.detail and rejected[0].place == "a.csv:row 3"
