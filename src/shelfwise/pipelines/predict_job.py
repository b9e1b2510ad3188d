"""One output of a prediction job: read a part, answer it, write it down; at the end put the parts together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from shelfwise import __version__, artifact, processes
from shelfwise import config as configs
from shelfwise.classifier import Classifier, answering, blend_of
from shelfwise.config import Arithmetic, Columns
from shelfwise.pipelines import predict_files, predict_parts
from shelfwise.pipelines.crew import Crew
from shelfwise.pipelines.predict_answers import Alone, Answerer, Memory
from shelfwise.pipelines.predict_inputs import inputs_of
from shelfwise.pipelines.predict_parts import Kind, Parts
from shelfwise.pipelines.predict_plan import Plan, make_plan
from shelfwise.pipelines.predict_rows import reject_cells, sort_out
from shelfwise.pipelines.predict_summary import PredictionSummary
from shelfwise.pipelines.predict_worker import Done, Worker, done_part, put_down
from shelfwise.records import RawRow, Reject, Which

REMEMBERED_TEXTS = 200_000  # measured: with the top 3 of each, 135 MiB
FIRST_PART_ROWS = 256
# Of a language model many parts keep a GPU busy; the baseline is a little quicker with few (docs/lab-notes.md).
PART_ROWS, EXACT_PART_ROWS = 2_048, 8_192
WORTH_WORKERS = 6 << 20  # bytes of input, some 100,000 rows: in less, processes are not done loading in time
MOST_WORKERS = 6  # one process reads and puts together what more would do
Chunk = tuple[list[RawRow | Reject], bool]  # rows, and whether they begin the output
Ready = Generator[tuple[Done, bytes | None], None, None]  # with what is remembered of the part
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
    chunk_rows: int | None  # of a part; None: as suits who answers
    force: bool
    resume: bool
    workers: int | None = 1  # processes of an exact answerer; None: as many as there are cores, for a large input


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
                workers = self._workers(plan) if self._exact else 1
                if workers == 1:
                    self.loaded()
                started = self._clock()
                self._work(plan, parts, progress, workers)
                model = "baseline" if workers > 1 else self.loaded().name
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
        if self._given or self._answering != "blend":
            return ""
        blend = blend_of(self.run)
        return blend.told if blend else ""

    def _key(self, plan: Plan) -> dict[str, object]:
        """What an unfinished job must agree in to be resumed."""
        return {**self.call(), "input": inputs_of(plan.sources), "text_columns": list(plan.text_columns)}

    @property
    def _remembered_parts(self) -> int:
        return max(1, REMEMBERED_TEXTS // self._part_rows)

    @property
    def _part_rows(self) -> int:
        """Rows of a part but the first ones."""
        return self.settings.chunk_rows or (EXACT_PART_ROWS if self._exact else PART_ROWS)

    @cached_property
    def _exact(self) -> bool:
        """Whether an answer depends on its text alone, to the last bit: so it does for the baseline, loaded or not."""
        if self._given or self.settings.which == "cascade":
            return self.loaded().exact
        return self._answering == "baseline"

    @cached_property
    def _answering(self) -> Literal["model", "blend", "baseline"]:
        """Who answers of the run, or behind its baseline; known from its configuration."""
        which = "auto" if self.settings.which == "cascade" else self.settings.which
        return answering(self.run, configs.load(self.run / artifact.CONFIG), which)

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

    def _work(self, plan: Plan, parts: Parts, progress: Progress | None, workers: int) -> None:
        """Do the parts that are not done."""
        first = len(parts.done)
        rows = iter(plan.stream)
        done = parts.tally.rows
        for _ in itertools.islice(rows, done):
            pass
        if done and progress is not None:
            progress(done)
        chunks = _chunks(rows, first, self._part_rows)
        if not self._exact:
            ready = self._remembering(plan, parts, chunks)
        elif workers > 1:
            ready = self._by_workers(plan, chunks, workers)
        else:
            answerer, top_k = self.loaded(), self.settings.top_k
            ready = ((done_part(chunk, first, plan, answerer, top_k), None) for chunk, first in chunks)
        with closing(ready):
            for part, remembered in ready:
                predict_files.require_room(plan, parts.tally.predicted + part.tally.predicted)
                files: dict[Kind, bytes] = {"out": part.out}
                if remembered is not None:
                    files["answers"] = remembered
                if part.rejected:
                    lines = [reject_cells(reject, plan.stream.columns) for reject in part.rejected]
                    files["rejects"] = predict_files.rejects_part_of(plan, lines, not parts.has("rejects"))
                parts.commit(files, part.tally, self._remembered_parts)
                if progress is not None:
                    progress(parts.tally.rows)

    def _remembering(self, plan: Plan, parts: Parts, chunks: Iterable[Chunk]) -> Ready:
        """Parts of an answerer whose answers are remembered.

        While one is asked for, the answers of that before it are told, and those of an earlier one written: a GPU need
        not wait for the CPU.
        """
        memory = Memory(self.loaded(), self.settings.top_k, self._remembered_parts)
        first = len(parts.done)
        for number in range(max(0, first - self._remembered_parts), first):
            memory.recall(number, parts.read(number, "answers"), str(parts.folder))

        def sorted_out() -> Iterator[tuple[list[RawRow], list[str], list[Reject], bool]]:
            predicted = parts.tally.predicted
            for chunk, is_first in chunks:
                rows, texts, rejected = sort_out(chunk, plan)
                predicted += len(rows)
                predict_files.require_room(plan, predicted)
                yield rows, texts, rejected, is_first

        asking = Crew([lambda sorts: memory.ask(sorts[1])])
        telling = Crew([lambda asked: memory.tell(asked[1])])
        with closing(asking), closing(telling):
            for ((rows, _, rejected, is_first), _), (answers, scored, remembered) in telling.each(
                asking.each(sorted_out())
            ):
                yield put_down(plan, rows, answers, rejected, scored, is_first), remembered

    def _by_workers(self, plan: Plan, chunks: Iterable[Chunk], count: int) -> Ready:
        """Parts of the baseline, by processes beside this one."""
        with ExitStack() as stack:
            workers = [stack.enter_context(closing(Worker(self.run, self.settings.top_k, plan))) for _ in range(count)]
            artifact.read_manifest(self.run)  # while they start; they take the files to be whole
            crew = stack.enter_context(closing(Crew([worker.do for worker in workers])))
            for _, part in crew.each(chunks):
                yield part, None

    def _workers(self, plan: Plan) -> int:
        """Processes that are to answer."""
        if self._given:
            return 1
        if self.settings.workers is not None:
            return self.settings.workers
        size = sum(source.stat().st_size for source in plan.sources if source.is_file())
        cores = processes.usable_cores()
        return min(cores, MOST_WORKERS) if size >= WORTH_WORKERS else 1


def _chunks(rows: Iterator[RawRow | Reject], first: int, size: int) -> Iterator[Chunk]:
    """Chunks from the number `first` on. They double up to `size`: where a model is slow, a rate is told soon."""
    for number in itertools.count(first):
        # The size of a chunk follows from its number alone, so that a resumed job cuts as an unbroken one does.
        chunk = list(itertools.islice(rows, min(FIRST_PART_ROWS << min(number, 32), size)))
        if not chunk:
            return
        yield chunk, number == 0
