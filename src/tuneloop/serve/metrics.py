"""What `/metrics` tells Prometheus: counts, sizes and times, never a text or a key."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The service's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        count = partial(Counter, namespace="tuneloop", registry=self.registry)
        state = partial(Gauge, namespace="tuneloop", registry=self.registry)
        spread = partial(Histogram, namespace="tuneloop", registry=self.registry)
        self.requests = count("requests", "Requests answered.", ["route", "method", "status"])
        self.request_seconds = spread(
            "request_seconds", "From a request's first byte to its answer's last.", ["route"], buckets=SECONDS
        )
        self.refusals = count("refusals", "Requests refused, by the problem's code.", ["code"])
        self.documents = count("documents", "Documents answered.", ["model", "version", "route"])
        self.failed_documents = count("failed_documents", "Documents without an answer.", ["model", "code"])
        self.tokens = count("tokens", "Tokens read (estimated) and generated.", ["model", "kind"])
        self.batch_documents = spread("batch_documents", "Documents computed together.", buckets=SIZES)
        self.batch_seconds = spread("batch_seconds", "Seconds that a batch takes.", buckets=SECONDS)
        self.waiting_documents = state("waiting_documents", "Documents and generations that wait.")
        self.waiting_tokens = state("waiting_tokens", "Tokens (estimated) that wait.")
        self.model_up = state("model_up", "Whether a model's engine answers.", ["model", "version"])
        self.draining = state("draining", "Whether the service is stopping.")
        self.log_rows = state("log_rows", "Rows of the prediction log since the start.", ["state"])

    def on_batch(self, documents: int, tokens: int, seconds: float) -> None:
        """Count a batch; called by a lane's thread."""
        self.batch_documents.observe(documents)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
