"""What Prometheus is told. One registry an application, so that several live in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from shelfwise.records import Prediction, Product

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the text, and nobody reads them
CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCY_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SHARES = tuple(i / 20 for i in range(1, 21))


class Metrics:
    """All metrics of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests, by how they were answered.", "route", "method", "status")
        self.request_seconds = self._histogram("request_seconds", "From headers to the last byte.", LATENCY_S, "route")
        self.in_flight = self._gauge("requests_in_flight", "Requests that are being answered.")
        self.rejected = self._counter("rejected", "Requests refused, by the code of the error.", "reason")
        self.products = self._counter("products", "Products classified.", "model", "decision", "level")
        self.confidence = self._histogram("confidence", "Calibrated confidences.", SHARES, "model")
        self.batch_products = self._histogram("batch_products", "Products a batch.", SIZES, "model")
        self.batch_seconds = self._histogram("batch_seconds", "Time of the model for a batch.", LATENCY_S, "model")
        self.queue_seconds = self._histogram("queue_seconds", "Until a request got into a batch.", LATENCY_S, "model")
        self.queue_products = self._gauge("queue_products", "Products that wait.", "model")
        self.queue_characters = self._gauge("queue_characters", "Characters that wait.", "model")
        self.dropped = self._counter("dropped_products", "Not classified: gone, late or failed.", "model", "reason")
        self.loaded_at = self._gauge("model_loaded_timestamp_seconds", "When it was loaded.", "model", "version")
        self.reloads = self._counter("reloads", "Reloads of a changed run folder.", "model", "outcome")
        self.review_items = self._counter("review_items", "Answers to review, by what became of them.", "outcome")
        self.ready = self._gauge("ready", "1 while requests should come here.")

        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. What `labels` finds is kept, for finding it costs more than counting."""
        kept = self._answered.get((route, method, status))
        if kept is None:
            kept = self.requests.labels(route, method, str(status)), self.request_seconds.labels(route)
            self._answered[route, method, status] = kept
        kept[0].inc()
        kept[1].observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def watch_queue(self, model: str, products: Callable[[], float], characters: Callable[[], float]) -> None:
        """Let the depth of a model's queue be read when it is asked for."""
        self.queue_products.labels(model).set_function(products)
        self.queue_characters.labels(model).set_function(characters)

    def of_model(self, model: str) -> ModelMetrics:
        """The counters of one model: a `batcher.Watcher`."""
        return ModelMetrics(self, model)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, namespace="shelfwise", registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, namespace="shelfwise", registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, namespace="shelfwise", buckets=buckets, registry=self.registry)


class ModelMetrics:
    """Counts what a model's worker does."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._model = model
        self._products = metrics.products
        self._dropped = metrics.dropped
        self._batch_products = metrics.batch_products.labels(model)
        self._batch_seconds = metrics.batch_seconds.labels(model)
        self._queue_seconds = metrics.queue_seconds.labels(model)
        self._confidence = metrics.confidence.labels(model)
        self._decided: dict[tuple[str, str], Counter] = {}

    def batch(self, products: Sequence[Product], predictions: Sequence[Prediction], seconds: float) -> None:
        """The model answered one batch."""
        self._batch_products.observe(len(products))
        self._batch_seconds.observe(seconds)
        for prediction in predictions:
            decided = prediction.decision, prediction.level or "none"
            if decided not in self._decided:
                self._decided[decided] = self._products.labels(self._model, *decided)
            self._decided[decided].inc()
            self._confidence.observe(prediction.confidence)

    def dropped(self, reason: str, products: int) -> None:
        """Products were not classified."""
        self._dropped.labels(self._model, reason).inc(products)

    def waited(self, seconds: float) -> None:
        """A request got into a batch."""
        self._queue_seconds.observe(seconds)
