"""The Triton kernels against plain torch in float32, at the shapes of both 7B models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shelfwise.modeling.packed import activation, attention, tiles
from shelfwise.modeling.packed.linear import Fp8, Frozen, Lora

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
    laid = tiles.lay(SIZES, [(size - 1, size) for size in SIZES], tile).to(torch.device("cuda"))
    given = torch.randn(len(laid.row), (heads + 2 * kv_heads) * width, device="cuda")
    frequencies = 1 / 10000 ** (torch.arange(0, width, 2, device="cuda") / width)
    place = (*attention.rotary_tables(frequencies, tile), laid.position, laid.row, shape)
    exact = given.clone().requires_grad_()
    wanted = attention.reference(exact, *place)
    grad = torch.randn_like(wanted)
    (wanted_grad,) = torch.autograd.grad(wanted, exact, grad)
    qkv = given.to(torch.bfloat16).requires_grad_()
    found = attention.tile_attention(qkv, *place)
    (found_grad,) = torch.autograd.grad(found, qkv, grad.to(torch.bfloat16))
    assert error(found, wanted) < 1e-2
    assert error(found_grad, wanted_grad) < 1e-2


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
