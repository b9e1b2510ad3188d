"""The models that are served, behind one object: what the API and the pages ask. See `contract`."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shelfwise.classifier import Classifier
from shelfwise.config import Role
from shelfwise.data.catalogue import product_of
from shelfwise.errors import ShelfwiseError, did_you_mean
from shelfwise.records import Prediction, Product, RawRow, Reject
from shelfwise.server import errors, models
from shelfwise.server.batcher import Batcher
from shelfwise.server.contract import Answer, Answers, ModelInfo, Question, State, TypeInfo
from shelfwise.server.errors import Detail
from shelfwise.server.metrics import Metrics, ModelMetrics
from shelfwise.server.models import Loaded, Served
from shelfwise.server.settings import Settings, named_runs

logger = logging.getLogger(__name__)

Observer = Callable[[Answers], None]
CANARY_TIMEOUT_S = 10.0
_ROLES: Mapping[str, str] = {role: role for role in ("product", "brand", "category", "sub_category")}


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload."""

    name: str
    version: str
    previous_version: str

    @property
    def changed(self) -> bool:
        """Whether the run folder held something new; else nothing was done."""
        return self.version != self.previous_version


class Service:
    """Runs by name, each with its queue. Used in the event loop."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.state: State = "loading"
        self.failure: ShelfwiseError | None = None  # why the state is "failed"
        self.in_flight = 0  # requests that are being classified
        self._runs = named_runs(settings.runs)
        self._served: dict[str, Served] = {}  # in the order of the settings, all or none
        self._observers: list[Observer] = []
        self._reloading = asyncio.Lock()

    async def load(self) -> None:
        """Load all runs, in threads; ends in the state "ready" or "failed"."""
        served: dict[str, Served] = {}
        try:
            for name, run in self._runs.items():
                logger.info("loading", extra={"model": name})
                loaded = await asyncio.to_thread(models.load, name, run, self.settings)
                served[name] = self._serve(loaded)
                logger.info("loaded", extra={"model": name, "version": loaded.version})
        except ShelfwiseError as error:
            self.failure, self.state = error, "failed"
            logger.error("loading failed: %s", error)
            return
        self._served = served
        _settle()
        if self.state == "loading":
            self.state = "ready"
            self.metrics.ready.set(1)

    def leave(self) -> None:
        """Tell who asks that this service is about to end; it still answers."""
        if self.state in ("loading", "ready"):
            self.state = "leaving"
            self.metrics.ready.set(0)

    def drain(self) -> None:
        """Refuse new requests; those in flight go on."""
        self.state = "draining"
        self.metrics.ready.set(0)

    async def close(self) -> None:
        """Answer what waits, and let the models go."""
        self.drain()
        served, self._served = self._served, {}
        for entry in served.values():
            await entry.batcher.close()

    def observe(self, callback: Observer) -> None:
        """Have every batch's answers told to `callback`, in the worker's thread."""
        self._observers.append(callback)

    @property
    def alive(self) -> bool:
        """Whether every model's worker runs."""
        return self.state != "failed" and all(entry.batcher.alive for entry in self._served.values())

    def models(self) -> tuple[ModelInfo, ...]:
        """What is served; the default first."""
        return tuple(entry.loaded.info(default=i == 0) for i, entry in enumerate(self._served.values()))

    def types(self, model: str | None = None) -> tuple[TypeInfo, ...]:
        """The inventory types of a model."""
        return self._entry(model).loaded.types()

    def run(self, model: str | None = None) -> Path:
        """The run folder of a model."""
        return self._entry(model).loaded.run

    def text_columns(self, model: str | None = None) -> tuple[Role, ...]:
        """What a model reads."""
        return tuple(self._entry(model).loaded.classifier.text_columns)

    def classifier(self, model: str | None = None) -> Classifier:
        """A model itself, for whole files; it answers in the thread that asks it, beside the queue."""
        return self._entry(model).loaded.classifier

    def type_names(self, model: str | None = None) -> tuple[str, ...]:
        """The types of a model in its own order, which probabilities of all of them follow."""
        return self._entry(model).loaded.classifier.labels.names

    async def classify(
        self,
        questions: Sequence[Question],
        *,
        model: str | None = None,
        top_k: int = 3,
        timeout_s: float | None = None,
        trial: bool = False,
    ) -> Answers:
        """Classify products: each as `shelfwise predict` answers it, whatever else is in the batch.

        Args:
            questions: not empty.
            model: as clients name it; None is the default.
            top_k: types to list for each.
            timeout_s: until an answer; None, and the most, is the settings'.
            trial: somebody is only trying: neither counted nor put into the review queue.

        Raises:
            ApiError: a name holds no text, a limit, a full queue, no answer in time, or the service is not ready.
        """
        self._require_open()
        entry = self._entry(model)
        products = self._products(questions, entry.loaded.classifier.text_columns)
        if trial:
            products = [replace(product, source=models.TRIAL_SOURCE) for product in products]
        most_s = self.settings.limits.timeout_s
        self.in_flight += 1
        try:
            predictions = await entry.batcher.ask(products, top_k, min(timeout_s or most_s, most_s))
        finally:
            self.in_flight -= 1
        return _answers(entry.loaded, products, predictions)

    async def prove(self) -> None:
        """Classify the canary with every model.

        Raises:
            ApiError: not ready, or a model does not answer.
        """
        if self.state != "ready":
            raise errors.unavailable("not_ready", f"The service is {self.state}.")
        for entry in self._served.values():
            answered = await entry.batcher.ask([models.canary()], 1, CANARY_TIMEOUT_S, first=True)
            models.check(answered, entry.loaded)

    async def reload(self, model: str | None = None, *, only_changed: bool = True) -> tuple[Reloaded, ...]:
        """Load run folders again, beside what is served; requests that are under way get the old answers.

        Args:
            model: which; None is all.
            only_changed: leave those whose manifest is what it was.

        Raises:
            ApiError: no such model, or the service is not ready.
            ShelfwiseError: a folder can't be loaded; what was served before still is.
        """
        self._require_open()
        names = list(self._served) if model is None else [self._entry(model).loaded.name]
        done = []
        async with self._reloading:
            for name in names:
                done.append(await self._reload(name, only_changed))
        return tuple(done)

    async def _reload(self, name: str, only_changed: bool) -> Reloaded:
        old = self._served[name]
        run, before = old.loaded.run, old.loaded.version
        try:
            if only_changed and await asyncio.to_thread(models.version_of, run) == before:
                return Reloaded(name, before, before)
            loaded = await asyncio.to_thread(models.load, name, run, self.settings)
        except (ShelfwiseError, OSError):
            self.metrics.reloads.labels(name, "failed").inc()
            raise
        self._served[name] = self._serve(loaded)
        self.metrics.loaded_at.remove(name, before)
        self.metrics.loaded_at.labels(name, loaded.version).set(loaded.loaded_at_s)
        self.metrics.reloads.labels(name, "done").inc()
        logger.info("reloaded", extra={"model": name, "version": loaded.version, "previous_version": before})
        await old.batcher.close()
        del old
        _settle()
        return Reloaded(name, loaded.version, before)

    def _serve(self, loaded: Loaded) -> Served:
        watcher = _Watcher(self.metrics.of_model(loaded.name), loaded, self._observers)
        batcher = Batcher(loaded.name, loaded.predict, self.settings.batching, watcher)
        self.metrics.watch_queue(loaded.name, lambda: batcher.queued_products, lambda: batcher.queued_characters)
        self.metrics.loaded_at.labels(loaded.name, loaded.version).set(loaded.loaded_at_s)
        return Served(loaded, batcher)

    def _require_open(self) -> None:
        if self.state == "draining":
            raise errors.unavailable("draining", "The service is about to end. Ask another instance.")
        if not self._served:
            raise errors.unavailable("not_ready", "The models are being loaded.")

    def _entry(self, model: str | None) -> Served:
        if not self._served:
            raise errors.unavailable("not_ready", "The models are being loaded.")
        name = next(iter(self._served)) if model is None else model
        if name not in self._served:
            raise errors.not_found(
                f"There is no model '{name:.200}'.{did_you_mean(name[:200], self._served)}", "model_not_found"
            )
        return self._served[name]

    def _products(self, questions: Sequence[Question], text_columns: Sequence[Role]) -> list[Product]:
        """As the rows of a file become products, so that both doors give the same text to the model."""
        limits = self.settings.limits
        if len(questions) > limits.max_items:
            raise errors.too_large(f"{len(questions):,} products; a request may hold {limits.max_items:,}.")
        products, wrong = [], []
        for position, question in enumerate(questions):
            values = {role: getattr(question, role) for role in _ROLES}
            made = product_of(RawRow(position, f"products.{position}", values), _ROLES, text_columns)
            if isinstance(made, Reject):
                wrong.append(Detail(made.source, made.reason))
            else:
                products.append(made)
        if wrong:
            raise errors.ApiError(422, "invalid_request", "Some products can't be classified.", wrong[:20])
        characters = sum(len(product.text) for product in products)
        if characters > limits.max_characters:
            raise errors.too_large(f"{characters:,} characters; a request may hold {limits.max_characters:,}.")
        return products


def _settle() -> None:
    """Let the garbage collector pass over what stays: going through a model's objects stops every request."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _answers(loaded: Loaded, products: Sequence[Product], predictions: Sequence[Prediction]) -> Answers:
    answers = tuple(map(Answer, products, predictions))
    return Answers(loaded.name, loaded.version, loaded.classifier.name, answers)


@dataclass(frozen=True, slots=True)
class _Watcher:
    """A `batcher.Watcher` that counts, and tells observers of the answers to clients."""

    metrics: ModelMetrics
    loaded: Loaded
    observers: Sequence[Observer]

    def batch(self, products: Sequence[Product], predictions: Sequence[Prediction], seconds: float) -> None:
        """The model answered one batch; canaries and trials in it don't count."""
        asked = [(p, a) for p, a in zip(products, predictions, strict=True) if p.source not in models.UNCOUNTED]
        if not asked:
            return
        of_clients = [product for product, _ in asked], [prediction for _, prediction in asked]
        self.metrics.batch(*of_clients, seconds)
        answers = _answers(self.loaded, *of_clients)
        for observer in self.observers:
            try:
                observer(answers)
            except Exception:  # a watcher's fault must not cost the answers, nor the worker that gives them
                logger.exception("%r failed on a batch of answers", observer)

    def dropped(self, reason: str, products: int) -> None:
        """Products were not classified."""
        self.metrics.dropped(reason, products)

    def waited(self, seconds: float) -> None:
        """A request got into a batch."""
        self.metrics.waited(seconds)
