"""Scoring texts with a language model: one interface over both objectives, and loading it from a run folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shelfwise.config import Precision
from shelfwise.labels import Labels
from shelfwise.modeling import adapters, distributed, out_of_memory, sharding
from shelfwise.modeling.batching import Spans, inference_batches, pad
from shelfwise.modeling.encoding import Encoder
from shelfwise.modeling.hardware import autocast
from shelfwise.modeling.label_tree import LabelTree, label_log_probs
from shelfwise.modeling.packed.completion import Completion
from shelfwise.modeling.packed.forward import on_its_way
from shelfwise.modeling.packed.inference import Inference
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.packed.tiles import lay
from shelfwise.records import Objective

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Padded tokens a forward pass. A GPU is saturated from about 4k on; a CPU's caches like less (docs/lab-notes.md).
_TOKEN_BUDGET = {"cuda": 16_384, "cpu": 2_048}


@dataclass(slots=True)
class Shrinkage:
    """How often batches had to be halved to fit the memory."""

    halvings: int = 0


@dataclass(frozen=True, slots=True)
class Engine:
    """A language model with its tokenizer, ready to score."""

    model: nn.Module  # a transformers model, or a PEFT model around one; may be in training, and is left as it was
    encoder: Encoder
    objective: Objective
    labels: Labels
    device: torch.device
    precision: Precision
    tree: LabelTree | None = None  # of the labels; for `completion` only
    packed: PackedModel | None = None  # the same model without padding, where it can be
    inference: Inference | Completion | None = None  # the same model for answers alone, where it is in no training
    shrinkage: Shrinkage = field(default_factory=Shrinkage, compare=False)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        encoder: Encoder,
        objective: Objective,
        labels: Labels,
        device: torch.device,
        precision: Precision,
    ) -> Engine:
        """An engine around a model; builds the label tree where the objective needs one."""
        tree = None
        if objective == "completion":
            tree = LabelTree.of(encoder.completions(labels.names)).to(device)
        return cls(model, encoder, objective, labels, device, precision, tree)

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, C) natural logarithms of each label's probability; each row's exponentials sum to 1.

        `head`: log-softmax of the classifier. `completion`: the probability of each label's tokens and
        end-of-text, given that the answer is a label; where the model runs without padding, within
        `Completion.tolerance`, else exact. Where several processes train, each has to ask for the same rows;
        they share them, and all get all.
        """
        return self.start(texts)()

    def start(self, texts: Sequence[str]) -> Callable[[], NDArray[np.float32]]:
        """Begin with some texts; what comes back waits for what `log_probs` gives, in any thread.

        On a GPU that runs the model without padding the work goes on by itself, and other texts can be started behind
        it; elsewhere it is done when this returns.
        """
        rows = self.encoder.encode(texts)
        if self.inference is not None and rows and max(map(len, rows)) <= self.inference.longest:
            return on_its_way(self._inferred(self.inference, rows))
        scored = self._scored(rows)
        return lambda: scored

    def warm(self) -> None:
        """Do what the first texts would have to wait for, on a GPU that runs the model without padding."""
        if self.inference is not None:
            self.inference.warm()

    def _scored(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(N, C) log-probabilities by the model as it stands."""
        if self.tree is not None and self.packed is not None and rows:
            completion = Completion.around(self.packed, self.encoder.completions(self.labels.names))
            if max(map(len, rows)) <= completion.longest:
                found: NDArray[np.float32] = self._inferred(completion, rows).numpy()
                return found
        scored = torch.zeros(len(rows), len(self.labels))
        training = self.model.training
        self.model.eval()
        try:
            with sharding.no_gradients(self.model), autocast(self.device, self.precision):
                waiting = self._batches([len(row) for row in rows])
                while waiting:
                    batch = waiting.pop(0)
                    mine = distributed.share(batch)
                    # Pieces of a cut model are gathered by all at once, so that one without a row passes one too.
                    scores = self._fitting([rows[i] for i in mine or batch[:1]])
                    if scores is None:
                        waiting = [half for whole in [batch, *waiting] for half in _halves(whole)]
                    else:
                        scored[mine] = scores[: len(mine)].cpu()
        finally:
            sharding.reshard(self.model)
            self.model.train(training)
        result: NDArray[np.float32] = distributed.summed(scored).numpy()
        return result

    def _inferred(self, inference: Inference | Completion, rows: Sequence[Sequence[int]]) -> Tensor:
        """(N, C) log-probabilities, unawaited; batches are halved where the memory is full, and stay so."""
        while True:
            try:
                return inference.log_probs(rows, self.shrinkage.halvings)
            except RuntimeError as error:
                if not out_of_memory.is_out_of_memory(error) or inference.is_smallest(self.shrinkage.halvings):
                    raise
            out_of_memory.release(self.device)
            self.shrinkage.halvings += 1

    def _fitting(self, rows: Sequence[Sequence[int]]) -> Tensor | None:
        """(N, C) scores; None where the memory is full, and batches have to be smaller from now on."""
        try:
            return self._score(rows)
        except RuntimeError as error:
            # Several processes meet in the middle of a pass, so one can't go back alone.
            if len(rows) == 1 or distributed.is_joined() or not out_of_memory.is_out_of_memory(error):
                raise
        out_of_memory.release(self.device)
        self.shrinkage.halvings += 1
        return None

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        budget = _TOKEN_BUDGET.get(self.device.type, _TOKEN_BUDGET["cpu"]) >> self.shrinkage.halvings
        if self.tree is None:
            return list(inference_batches(lengths, budget))
        nodes = len(self.tree)
        return list(inference_batches([length + nodes for length in lengths], budget))

    def _score(self, rows: Sequence[Sequence[int]]) -> Tensor:
        if self.tree is None and self.packed is not None and max(map(len, rows)) <= self.packed.tile:
            logits = self.packed_logits(Spans.last(rows), compiled=False)
            return torch.log_softmax(logits.float(), dim=-1)
        input_ids = pad(rows, self.encoder.tokenizer.pad_token_id).to(self.device)
        if self.tree is None:
            logits = self.model(input_ids=input_ids, use_cache=False).logits
        else:
            lengths = torch.tensor([len(row) for row in rows], device=self.device)
            score = functools.partial(label_log_probs, *causal_parts(self.model), self.tree, input_ids, lengths)
            logits = sharding.within_forward(self.model, score)
        return torch.log_softmax(logits.float(), dim=-1)

    def packed_logits(self, spans: Spans, *, compiled: bool) -> Tensor:
        """(K, labels or vocabulary) logits at the positions that are asked for, without any padding computed.

        Args:
            spans: rows, and what is asked for of each.
            compiled: see `PackedModel.hidden`.
        """
        assert self.packed is not None
        pad_token_id = self.encoder.tokenizer.pad_token_id
        tiles = lay(spans.rows, spans.kept, self.packed.tile, pad_token_id, rounding=compiled).to(self.device)
        hidden = self.packed.hidden(tiles, compiled=compiled)
        plain: Any = self.packed.model
        head = plain.score if self.objective == "head" else plain.get_output_embeddings()
        with autocast(self.device, self.precision):
            logits: Tensor = head(hidden)
        return logits


def _halves(batch: list[int]) -> list[list[int]]:
    return [batch] if len(batch) == 1 else [batch[: len(batch) // 2], batch[len(batch) // 2 :]]


def causal_parts(model: Any) -> tuple[nn.Module, nn.Module]:
    """The decoder stack and the output layer of a causal model; adapters stay in place, for they sit inside."""
    plain = adapters.plain(model)
    return getattr(plain, plain.base_model_prefix), plain.get_output_embeddings()
