"""The Triton kernels against plain torch in float32, at the shapes of both 7B models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from shelfwise.modeling.packed import activation, attention, rows, tiles
from shelfwise.modeling.packed.linear import Fp8, Frozen, Lora
from shelfwise.modeling.packed.rows import Norm, Rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SIZES = [3, 60, 12, 12, 17, 1, 30, 9] * 4


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("shape", [[32, 32, 128, 64], [71, 1, 64, 64], [9, 3, 64, 64]], ids=str)
def test_attention_inside_tiles(shape: list[int]) -> None:
    heads, kv_heads, width, tile = shape
    names = [[1, *torch.randint(1, 4, (size - 1,)).tolist()] for size in SIZES]
    laid = tiles.lay(names, [(size - 1, size) for size in SIZES], tile, 0).to(torch.device("cuda"))
    given = torch.randn(len(laid.ids), (heads + 2 * kv_heads) * width, device="cuda")
    frequencies = 1 / 10000 ** (torch.arange(0, width, 2, device="cuda") / width)
    place = (*attention.rotary_tables(frequencies, tile), laid.position, laid.end, shape)
    exact = given.clone().requires_grad_()
    wanted = attention.reference(exact, *place)
    grad = torch.randn_like(wanted)
    (wanted_grad,) = torch.autograd.grad(wanted, exact, grad)
    qkv = given.to(torch.bfloat16).requires_grad_()
    found = attention.tile_attention(qkv, *place)
    (found_grad,) = torch.autograd.grad(found, qkv, grad.to(torch.bfloat16))
    assert error(found, wanted) < 1e-2
    assert error(found_grad, wanted_grad) < 1e-2


@pytest.mark.parametrize("shape", [(32, 32, 128), (71, 1, 64), (9, 3, 64)], ids=str)
def test_attention_of_new_tokens_with_kept_ones(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    heads, kv_heads, width = shape
    new, before = [1, 3, 2, 20, 1, 5], [12, 0, 40, 9, 100, 61]
    slots = torch.full((len(new), 105), -1, dtype=torch.int32)
    for path, tokens in enumerate(a + b for a, b in zip(new, before, strict=True)):
        slots[path, :tokens] = torch.randperm(300)[:tokens]
    counts = [torch.tensor(each, dtype=torch.int32, device="cuda") for each in (new, before)]
    firsts = (counts[0].cumsum(0) - counts[0]).int()
    paths = attention.Paths(slots.cuda(), counts[0] + counts[1], firsts, counts[0], max(new))
    qkv = torch.randn(sum(new), (heads + 2 * kv_heads) * width, device="cuda")
    kept = torch.randn(300, 2 * kv_heads * width, device="cuda")
    frequencies = 1 / 10000 ** (torch.arange(0, width, 2, device="cuda") / width)
    tables = attention.rotary_tables(frequencies, 128)
    wanted = attention.path_attention(qkv, kept, *tables, paths, shape, kernel=False)
    found = attention.path_attention(qkv.bfloat16(), kept.bfloat16(), *tables, paths, shape, kernel=True)
    assert error(found, wanted) < 1e-2


@pytest.mark.parametrize("most", [1, 2, 6])
@pytest.mark.parametrize("shape", [(32, 32, 128), (71, 1, 64), (9, 3, 64)], ids=str)
def test_attention_of_few_new_tokens(shape: tuple[int, int, int], most: int) -> None:
    """Heads that share keys are computed together, as many as fit."""
    torch.manual_seed(0)
    heads, kv_heads, width = shape
    new = torch.randint(1, most + 1, (50,))
    new[7] = most
    lengths = new + torch.randint(0, 40, (50,))
    slots = torch.full((50, 46), -1, dtype=torch.int32)
    for path, tokens in enumerate(lengths.tolist()):
        slots[path, :tokens] = torch.randperm(300)[:tokens]
    paths = attention.Paths(*(t.int().cuda() for t in (slots, lengths, new.cumsum(0) - new, new)), most)
    qkv = torch.randn(int(new.sum()), (heads + 2 * kv_heads) * width, device="cuda")
    kept = torch.randn(300, 2 * kv_heads * width, device="cuda")
    tables = attention.rotary_tables(1 / 10000 ** (torch.arange(0, width, 2, device="cuda") / width), 128)
    wanted = attention.path_attention(qkv, kept, *tables, paths, shape, kernel=False)
    found = attention.path_attention(qkv.bfloat16(), kept.bfloat16(), *tables, paths, shape, kernel=True)
    assert error(found, wanted) < 1e-2


@pytest.mark.parametrize("shape", [(32, 32, 128), (71, 1, 64), (9, 3, 64)], ids=str)
def test_keys_and_values_are_kept(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    heads, kv_heads, width = shape
    qkv = torch.randn(50, (heads + 2 * kv_heads) * width, device="cuda").bfloat16()
    slots, position = torch.randperm(300)[:50].cuda(), torch.randint(0, 128, (50,)).int().cuda()
    tables = attention.rotary_tables(1 / 10000 ** (torch.arange(0, width, 2, device="cuda") / width), 128)
    found, wanted = (torch.zeros(300, 2 * kv_heads * width, device="cuda").bfloat16() for _ in range(2))
    attention.keep(qkv, found, slots, position, *tables, shape, kernel=True)
    attention.keep(qkv, wanted, slots, position, *tables, shape, kernel=False)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("width", [100, 2048, 49152])
def test_log_sums(width: int) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(130, width, device="cuda") * 5 - 20).bfloat16()
    wanted = rows.log_sums(logits, kernel=False)
    torch.testing.assert_close(rows.log_sums(logits, kernel=True), wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize(("gated", "wide", "hidden"), [(True, 11008, 4096), (False, 18176, 4544)])
def test_activation_with_adapters(gated: bool, wide: int, hidden: int, fp8: bool) -> None:
    torch.manual_seed(0)
    maps = 2 if gated else 1
    weight = torch.randn(maps * wide, hidden, device="cuda") / hidden**0.5
    downs = [(torch.randn(16, hidden, device="cuda") / hidden**0.5).requires_grad_() for _ in range(maps)]
    ups = [(torch.randn(wide, 16, device="cuda") / 4).requires_grad_() for _ in range(maps)]
    lora = Lora(tuple(downs), tuple(ups), 2.0, 0.0)
    x = torch.randn(256, hidden, device="cuda")
    exact = x.clone().requires_grad_()
    wanted = activation.activated(exact, Frozen(weight), lora, gated=gated, kernel=False)
    grad = torch.randn_like(wanted)
    low = x.to(torch.bfloat16).requires_grad_()
    base = Fp8.of(weight.to(torch.bfloat16)) if fp8 else Frozen(weight.to(torch.bfloat16))
    found = activation.activated(low, base, lora, gated=gated, kernel=True)
    assert error(found, wanted) < (5e-2 if fp8 else 1e-2)
    pairs = zip(
        torch.autograd.grad(found, [low, *downs, *ups], grad.to(torch.bfloat16)),
        torch.autograd.grad(wanted, [exact, *downs, *ups], grad),
        strict=True,
    )
    assert all(error(a, b) < (5e-2 if fp8 else 2e-2) for a, b in pairs)


def dense(found: Rows) -> Tensor:
    """What rows stand for, in float32."""
    return found.values.float() * (1 if found.factors is None else found.factors)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("deltas", [0, 1, 2])
@pytest.mark.parametrize(("width", "bias"), [(4096, False), (4544, True), (576, False)])
def test_residuals_and_norm(width: int, bias: bool, deltas: int, fp8: bool) -> None:
    torch.manual_seed(0)
    x, *added = (torch.randn(130, width, device="cuda", dtype=torch.bfloat16) for _ in range(1 + deltas))
    weight, shift = (torch.randn(width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    norm = Norm(weight, shift if bias else None, 1e-5)
    wanted_x, wanted = rows.normed(x.clone(), added, norm, fp8=fp8, kernel=False)
    found_x, found = rows.normed(x.clone(), added, norm, fp8=fp8, kernel=True)
    assert error(found_x, wanted_x.float()) < 5e-3
    assert error(dense(found), dense(wanted)) < (2e-2 if fp8 else 5e-3)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize(("gated", "width"), [(True, 11008), (False, 18176), (True, 1536)])
def test_activation_of_rows(gated: bool, width: int, fp8: bool) -> None:
    torch.manual_seed(0)
    y = torch.randn(130, width * (2 if gated else 1), device="cuda", dtype=torch.bfloat16)
    wanted = rows.activated(y, gated=gated, fp8=fp8, kernel=False)
    assert error(dense(rows.activated(y, gated=gated, fp8=fp8, kernel=True)), dense(wanted)) < (2e-2 if fp8 else 5e-3)
    whole = rows.quantised(Rows(y), kernel=False) if width < 8192 else None
    if whole is not None:
        assert error(dense(rows.quantised(Rows(y), kernel=True)), dense(whole)) < 1e-2


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_answers_of_a_model(architecture: str, fp8: bool) -> None:
    """Whole models: recorded and unrecorded batches give what transformers gives, alone and together."""
    from transformers import AutoModelForSequenceClassification, FalconConfig, LlamaConfig

    from shelfwise.modeling.packed.inference import RECORDED, Inference

    torch.manual_seed(0)
    shape: dict[str, int] = {"vocab_size": 500, "hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8}
    config = (
        LlamaConfig(**shape, intermediate_size=1024, num_key_value_heads=4, num_labels=40, pad_token_id=0)
        if architecture == "llama"
        else FalconConfig(**shape, multi_query=True, parallel_attn=True, bias=False, num_labels=40, pad_token_id=0)
    )
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).cuda().eval()
    names = [[1, *torch.randint(1, 500, (size - 1,)).tolist()] for size in [*(SIZES * 40)[:1200], 100, 128, 70]]
    names[-200:-180] = [[*name[:2], 9] for name in names[-100:-80]]
    with torch.no_grad():
        wanted = torch.cat(
            [model(input_ids=torch.tensor([name], device="cuda"), use_cache=False).logits for name in names[-100:]]
        ).log_softmax(-1)
    inference = Inference.of(model, dtype=torch.bfloat16, fp8=fp8)
    assert inference is not None
    together = inference.log_probs(names)
    few = inference.log_probs(names[-40:-10])  # those behind are too long for what is recorded
    alone = torch.cat([inference.log_probs([name]).cpu() for name in names[-100:]])
    assert len(inference.recorded) > 1
    inference.warm()
    assert tuple(sorted(inference.recorded)) == RECORDED
    assert torch.equal(inference.log_probs(names[-40:-10]), few)
    margin = 0.25 if fp8 else 0.03  # fp8: 3 bits of mantissa, at random weights
    for found, given in ((together[-100:], wanted), (few, wanted[-40:-10]), (alone, wanted)):
        assert float((found.cpu() - given.cpu()).abs().max()) < margin


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_texts_that_are_under_way_together_are_answered_as_alone(architecture: str) -> None:
    """Lots that were all begun with before one is waited for, then waited for backwards and in another thread."""
    from concurrent.futures import ThreadPoolExecutor
    from dataclasses import replace

    from shelfwise.labels import Labels
    from shelfwise.modeling import backbone, tiny
    from shelfwise.modeling.encoding import Encoder
    from shelfwise.modeling.engine import Engine
    from shelfwise.modeling.packed.inference import Inference
    from shelfwise.prompts import PromptFormat

    labels = Labels(tuple(f"type {i}" for i in range(40)))
    names = [f"product {i} of {'many ' * (i % 7)}words" for i in range(4000)]
    encoder = Encoder(tiny.tokenizer_for(architecture, names), PromptFormat())
    settings = backbone.LoadSettings("head", "full", len(labels), torch.device("cuda"), "bf16")
    torch.manual_seed(0)
    config = tiny.config_for(architecture, encoder.tokenizer)
    model = backbone.fresh(config, settings, encoder.tokenizer.pad_token_id)
    engine = Engine.of(model, encoder, "head", labels, settings.device, settings.precision)
    engine = replace(engine, inference=Inference.of(model, dtype=torch.bfloat16))
    assert engine.inference is not None
    lots = [names[:1500], names[1500:1510], names[1510:3000], names[3000:]]
    alone = [engine.log_probs(lot) for lot in lots]
    under_way = [engine.start(lot) for lot in lots]
    with ThreadPoolExecutor(1) as other:
        together = list(other.map(lambda wait: wait(), reversed(under_way)))[::-1]
    for found, wanted in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_labels_as_texts(architecture: str, fp8: bool) -> None:
    """All tokens and likely ones, beside the whole tree by transformers in float32."""
    from dataclasses import replace

    from shelfwise.labels import Labels
    from shelfwise.modeling import backbone, tiny
    from shelfwise.modeling.encoding import Encoder
    from shelfwise.modeling.engine import Engine
    from shelfwise.modeling.packed.completion import Completion
    from shelfwise.prompts import PromptFormat

    labels = Labels(tuple(sorted(f"type {i} of {'many ' * (i % 5)}words" for i in range(60))))
    names = [f"product {i} of {'some ' * (i % 7)}words" for i in range(300)]
    encoder = Encoder(tiny.tokenizer_for(architecture, [*names, *labels.names]), PromptFormat())
    settings = backbone.LoadSettings("completion", "full", len(labels), torch.device("cuda"), "fp32")
    torch.manual_seed(0)
    config = tiny.config_for(architecture, encoder.tokenizer)
    config.hidden_size, config.intermediate_size, config.ffn_hidden_size = 256, 512, 1024
    model = backbone.fresh(config, settings, encoder.tokenizer.pad_token_id).eval()
    model.get_output_embeddings().weight.data.mul_(2)
    engine = Engine.of(model, encoder, "completion", labels, settings.device, settings.precision)
    wanted = np.exp(engine.log_probs(names))
    found = Completion.of(model, encoder.completions(labels.names), dtype=torch.bfloat16, fp8=fp8)
    assert found is not None
    model.get_output_embeddings().to(torch.bfloat16)
    margin = 0.15 if fp8 else 0.05
    exact = np.exp(replace(engine, inference=replace(found, tolerance=0)).log_probs(names))
    likely = np.exp(replace(engine, inference=replace(found, tolerance=1e-3)).log_probs(names))
    assert np.abs(exact - wanted).max() < margin
    assert np.abs(likely - exact).max() < 0.02
