"""A micro-batch that does not fit: the step is made again in smaller parts, and nothing of the run is lost."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from shelfwise.config import TrainingConfig
from shelfwise.modeling.batching import CompletionCollator, HeadCollator, Item, SpanCollator
from shelfwise.modeling.job import Job, Validation
from shelfwise.modeling.out_of_memory import is_out_of_memory, parts, smaller
from shelfwise.modeling.trainer import ShelfwiseTrainer
from support.catalogue import EXAMPLES, LABELS, items_for

HELD_OUT = EXAMPLES[::7]


class Run:
    """A short run, what it logged, and which smaller micro-batches it was told of."""

    def __init__(self, engine, folder, micro_batch_size, **changes):
        self.engine = engine
        self.losses: dict[int, float] = {}
        self.shrunk: list[int] = []
        self.trainer = ShelfwiseTrainer(
            engine,
            Job(
                items=items_for(engine),
                validation=Validation([text for text, _ in HELD_OUT], [LABELS.index(label) for _, label in HELD_OUT]),
                config=TrainingConfig(**{"epochs": 1, "batch_size": 16, **changes}),
                micro_batch_size=micro_batch_size,
                learning_rate=2e-3,
                precision="fp32",
                checkpoints=folder,
                report=self._report,
                shrunk=self.shrunk.append,
            ),
        )

    def _report(self, progress):
        if "loss" in progress.values:
            self.losses[progress.step] = progress.values["loss"]


@contextmanager
def full_memory(run, holds, from_pass=0, *, backward=False):
    """Let training passes of more rows than the memory holds fail, from a pass on; `backward`: when half is done."""
    passes = 0

    def fail(_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def before(_, args, kwargs):
        nonlocal passes
        if not run.engine.model.training:
            return
        passes += 1
        if not backward and passes > from_pass and len(kwargs["input_ids"]) > holds:
            fail(None)

    def after(_, args, output):
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        if backward and run.engine.model.training and passes > from_pass and len(hidden) > holds:
            hidden.register_hook(fail)

    layers = next(module for module in run.engine.model.modules() if isinstance(module, torch.nn.ModuleList))
    hooks = [
        run.engine.model.register_forward_pre_hook(before, with_kwargs=True),
        layers[0].register_forward_hook(after),
    ]
    yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("architecture", "objective", "backward"),
    [("llama", "head", True), ("falcon", "completion", True), ("falcon", "head", False)],
)
def test_a_run_that_filled_the_memory_has_the_losses_of_one_with_the_smaller_micro_batch(
    architecture, objective, backward, make_engine, tmp_path
):
    broken = Run(make_engine(architecture, objective), tmp_path / "broken", 8)
    # The fourth pass is the second of the second step: the first half of that step is made again too.
    with full_memory(broken, holds=2, from_pass=3, backward=backward):
        broken.trainer.train()
    assert broken.shrunk == [4, 2]
    assert broken.trainer.fitting.micro_batch_size == 2

    unbroken = Run(make_engine(architecture, objective), tmp_path / "unbroken", 2)
    unbroken.trainer.train()
    assert unbroken.shrunk == []
    assert len(broken.losses) == 8
    assert broken.losses == pytest.approx(unbroken.losses, rel=1e-4)
    for one, other in zip(broken.engine.model.parameters(), unbroken.engine.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_every_step_is_logged_once_and_validation_goes_on(make_engine, tmp_path):
    run = Run(make_engine("llama"), tmp_path, 16)
    with full_memory(run, holds=4):
        run.trainer.train()
    assert sorted(run.losses) == list(range(1, 9))
    assert run.trainer.state.best_metric is not None


def test_a_run_resumed_with_the_smaller_micro_batch_goes_on_where_the_larger_one_stopped(make_engine, tmp_path):
    whole = Run(make_engine("llama"), tmp_path, 8, evaluations_per_epoch=2)
    with full_memory(whole, holds=4, from_pass=3):
        whole.trainer.train()
    rest = Run(make_engine("llama"), tmp_path, 4, evaluations_per_epoch=2)
    rest.trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert sorted(rest.losses) == [5, 6, 7, 8]
    assert rest.losses == pytest.approx({step: whole.losses[step] for step in rest.losses}, rel=1e-4)


def test_when_not_even_one_row_fits_the_error_comes_out(make_engine, tmp_path):
    run = Run(make_engine("llama"), tmp_path, 4)
    with full_memory(run, holds=0), pytest.raises(torch.OutOfMemoryError):
        run.trainer.train()
    assert run.shrunk == [2, 1]


def test_an_error_of_another_kind_is_not_taken_for_a_full_memory(make_engine, tmp_path, monkeypatch):
    run = Run(make_engine("llama"), tmp_path, 4)

    def fail(*_, **__):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(run.engine.model, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run.trainer.train()
    assert run.shrunk == []


@pytest.mark.parametrize(("rows", "next_size"), [(256, 128), (12, 6), (15, 5), (7, 1), (2, 1)])
def test_a_smaller_micro_batch_divides_the_one_before(rows, next_size):
    assert smaller(rows) == next_size
    assert rows % next_size == 0


def test_parts_are_the_rows_in_their_order_without_columns_of_padding():
    items = [Item([5] * length, length, length) for length in (2, 3, 3, 7)]
    batch = HeadCollator(0)(items)
    cut = list(parts(batch, 3, 0))
    assert [tuple(part["input_ids"].shape) for part in cut] == [(3, 3), (1, 7)]
    assert [part["labels"].tolist() for part in cut] == [[2, 3, 3], [7]]
    assert next(parts(batch, 4, 0)) is batch


def test_parts_of_completions_keep_every_target():
    items = [Item([5, 6, 7, 8][:length], 0, 1) for length in (2, 3, 4, 4)]
    batch = CompletionCollator(0)(items)
    targets = torch.cat([part["labels"][part["labels"] >= 0] for part in parts(batch, 1, 0)])
    assert targets.tolist() == batch["labels"][batch["labels"] >= 0].tolist()


def test_parts_of_rows_that_are_laid_side_by_side_share_the_long_ones_and_keep_their_lengths():
    lengths = (2, 3, 4, 9, 20)
    batch = SpanCollator(HeadCollator(0))([Item([5] * length, length, length) for length in lengths])
    cut = list(parts(batch, 2, 0))
    assert [[len(row) for row in part["spans"].rows] for part in cut] == [[2, 9], [3, 20], [4]]
    assert [part["labels"].tolist() for part in cut] == [[2, 9], [3, 20], [4]]
    assert [part["spans"].kept for part in cut] == [[(1, 2), (8, 9)], [(2, 3), (19, 20)], [(3, 4)]]
    assert [tuple(part["input_ids"].shape) for part in cut] == [(2, 9), (2, 20), (1, 4)]


def test_a_full_memory_is_recognised_by_class_or_words():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("device-side assert triggered"))
