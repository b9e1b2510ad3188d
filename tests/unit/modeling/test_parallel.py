from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForSequenceClassification, LlamaConfig

from shelfwise.errors import ConfigError, InputError, TrainingError, WorkError
from shelfwise.modeling import distributed, hardware, parallel
from shelfwise.modeling.batching import CompletionCollator, HeadCollator, Item, StepSampler
from shelfwise.modeling.memory import GIB, Shape
from shelfwise.prompts import IGNORE_INDEX
from support.wishes import wish

LLAMA = Shape.of(LlamaConfig(num_labels=426), AutoModelForSequenceClassification)  # LLaMA2-7B's shape is the default


@pytest.fixture
def launched(monkeypatch):
    def by(count):
        for name, value in {"RANK": 0, "WORLD_SIZE": count, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": count}.items():
            monkeypatch.setenv(name, str(value))

    return by


def shares(monkeypatch, count, make):
    monkeypatch.setattr(distributed, "is_joined", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: count)
    for rank in range(count):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        yield list(make())


@pytest.mark.parametrize("rows", [1, 23, 24, 25, 96])
def test_all_processes_take_the_rows_of_one_in_the_same_number_of_passes(rows, monkeypatch):
    lengths = [1 + row % 7 for row in range(rows)]
    count, micro = 3, 4

    def make():
        return distributed.SharedBatches(StepSampler(lengths, 24, count * micro, seed=1), count * micro)

    assert len(make()) == -(-rows // (count * micro))
    parts = list(shares(monkeypatch, count, make))
    assert {len(part) for part in parts} == {len(make())}
    assert sorted(row for part in parts for batch in part for row in batch) == list(range(rows))
    one = list(StepSampler(lengths, 24, micro, seed=1))
    for step in range(-(-rows // 24)):  # the same rows a step, whatever the number of processes
        ours = [row for part in parts for batch in part[2 * step : 2 * step + 2] for row in batch]
        assert sorted(ours) == sorted(one[24 * step : 24 * step + 24])


def test_rows_of_like_length_go_to_all_processes_at_the_same_time(monkeypatch):
    lengths = list(range(64))
    parts = shares(monkeypatch, 2, lambda: distributed.SharedBatches(StepSampler(lengths, 64, 8, seed=0), 8))
    for first, second in zip(*parts, strict=True):
        assert abs(max(first) - max(second)) == 1


@pytest.mark.parametrize("collator", [HeadCollator(0), CompletionCollator(0)])
def test_a_process_without_a_row_passes_a_spare_one_without_a_target(collator):
    collate = distributed.SharedCollator(collator, Item([5, 6, 7], 2, 1))
    assert (collate([])["labels"] == IGNORE_INDEX).all()
    assert collate([])["input_ids"].tolist() == [[5, 6, 7]]
    assert (collate([Item([5, 6], 1, 1)])["labels"] != IGNORE_INDEX).any()


def test_gradients_are_averaged_in_buckets_of_one_dtype(monkeypatch):
    monkeypatch.setattr(distributed, "_BUCKET", 10)
    sizes = [(4, torch.float32), (6, torch.float32), (1, torch.float32), (3, torch.bfloat16), (50, torch.bfloat16)]
    buckets = distributed._buckets([torch.zeros(size, dtype=dtype) for size, dtype in sizes])
    assert [[len(gradient) for gradient in bucket] for bucket in buckets] == [[4, 6], [1], [3], [50]]


def test_a_fully_trained_model_is_cut_and_an_adapters_base_stands_whole(launched):
    launched(8)
    full = parallel.choose(LLAMA, wish(method="full"), "auto", 79 * GIB)
    assert (full.shards, full.optimizer, full.fits) == (8, "adamw", True)  # one card holds it in bf16 alone
    assert parallel.choose(LLAMA, wish(method="lora"), "auto", 79 * GIB).shards == 1
    assert parallel.choose(LLAMA, wish(method="full"), "ddp", 79 * GIB).shards == 1
    assert parallel.choose(LLAMA, wish(method="lora"), "fsdp", 79 * GIB).shards == 8


def test_a_base_too_large_for_one_card_is_cut_for_its_adapter(launched):
    launched(8)
    assert not parallel.choose(LLAMA, wish(method="lora"), "ddp", 11 * GIB).fits
    cut = parallel.choose(LLAMA, wish(method="lora"), "auto", 11 * GIB)
    assert (cut.shards, cut.fits) == (8, True)


def test_the_batch_is_shared_evenly_or_refused(launched):
    launched(3)
    with pytest.raises(ConfigError, match=r"256 products can't be shared evenly by 3 processes; 255 or 258 can"):
        parallel.choose(LLAMA, wish(), "auto", 79 * GIB)
    launched(4)
    # A run that began with micro-batches of 128 goes on: each of four processes has 64 rows a step.
    assert parallel.choose(LLAMA, wish(micro_batch_size=128), "auto", 79 * GIB).micro_batch_size == 64
    with pytest.raises(ConfigError, match="can't cut a 4-bit base"):
        parallel.choose(LLAMA, wish(method="qlora"), "fsdp", 79 * GIB)


def test_each_process_takes_a_gpu_of_its_own(launched, monkeypatch):
    launched(4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(hardware, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert distributed.device_of("cuda") == torch.device("cuda", 3)
    with pytest.raises(InputError, match="a GPU of its own"):
        distributed.device_of("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"4 processes on a machine with 2 GPUs: use --nproc-per-node 2"):
        distributed.device_of("cuda")


class Store:
    """Counts, as the store that all processes share does."""

    def __init__(self) -> None:
        self.failed = 0

    def add(self, _, amount):
        self.failed += amount
        return self.failed


def test_the_first_process_that_fails_speaks_and_the_others_end_with_its_status():
    joined = distributed.Joined("cpu")
    joined._store = Store()
    for error in (TrainingError("no number"), ConfigError("no such key")):
        assert joined.__exit__(type(error), error, None) is None  # the first: it is raised as it is
        with pytest.raises(SystemExit) as ended:
            joined.__exit__(type(error), error, None)
        assert ended.value.code == error.exit_status
        joined._store.failed = 0


def test_a_process_that_was_killed_is_spoken_for_by_one_that_lost_it():
    joined = distributed.Joined("cpu")
    joined._store = Store()
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error [::1]:40340: Connection reset by peer.")
    with pytest.raises(WorkError, match="ended without a word"):
        joined.__exit__(RuntimeError, lost, None)
    joined._store.failed = 0
    fault = RuntimeError("shapes don't match")
    assert joined.__exit__(RuntimeError, fault, None) is None
