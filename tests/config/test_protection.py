from __future__ import annotations

import pytest

from tuneloop.config.load import load_config
from tuneloop.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("serve.log.mask_patterns={CASE: '['}", "'CASE' is not a regular expression"),
        ("serve.log.mask_patterns={CASE: 'x*'}", "matches nothing at all"),
        ("serve.log.sample=1.5", "less than or equal to 1"),
        ("serve.log.redact=some", "expected 'none' or 'mask' or 'hash' or 'drop'"),
        ("serve.quotas.requests_per_minute=0", "greater than or equal to 1"),
        ("serve.limits.max_json_depth=2", "greater than or equal to 4"),
    ],
)
def test_a_protection_that_cannot_work_is_refused(override: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert complaint in caught.value.message


def test_quotas_and_retention_may_be_without_limit() -> None:
    config = load_config(None, ["serve.quotas={requests_per_minute: null}", "serve.log.retention_days=null"])
    assert config.serve.quotas.requests_per_minute is None
    assert config.serve.log.retention_days is None
