from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.serve.problems import Problem
from tuneloop.serve.quotas import Allowance, Quotas


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(quotas: Quotas, allowance: Allowance, requests: int = 1, tokens: int = 0, caller: str = "a") -> Problem:
    with pytest.raises(Problem) as caught:
        quotas.charge(caller, allowance, requests, tokens)
    return caught.value


def test_a_minutes_requests_may_come_at_once_and_then_they_come_back_one_by_one() -> None:
    clock = Clock()
    quotas, allowance = Quotas(clock), Allowance(requests_per_minute=6)
    for _ in range(6):
        quotas.charge("a", allowance, 1, 0)
    problem = refused(quotas, allowance)
    assert (problem.status, problem.code, problem.retry_after_s) == (429, "quota-used-up", 10.0)
    quotas.charge("b", allowance, 1, 0)  # another key has its own
    clock.now += 9.9
    refused(quotas, allowance)
    clock.now += 0.2
    quotas.charge("a", allowance, 1, 0)
    refused(quotas, allowance)


def test_a_refusal_says_when_to_come_back_and_what_is_left_of_each_quota() -> None:
    quotas, allowance = Quotas(Clock()), Allowance(requests_per_minute=60, tokens_per_minute=600)
    quotas.charge("a", allowance, 1, 500)
    response = refused(quotas, allowance, tokens=300).response("/v1/predict")
    assert response.headers["Retry-After"] == "20"
    assert response.headers["RateLimit-Policy"] == '"requests";q=60;w=60, "tokens";q=600;w=60'
    assert response.headers["RateLimit"] == '"requests";r=59;t=1, "tokens";r=100;t=50'
    quotas.charge("a", allowance, 1, 100)  # the refusal had taken nothing


def test_more_than_a_whole_quota_is_granted_once_and_paid_for_after() -> None:
    clock = Clock()
    quotas, allowance = Quotas(clock), Allowance(tokens_per_minute=100)
    quotas.charge("a", allowance, 1, 250)
    assert refused(quotas, allowance, tokens=100).retry_after_s == 150.0
    clock.now += 150
    quotas.charge("a", allowance, 1, 100)


def test_without_a_quota_nothing_is_counted_and_a_changed_one_starts_anew() -> None:
    quotas = Quotas(Clock())
    for _ in range(1000):
        quotas.charge("a", Allowance(), 1, 10**9)
    quotas.charge("a", Allowance(requests_per_minute=1), 1, 0)
    refused(quotas, Allowance(requests_per_minute=1))
    quotas.charge("a", Allowance(requests_per_minute=2), 1, 0)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 40)), max_size=40))
def test_no_pattern_of_requests_gets_more_than_a_bucket_and_its_refill(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    quotas, allowance, granted = Quotas(clock), Allowance(tokens_per_minute=40), 0
    for pause, tokens in steps:
        clock.now += pause
        try:
            quotas.charge("a", allowance, 1, tokens)
        except Problem as problem:
            assert problem.retry_after_s is not None
            clock.now += problem.retry_after_s + 1e-6
            quotas.charge("a", allowance, 1, tokens)  # what it promised holds
        granted += tokens
    assert granted <= 40 + (clock.now - 1000) * 40 / 60 + 1e-6
