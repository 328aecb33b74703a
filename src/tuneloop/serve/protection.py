"""From configuration to what protects a service and remembers its answers: guard, log, and feedback."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tuneloop.config.protection import SPOOL, LogConfig, QuotaConfig
from tuneloop.serve.auth import KeyGuard, KeyRing, mask_keys_in_logs
from tuneloop.serve.feedback_book import FeedbackBook
from tuneloop.serve.log import NoLog, PredictionLog
from tuneloop.serve.log_writer import StoreLog
from tuneloop.serve.quotas import Allowance
from tuneloop.serve.redaction import RedactionPolicy
from tuneloop.serve.retention import purger
from tuneloop.store.database import Database


@dataclass(frozen=True)
class Memory:
    """A log, and the book that takes feedback on what it has (None where nothing is logged)."""

    log: PredictionLog
    feedback: FeedbackBook | None


def open_guard(quotas: QuotaConfig, database: Database) -> KeyGuard:
    """Return a guard that asks for the store's keys; `close` it at the end. Raises: StorageError."""
    mask_keys_in_logs()
    return KeyGuard(KeyRing(database), Allowance(quotas.requests_per_minute, quotas.tokens_per_minute))


def open_memory(settings: LogConfig, database: Database, root: Path) -> Memory:
    """Return the log that the configuration asks for; what cannot reach the store when it closes goes below `root`."""
    if settings.sample == 0 and not settings.keep_review:
        return Memory(NoLog(), None)
    policy = redaction_policy(settings)
    log = StoreLog(
        database,
        policy,
        root / SPOOL,
        sample=settings.sample,
        keep_review=settings.keep_review,
        max_waiting_rows=settings.max_waiting_rows,
        when_full=settings.when_full,
        write_every_s=settings.write_every_s,
        housekeeping=purger(database, _days(settings.retention_days), _days(settings.feedback_retention_days)),
    )
    return Memory(log, FeedbackBook(database, log, policy))


def redaction_policy(settings: LogConfig) -> RedactionPolicy:
    """Return how documents are redacted before they are stored."""
    patterns = {name: re.compile(pattern) for name, pattern in settings.mask_patterns.items()}
    return RedactionPolicy(settings.redact, patterns)


def _days(count: int | None) -> timedelta | None:
    return None if count is None else timedelta(days=count)
