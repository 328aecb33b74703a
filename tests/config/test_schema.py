from __future__ import annotations

import pytest

from tuneloop.config.load import load_config
from tuneloop.config.problems import all_keys
from tuneloop.config.schema import Config
from tuneloop.config.section import Section
from tuneloop.errors import ConfigError


def undescribed(model: type[Section], prefix: str = "") -> list[str]:
    """Return the settings below `model` that no sentence explains (sections explain themselves)."""
    missing = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            missing += undescribed(field.annotation, f"{prefix}{name}.")
        elif not field.description:
            missing.append(f"{prefix}{name}")
    return missing


def test_every_setting_says_what_it_trades() -> None:
    assert undescribed(Config) == ["data.sources"]  # a list of sections, which explain themselves
    assert "train.lora.dropout" in set(all_keys(Config))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("train.seed=-1", "greater than or equal to 0"),
        ("train.learning_rate=3", "less than or equal to 1"),
        ("train.epochs=.inf", "a finite number"),
        ("train.epochs=.nan", "a finite number"),
        ("task.labels=[]", "at least 1 item"),
        ("task.labels=[a, '']", "at least 1 character"),
        ("evaluate.subjects=[]", "at least 1 item"),
        ("evaluate.subjects=[tuned, tuned]", "stands twice"),
        ("evaluate.bootstrap_resamples=10", "greater than or equal to 100"),
        ("train.lora.target_modules=[]", "at least 1 item"),
        ("data={min_chars: 20, max_chars: 10}", "leaves no document"),
    ],
)
def test_a_value_that_cannot_work_is_refused_before_any_work(override: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert complaint in caught.value.message
    assert override in caught.value.where
