"""A classification head that begins with what the base model makes of each label's own text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.modeling import adapters
from shelfwise.modeling.batching import inference_batches, pad
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.hardware import autocast

# Of the logits that the centred label texts get at first, in nats. A head of random numbers begins with about 1.
SPREAD = 0.7
_TOKENS = 4_096


def init_from_labels(engine: Engine) -> None:
    """Set a head's rows, in place, to the directions in which the base model tells the label texts apart.

    Each label is put into the prompt as if it were a product. Row c is the hidden state at the end of label c's prompt,
    less the mean over labels, at unit length, times one factor for all rows. A head learned from a few examples then
    knows from the start that "Hair Oil" is near "Coconut Hair Oil 200 ml". Of the same family as prototypical networks
    (Snell et al. 2017), with the label's text for the only example; what it gains: docs/lab-notes.md.

    Args:
        engine: of objective `head`, its model whole.
    """
    with torch.no_grad():
        states = _last_states(engine)
        centred = states - states.mean(dim=0)
        directions = nn.functional.normalize(centred, dim=1)
        spread = (centred @ directions.T).std()
        if not torch.isfinite(spread) or spread == 0:
            return  # one label, or labels that all read alike: there is nothing to tell apart
        weight = head_of(engine.model).weight
        weight.copy_((directions * (SPREAD / spread)).to(weight.dtype))


def head_of(model: Any) -> nn.Linear:
    """The classification head that is trained: of an adapted model PEFT's copy of it."""
    head = adapters.plain(model).score
    if hasattr(head, "modules_to_save"):
        head = head.modules_to_save[head.active_adapters[0]]
    return head  # type: ignore[no-any-return]


def _last_states(engine: Engine) -> Tensor:
    """(C, D) fp32 hidden states at the last token of each label's prompt."""
    model: Any = engine.model
    plain = adapters.plain(model)
    decoder = getattr(plain, plain.base_model_prefix)
    prompts = engine.encoder.encode(list(engine.labels.names))
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    states = torch.empty(len(prompts), plain.config.hidden_size)
    training = model.training
    model.eval()
    try:
        for batch in inference_batches(lengths.tolist(), _TOKENS):
            ids = pad([prompts[i] for i in batch], engine.encoder.tokenizer.pad_token_id).to(engine.device)
            with autocast(engine.device, engine.precision):
                hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
            rows = torch.arange(len(batch), device=hidden.device)
            states[batch] = hidden[rows, lengths[batch].to(hidden.device) - 1].float().cpu()
    finally:
        model.train(training)
    return states.to(engine.device)
