"""Rows side by side in tiles give what rows alone give: states, losses, and the gradient of every trained tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, FalconConfig, LlamaConfig

from shelfwise.config import LoraSettings
from shelfwise.modeling import adapters, backbone
from shelfwise.modeling.packed import linear, tiles
from shelfwise.modeling.packed.model import PackedModel

PAD = 0
SIZES = (3, 50, 12, 12, 17, 2, 30, 9, 12, 64, 11)
LABELS = 7


def llama(**changes: Any) -> LlamaConfig:
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaConfig(**{**small, "vocab_size": 200, "num_key_value_heads": 2, "pad_token_id": PAD, **changes})


def falcon(**changes: Any) -> FalconConfig:
    small = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 200}
    like_7b = {"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False, "bias": False}
    return FalconConfig(**{**small, **like_7b, "alibi": False, "pad_token_id": PAD, **changes})


CONFIGS = {"llama": llama, "falcon": falcon}


def build(architecture: str, objective: str, method: str) -> nn.Module:
    torch.manual_seed(1)
    config = CONFIGS[architecture](num_labels=LABELS)
    cls = AutoModelForSequenceClassification if objective == "head" else AutoModelForCausalLM
    model = cls.from_config(config).float()
    if method == "qlora":
        quantise(model)
    if method != "full":
        objective_name: Any = objective
        model = adapters.attach(model, LoraSettings(r=4, alpha=8, dropout=0.0), objective_name)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, which would hide the gradient of lora_A
                nn.init.normal_(parameter, std=0.1)
    return model.train()


def quantise(model: nn.Module) -> None:
    """Four-bit layers in place, as transformers would load them."""
    import bitsandbytes as bnb

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and name not in backbone.HEADS.values():
                four = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=False, compute_dtype=torch.float32, quant_type="nf4"
                )
                four.weight = bnb.nn.Params4bit(
                    child.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
                )
                setattr(parent, name, four.to("cpu"))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    backbone.differentiate_on_cpu(model)


def rows_of(sizes: tuple[int, ...] = SIZES) -> list[list[int]]:
    """All begin alike, some with more, two are the same, and one is the beginning of others."""
    generator = torch.Generator().manual_seed(2)
    rows = [[7, *torch.randint(3, 200, (size - 1,), generator=generator).tolist()] for size in sizes]
    return [*rows, rows[1][:20], [*rows[1][:20], 5, 6], [*rows[1][:9], 8], rows[3], rows[3][:2]]


def alone(model: nn.Module, objective: str, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Loss, and logits at all positions that count, one row at a time."""
    logits, targets = [], []
    for number, row in enumerate(rows):
        ids = torch.tensor([row])
        if objective == "head":
            logits.append(model(input_ids=ids, use_cache=False).logits)
            targets.append(number % LABELS)
        elif len(row) > 1:
            start = max(0, len(row) - 4)
            logits.append(model(input_ids=ids, use_cache=False).logits[0, start:-1])
            targets += row[start + 1 :]
    together = torch.cat(logits)
    return F.cross_entropy(together, torch.tensor(targets)), together


def packed(model: nn.Module, objective: str, rows: list[list[int]], **options: Any) -> tuple[Tensor, Tensor]:
    """The same, side by side."""
    found = PackedModel.of(model, max(map(len, rows)), dtype=torch.float32, **options)
    assert found is not None
    sizes = [len(row) for row in rows]
    kept = [(size - 1, size) if objective == "head" else (max(0, size - 4), size - 1) for size in sizes]
    hidden = found.hidden(tiles.lay(rows, kept, found.tile, PAD))
    plain: Any = found.model
    logits = (plain.score if objective == "head" else plain.get_output_embeddings())(hidden)
    if objective == "head":
        targets = [number % LABELS for number in range(len(rows))]
    else:
        targets = [token for row in rows if len(row) > 1 for token in row[max(0, len(row) - 4) + 1 :]]
    return F.cross_entropy(logits, torch.tensor(targets)), logits


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("objective", ["head", "completion"])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_loss_and_every_gradient_are_those_of_rows_alone(architecture: str, objective: str, method: str) -> None:
    model, rows = build(architecture, objective, method), rows_of()
    loss, logits = alone(model, objective, rows)
    wanted = gradients(model, loss)
    assert set(wanted) == {name for name, p in model.named_parameters() if p.requires_grad}
    for checkpointing in (False, True):
        again, logits_again = packed(model, objective, rows, checkpointing=checkpointing)
        torch.testing.assert_close(logits_again, logits, atol=2e-5, rtol=2e-4)
        torch.testing.assert_close(again, loss, atol=1e-6, rtol=1e-5)
        for name, gradient in gradients(model, again).items():
            error = (gradient - wanted[name]).norm() / wanted[name].norm().clamp(min=1e-9)
            assert error < 1e-4, f"{name}: {error:.1e}"


def test_a_model_answers_as_before_once_its_weights_lie_side_by_side() -> None:
    model, rows = build("llama", "head", "lora"), rows_of()
    before = alone(model, "head", rows)[1]
    packed(model, "head", rows)
    assert torch.equal(alone(model, "head", rows)[1], before)


def test_dropout_before_the_adapters_is_drawn_in_training_and_not_else() -> None:
    model, rows = build("llama", "head", "lora"), rows_of()
    for module in model.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = nn.Dropout(0.5)
    first, second = packed(model, "head", rows)[1], packed(model, "head", rows)[1]
    assert not torch.allclose(first, second)
    model.eval()
    torch.testing.assert_close(packed(model, "head", rows)[1], alone(model, "head", rows)[1], atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize(
    "config",
    [
        llama(attention_bias=True),
        llama(mlp_bias=True),
        llama(hidden_act="gelu"),
        llama(attention_dropout=0.1),
        llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
        falcon(alibi=True),
        falcon(bias=True),
        falcon(new_decoder_architecture=True, num_kv_heads=2),
        falcon(parallel_attn=False),
        falcon(hidden_dropout=0.1),
    ],
    ids=str,
)
def test_layers_that_are_not_known_are_left_to_transformers(config: Any) -> None:
    assert PackedModel.of(AutoModelForCausalLM.from_config(config), 20, dtype=torch.float32) is None


def test_rows_that_no_tile_holds_are_left_to_transformers() -> None:
    assert PackedModel.of(build("llama", "head", "full"), 129, dtype=torch.float32) is None


def seen_by(laid: tiles.Tiles, at: int, length: int) -> list[int]:
    """The tokens that one sees, by the rule of the kernels."""
    first, order = at // length * length, at % length
    return [first + j for j in range(order + 1) if laid.end[first + j] > order]


TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=12)  # few different ones, so that many rows begin alike


@given(st.lists(st.tuples(TOKENS, st.integers(0, 11)), min_size=1, max_size=60), st.sampled_from([12, 16, 64]))
@settings(max_examples=150, deadline=None)
def test_a_token_sees_what_its_row_begins_with_and_nothing_else(
    drawn: list[tuple[list[int], int]], length: int
) -> None:
    rows = [row for row, _ in drawn]
    kept = [(min(first, len(row) - 1), len(row)) for row, first in drawn]
    laid = tiles.lay(rows, kept, length, PAD)
    wanted = [
        row[: column + 1] for row, (first, behind) in zip(rows, kept, strict=True) for column in range(first, behind)
    ]
    assert len(laid.keep) == len(wanted)
    for at, beginning in zip(laid.keep.tolist(), wanted, strict=True):
        seen = seen_by(laid, at, length)
        assert laid.ids[seen].tolist() == beginning
        assert laid.position[seen].tolist() == list(range(len(beginning)))


@given(st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=64), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_token_stands_twice_in_a_tile(rows: list[list[int]]) -> None:
    laid = tiles.lay(rows, [(0, len(row)) for row in rows], 64, PAD)
    ways = [(at // 64, *laid.ids[seen_by(laid, at, 64)].tolist()) for at in laid.keep.unique().tolist()]
    assert len(set(ways)) == len(ways)
    assert len(ways) <= sum(map(len, rows))


def test_padding_sees_itself_so_that_no_softmax_is_empty() -> None:
    laid = tiles.lay([[5, 6, 7], [5, 9]], [(2, 3), (1, 2)], 64, PAD)
    assert laid.ids.tolist() == [5, 6, 7, 9, *[PAD] * 60]
    assert laid.position.tolist() == [0, 1, 2, 1, *[0] * 60]
    assert laid.end.tolist() == [64, 3, 3, 4, *range(5, 65)]
    assert laid.keep.tolist() == [2, 3]


def test_rows_that_are_alike_are_one() -> None:
    laid = tiles.lay([[4, 5]] * 100, [(1, 2)] * 100, 64, PAD)
    assert len(laid.ids) == 64
    assert laid.keep.tolist() == [1] * 100


def drawn_names(count: int, draw: Any, spread: float = 4.0) -> list[list[int]]:
    """Rows as long as product names; the first token of all is the same, and others are seldom."""
    sizes = draw.normal(12, spread, count).clip(3, 57).round().astype(int)
    return [[1, *draw.integers(2, 10**6, size - 1).tolist()] for size in sizes]


def last(rows: list[list[int]]) -> list[tuple[int, int]]:
    return [(len(row) - 1, len(row)) for row in rows]


def test_names_leave_few_gaps() -> None:
    rows = drawn_names(256, np.random.default_rng(0))
    laid = tiles.lay(rows, last(rows), 64, PAD)
    assert (laid.ids != PAD).float().mean() > 0.96
    assert len(laid.ids) < 0.95 * sum(map(len, rows))  # though every tile begins with the token of all


def test_the_share_that_is_computed_is_that_of_laying_so_many_rows() -> None:
    rows = drawn_names(300, np.random.default_rng(0))
    counts, shares = zip(*tiles.computed_shares(rows), strict=True)
    assert counts == (64, 256, 300)
    assert shares[-1] == len(tiles.lay(rows, last(rows), 64, PAD).ids) / sum(map(len, rows))
    assert tiles.computed_shares([[1] * 200]) == ()


def test_a_row_longer_than_a_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens"):
        tiles.lay([[1] * 65], [(0, 1)], 64, PAD)


@pytest.mark.slow
def test_an_fp8_base_comes_near_compiled_or_not() -> None:
    model, rows = build("llama", "head", "lora").to(torch.bfloat16), rows_of()
    laid = tiles.lay(rows, last(rows), 64, PAD)
    plain = PackedModel.of(model, 64, dtype=torch.bfloat16)
    assert plain is not None
    wanted = plain.hidden(laid).float()
    rounded = PackedModel.of(model, 64, dtype=torch.bfloat16, fp8=True)
    assert rounded is not None
    compiled = replace(rounded, layer=torch.compile(rounded.written, dynamic=False, backend="aot_eager"))
    for found in (rounded, compiled):
        hidden = found.hidden(laid).float()
        assert 0 < (hidden - wanted).norm() / wanted.norm() < 0.15
        hidden.sum().backward()


def test_random_batches_come_to_few_numbers_of_tiles() -> None:
    """What is compiled for each number of tiles is compiled a few times only, and few tiles are empty."""
    draw = np.random.default_rng(0)
    for count, most in ((672, 4), (256, 5)):
        numbers, filled = set(), []
        for _ in range(33):
            rows = drawn_names(count, draw, spread=5.0)
            laid = tiles.lay(rows, last(rows), 64, PAD, rounding=True)
            numbers.add(len(laid.ids) // 64)
            filled.append((laid.ids != PAD).float().mean())
        assert len(numbers) <= most
        assert np.mean(filled) > 0.93


def test_tiles_that_are_added_are_empty_and_last() -> None:
    rows = [[number, *[1] * 11] for number in range(2, 123)]
    plain, filled_up = (tiles.lay(rows, last(rows), 64, PAD, rounding=rounding) for rounding in (False, True))
    assert len(filled_up.ids) > len(plain.ids)
    assert torch.equal(filled_up.ids[: len(plain.ids)], plain.ids)
    assert (filled_up.ids[len(plain.ids) :] == PAD).all()
    assert torch.equal(filled_up.keep, plain.keep)


def test_fp8_rows_come_back_within_half_a_step() -> None:
    x = torch.randn(20, 64)
    rows, factors = linear.to_fp8(x)
    assert ((rows.float() * factors - x).abs() <= x.abs() / 16 + factors * 2**-9).all()  # three bits behind the point
