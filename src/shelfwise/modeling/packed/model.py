"""A transformers model, with its adapters, computed over tiles. The parameters stay the model's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shelfwise.modeling import adapters
from shelfwise.modeling.packed import attention, layers
from shelfwise.modeling.packed.layers import FalconWeights, LlamaWeights, Map, Place
from shelfwise.modeling.packed.linear import NONE, Base, Fp8, Frozen, Lora, Nf4, Trained
from shelfwise.modeling.packed.tiles import Tiles, tile_length

# Kept positions are filled up to a multiple of this: what the MLP's kernel takes at once.
_KEPT = 64
# Numbers of tiles that a layer may be compiled for; above it, torch would go on uncompiled.
_SHAPES = 32


@dataclass(frozen=True, slots=True)
class PackedModel:
    """Runs the decoder stack of a LLaMA or a Falcon on tiles."""

    model: nn.Module  # the transformers model that holds all parameters
    tile: int  # tokens a tile
    stack: tuple[LlamaWeights | FalconWeights, ...]
    calm: tuple[LlamaWeights | FalconWeights, ...]  # the same without dropout, for inference
    layer: Callable[..., Tensor]  # compiled, where that can be
    written: Callable[..., Tensor]  # the same as it is written
    kernel: bool
    dtype: torch.dtype  # of the arithmetic
    checkpointing: bool
    cos: Tensor
    sin: Tensor

    @classmethod
    def of(
        cls,
        model: nn.Module,
        longest: int,
        *,
        dtype: torch.dtype,
        fp8: bool = False,
        backward: bool = True,
        checkpointing: bool = False,
        compiled: bool = True,
    ) -> PackedModel | None:
        """Around a model; None where it is none of ours, and transformers' own forward has to do.

        Frozen weights that read the same input are moved side by side in memory; the model's parameters become views.

        Args:
            model: a transformers model, or a PEFT model around one, on its device.
            longest: tokens of the longest row.
            dtype: of the arithmetic; weights that are trained may be of another.
            fp8: frozen weights in fp8. They are rounded, and the model can no longer be run by transformers.
            backward: whether there will be a backward pass. Without one, frozen weights are cast to ``dtype``.
            checkpointing: keep each layer's input alone, and compute its inside again in the backward pass.
            compiled: compile the layers; off, everything runs as written.
        """
        plain = adapters.plain(model)
        tile = tile_length(longest)
        config = plain.config
        if tile is None or not known_layers(config):
            return None
        decoder = getattr(plain, plain.base_model_prefix)
        llama = config.model_type == "llama"
        blocks = decoder.layers if llama else decoder.h
        collect = _llama_weights if llama else _falcon_weights
        form = _Form(fp8, backward, dtype)
        stack = tuple(collect(block, form) for block in blocks)
        cos, sin = attention.rotary_tables(decoder.rotary_emb.inv_freq, tile)
        device = decoder.get_input_embeddings().weight.device
        layer = layers.llama if llama else layers.falcon
        return cls(
            model=plain,
            tile=tile,
            stack=stack,
            calm=tuple(_without_dropout(weights) for weights in stack),
            layer=_compiled(layer) if compiled and device.type == "cuda" else layer,
            written=layer,
            kernel=attention.supported(_head_width(config), device),
            dtype=dtype,
            checkpointing=checkpointing,
            cos=cos,
            sin=sin,
        )

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, key and value heads, and the width of one."""
        config: Any = self.model.config
        kv_heads = config.num_key_value_heads if config.model_type == "llama" else 1
        return config.num_attention_heads, kv_heads, _head_width(config)

    def hidden(self, tiles: Tiles, *, compiled: bool = True) -> Tensor:
        """Hidden states above the last norm.

        Args:
            tiles: the rows, on the model's device.
            compiled: worth its minute for many rows, not for few.

        Returns:
            (K, hidden) of the positions in ``tiles.keep`` alone.
        """
        plain: Any = self.model
        decoder, config = getattr(plain, plain.base_model_prefix), plain.config
        place = Place(self.cos, self.sin, tiles.position, tiles.end, [*self.heads, self.tile], self.kernel)
        epsilon = config.rms_norm_eps if config.model_type == "llama" else config.layer_norm_epsilon
        keep = torch.cat([tiles.keep, tiles.keep.new_zeros(-len(tiles.keep) % _KEPT)])
        last = len(self.stack) - 1
        with torch.autocast(tiles.ids.device.type, enabled=False):
            x = decoder.get_input_embeddings()(tiles.ids).to(self.dtype)
            for i, weights in enumerate(self.stack if self.model.training else self.calm):
                # The last layer has a shape of its own for every number of kept positions: as it is written.
                layer = self.layer if compiled and i < last else self.written
                x = self._through(layer, x, weights, place, epsilon, keep if i == last else None)
            return self._final_norm(decoder, x[: len(tiles.keep)], epsilon)

    def _through(self, layer: Callable[..., Tensor], x: Tensor, *rest: Any) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            through: Tensor = checkpoint(layer, x, *rest, use_reentrant=False)
            return through
        return layer(x, *rest)

    def _final_norm(self, decoder: Any, x: Tensor, epsilon: float) -> Tensor:
        if self.model.config.model_type == "llama":  # type: ignore[union-attr]
            return layers.rms_norm(x, decoder.norm.weight, epsilon)
        return layers.layer_norm(x, decoder.ln_f.weight, decoder.ln_f.bias, epsilon)


def _compiled(layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compiled for each number of tiles anew; there are few of them (`tiles.rounded`)."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES)
    return torch.compile(layer, dynamic=False)


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def known_layers(config: Any) -> bool:
    """Whether a configuration's layers are those of `layers`: LLaMA's, or Falcon-7B's, without biases and dropout."""
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default") != "default":
        return False
    if config.model_type == "llama":
        return bool(
            config.hidden_act == "silu"
            and not config.attention_bias
            and not config.mlp_bias
            and not config.attention_dropout
        )
    return bool(
        config.model_type == "falcon"
        and config.parallel_attn
        and config.multi_query
        and not (config.new_decoder_architecture or config.alibi or config.bias)
        and not (config.attention_dropout or config.hidden_dropout)
        and config.activation == "gelu"
    )


@dataclass(frozen=True, slots=True)
class _Form:
    """What frozen weights are turned into."""

    fp8: bool
    backward: bool
    dtype: torch.dtype


def _llama_weights(block: Any, form: _Form) -> LlamaWeights:
    attend, mlp = block.self_attn, block.mlp
    return LlamaWeights(
        attention_norm=block.input_layernorm.weight,
        mlp_norm=block.post_attention_layernorm.weight,
        qkv=_map([attend.q_proj, attend.k_proj, attend.v_proj], form),
        out=_map([attend.o_proj], form),
        gate_up=_map([mlp.gate_proj, mlp.up_proj], form),
        down=_map([mlp.down_proj], form),
    )


def _falcon_weights(block: Any, form: _Form) -> FalconWeights:
    attend, mlp = block.self_attention, block.mlp
    return FalconWeights(
        norm=block.input_layernorm.weight,
        norm_bias=block.input_layernorm.bias,
        qkv=_map([attend.query_key_value], form),
        out=_map([attend.dense], form),
        up=_map([mlp.dense_h_to_4h], form),
        down=_map([mlp.dense_4h_to_h], form),
    )


def _without_dropout(weights: Any) -> Any:
    """The same layer for inference."""
    maps = {name: part for name, part in weights._asdict().items() if isinstance(part, Map)}
    return weights._replace(
        **{name: part._replace(lora=part.lora._replace(dropout=0.0)) for name, part in maps.items()}
    )


def _map(modules: Sequence[Any], form: _Form) -> Map:
    """The maps of one input: their base weights side by side, and their adapters."""
    bases = [module.get_base_layer() if hasattr(module, "get_base_layer") else module for module in modules]
    return Map(_base(bases, form), _lora(modules))


def _base(bases: Sequence[Any], form: _Form) -> Base:
    weights = [base.weight for base in bases]
    if hasattr(weights[0], "quant_state"):
        return _four_bit(weights)
    if any(weight.requires_grad for weight in weights):
        return Trained(tuple(weights))
    together = weights[0].detach() if len(weights) == 1 else torch.cat([weight.detach() for weight in weights])
    if not form.backward:
        together = together.to(form.dtype)
    if form.fp8:
        for weight in weights:
            weight.data = weight.data.new_empty(0)
        return Fp8.of(together, backward=form.backward)
    for weight, view in zip(weights, torch.split(together, [len(weight) for weight in weights]), strict=True):
        weight.data = view
    return Frozen(together)


def _four_bit(weights: Sequence[Any]) -> Nf4:
    """Blocks of 64 weights lie in the order of the flattened weight, so maps can be put one after the other."""
    from bitsandbytes.functional import dequantize_blockwise

    scales = []
    for weight in weights:
        state = weight.quant_state
        absmax = state.absmax
        if state.nested:
            absmax = dequantize_blockwise(absmax, state.state2) + state.offset
        scales.append(absmax.float())
    packed = torch.cat([weight.data.reshape(-1, 1) for weight in weights])
    for weight, view in zip(weights, torch.split(packed, [weight.data.numel() for weight in weights]), strict=True):
        weight.data = view.reshape(weight.data.shape)
    state = weights[0].quant_state
    out = sum(weight.quant_state.shape[0] for weight in weights)
    return Nf4(packed, torch.cat(scales), out, state.shape[1], state.blocksize)


def _lora(modules: Sequence[Any]) -> Lora:
    """PEFT's adapters of these maps, by reference."""
    adapted = [module for module in modules if hasattr(module, "lora_A")]
    if not adapted:
        return NONE
    if len(adapted) < len(modules):
        raise ValueError("maps of one input are adapted all or none; Shelfwise's own adapters stand on every map")
    name = adapted[0].active_adapters[0]
    dropout = adapted[0].lora_dropout[name]
    return Lora(
        down=tuple(module.lora_A[name].weight for module in adapted),
        up=tuple(module.lora_B[name].weight for module in adapted),
        scale=float(adapted[0].scaling[name]),
        dropout=float(getattr(dropout, "p", 0.0)),
    )
