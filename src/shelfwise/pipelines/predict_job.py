"""One output of a prediction job: read a part, answer it, write it down; at the end put the parts together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shelfwise import __version__, artifact
from shelfwise import config as configs
from shelfwise.classifier import Classifier, answering, blend_of
from shelfwise.config import Arithmetic, Columns
from shelfwise.pipelines import predict_files, predict_parts
from shelfwise.pipelines.predict_answers import Alone, Answerer, Memory
from shelfwise.pipelines.predict_inputs import inputs_of
from shelfwise.pipelines.predict_parts import Kind, Parts
from shelfwise.pipelines.predict_plan import Plan, make_plan
from shelfwise.pipelines.predict_rows import answer_cells, reject_cells, sort_out, tally_of
from shelfwise.pipelines.predict_summary import PredictionSummary
from shelfwise.pipelines.predict_tally import Tally
from shelfwise.records import RawRow, Reject, Which

REMEMBERED_TEXTS = 200_000  # measured: with the top 3 of each, 135 MiB
FIRST_PART_ROWS = 256
Asked = Which | Literal["cascade"]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a job is to be done; `predict.predict` says what each means."""

    which: Asked
    device: str
    precision: Arithmetic
    top_k: int
    columns: Columns
    chunk_rows: int
    force: bool
    resume: bool


class Job:
    """A way to predict files; its classifier is loaded when the first of them needs it."""

    def __init__(self, run: Path, settings: Settings, answerer: Answerer | None, clock: Callable[[], float]) -> None:
        self.run = run
        self.settings = settings
        self._answerer = answerer
        self._given = answerer is not None
        self._clock = clock

    def predict(
        self, source: Path, out: Path, progress: Progress | None, *, replaceable: bool = False
    ) -> PredictionSummary:
        """Predict one input, be it several files, into one file; raises what `predict.predict` does.

        `replaceable`: the output that is there is this job's own.
        """
        settings = self.settings
        plan = make_plan(
            self.run,
            source,
            out,
            columns=settings.columns,
            force=settings.force or replaceable,
            resume=settings.resume,
            answerer=self._answerer,
        )
        with predict_parts.opened(out, self._key(plan), resume=settings.resume, force=settings.force) as parts:
            resumed, seconds = parts.tally.rows, 0.0
            if parts.stage == "placed":  # killed while it cleared up
                model = " then ".join(parts.tally.by_model)
                parts.clear()
            else:
                memory = Memory(self.loaded(), settings.top_k, self._remembered_parts)
                model, started = memory.answerer.name, self._clock()
                self._work(plan, memory, parts, progress)
                predict_files.put_together(plan, parts)
                seconds = self._clock() - started
            rejects = plan.rejects if parts.tally.rejected else None
            return PredictionSummary.of(
                out,
                rejects,
                parts.tally,
                model=model,
                about=self.about(),
                renamed=plan.renamed,
                resumed=resumed,
                seconds=seconds,
            )

    def call(self) -> dict[str, object]:
        """All that an output depends on, save for its input and the machine."""
        settings = self.settings
        return {
            "run": None if self._given else artifact.sha256(self.run / artifact.MANIFEST),
            "classifier": settings.which,
            "device": settings.device,
            "precision": settings.precision,
            "top_k": settings.top_k,
            "chunk_rows": settings.chunk_rows,
            "columns": settings.columns.model_dump(),
            "shelfwise": __version__,
        }

    def about(self) -> str:
        """How who answers was made, in words; empty where there is nothing to say, or nobody knows the run."""
        which = "auto" if self.settings.which == "cascade" else self.settings.which
        if self._given or answering(self.run, configs.load(self.run / artifact.CONFIG), which) != "blend":
            return ""
        blend = blend_of(self.run)
        return blend.told if blend else ""

    def _key(self, plan: Plan) -> dict[str, object]:
        """What an unfinished job must agree in to be resumed."""
        return {**self.call(), "input": inputs_of(plan.sources), "text_columns": list(plan.text_columns)}

    @property
    def _remembered_parts(self) -> int:
        return max(1, REMEMBERED_TEXTS // self.settings.chunk_rows)

    def loaded(self) -> Answerer:
        """Who answers; loaded when it is first asked for."""
        if self._answerer is None:
            which, device, precision = self.settings.which, self.settings.device, self.settings.precision
            if which == "cascade":
                from shelfwise.pipelines.cascade import Cascade

                self._answerer = Cascade.load(self.run, device=device, precision=precision)
            else:
                self._answerer = Alone(Classifier.load(self.run, which=which, device=device, precision=precision))
        return self._answerer

    def _work(self, plan: Plan, memory: Memory, parts: Parts, progress: Progress | None) -> None:
        """Do the parts that are not done."""
        first = len(parts.done)
        for number in range(max(0, first - self._remembered_parts), first):
            memory.recall(number, parts.read(number, "answers"), str(parts.folder))
        rows = iter(plan.stream)
        done = parts.tally.rows
        for _ in itertools.islice(rows, done):
            pass
        if done and progress is not None:
            progress(done)
        for chunk in _chunks(rows, first, self.settings.chunk_rows):
            files, tally = _part(chunk, plan, memory, parts)
            parts.commit(files, tally, self._remembered_parts)
            if progress is not None:
                progress(parts.tally.rows)


def _part(
    chunk: Iterable[RawRow | Reject], plan: Plan, memory: Memory, parts: Parts
) -> tuple[dict[Kind, bytes], Tally]:
    """Answer a chunk of rows: the files of its part, and its counts."""
    rows, texts, rejected = sort_out(chunk, plan)
    predict_files.require_room(plan, parts.tally.predicted + len(rows))
    answers, scored, remembered = memory.answer_part(texts)
    cells = [(*row.values.values(), *answer_cells(answer)) for row, answer in zip(rows, answers, strict=True)]
    files: dict[Kind, bytes] = {"out": predict_files.part_of(plan, cells, not parts.done), "answers": remembered}
    if rejected:
        lines = [reject_cells(reject, plan.stream.columns) for reject in rejected]
        files["rejects"] = predict_files.rejects_part_of(plan, lines, not parts.has("rejects"))
    return files, tally_of(answers, rejected, scored)


def _chunks(rows: Iterator[RawRow | Reject], first: int, size: int) -> Iterator[list[RawRow | Reject]]:
    """Chunks from the number `first` on. They double up to `size`: where a model is slow, a rate is told soon."""
    for number in itertools.count(first):
        # The size of a chunk follows from its number alone, so that a resumed job cuts as an unbroken one does.
        chunk = list(itertools.islice(rows, min(FIRST_PART_ROWS << min(number, 32), size)))
        if not chunk:
            return
        yield chunk
