"""Probabilities of labels as texts, by a packed model: the likely ones' tokens, until the rest no longer matters.

A label's probability is the product of its tokens' probabilities, end of text included. Exact ones for C labels cost as
many tokens as their prefix tree has, some 1,700 for BigBasket's 426 types, where a name has 12. But a trained model is
sure of most: a prefix's probability is the sum of all that continue it, so what lies behind an unlikely prefix can be
left out, and how much it can change is known. Prefixes are asked for best first (Dijkstra 1959), a lot in each pass,
until those left out hold less than `tolerance` of what the labels hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shelfwise.modeling.packed.forward import batches, stack, tokens_at_once
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.packed.tiles import TILE_LENGTHS, Row

# Of what the labels hold, what may be left unasked. Rounding to bf16 changed a trained run's probabilities by up to
# 0.08 (docs/lab-notes.md).
TOLERANCES = {torch.float32: 1e-6}
TOLERANCE = 1e-2
_PAIRS = 4_096  # of name and chain, laid at once
_STATES = 1_024  # whose logits over the vocabulary are held at once


@dataclass(frozen=True, slots=True)
class Chains:
    """The prefix tree of C labels' tokens, cut where it branches: U chains of tokens, the first one without any.

    A chain is asked for at once. Its questions are "this token behind that state": first those inside it, then those
    that lead on, to another chain or, with the end of text, to a label.
    """

    prefixes: list[tuple[int, ...]]  # of each chain: the tokens that lead to its end, its own last
    lengths: NDArray[np.int64]  # (U,) tokens of its own; the first chain has the end of the prompt in their place
    first: NDArray[np.int64]  # (U + 1,) where its questions begin
    state: NDArray[np.int64]  # (Q,) which of the chain's states is asked
    token: NDArray[np.int64]  # (Q,) for which token
    target: NDArray[np.int64]  # (Q,) the chain that it leads to, U + label, or -1 inside
    labels: NDArray[np.float64]  # (U, C) each chain's share of the labels behind it, evenly

    @classmethod
    def of(cls, completions: Sequence[Row]) -> Chains:
        """Build them.

        Args:
            completions: C label id sequences, each ended by EOS, so that none is a prefix of another.
        """
        children: dict[tuple[int, ...], dict[int, int | None]] = {}  # of a prefix: next tokens, and a last one's label
        for number, ids in enumerate(completions):
            for length, token in enumerate(ids):
                follows = children.setdefault(tuple(ids[:length]), {})
                follows[token] = number if length == len(ids) - 1 else None
        prefixes: list[tuple[int, ...]] = [()]
        questions: list[list[tuple[int, int, int]]] = []
        lengths, waiting = [1], 0
        while waiting < len(prefixes):
            end = prefixes[waiting]
            asked: list[tuple[int, int, int]] = []
            state = 0
            if waiting:
                while len(children[end]) == 1 and next(iter(children[end].values())) is None:
                    (onward,) = children[end]
                    asked.append((state, onward, -1))
                    end, state = (*end, onward), state + 1
                prefixes[waiting] = end
                lengths.append(state + 1)
            for token, label in children[end].items():
                if label is None:
                    prefixes.append((*end, token))
                asked.append((state, token, len(prefixes) - 1 if label is None else -2 - label))
            questions.append(asked)
            waiting += 1
        count = len(prefixes)
        flat = np.array([question for asked in questions for question in asked], dtype=np.int64).reshape(-1, 3)
        target = np.where(flat[:, 2] < -1, count - 2 - flat[:, 2], flat[:, 2])
        labels = np.array(
            [[tuple(ids[: len(prefix)]) == prefix for ids in completions] for prefix in prefixes], dtype=np.float64
        )
        first = np.cumsum([0, *map(len, questions)])
        return cls(
            prefixes, np.array(lengths), first, flat[:, 0], flat[:, 1], target, labels / labels.sum(1, keepdims=True)
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """A decoder stack with its output layer, for the probabilities of labels. Holds no weights of its own."""

    packed: PackedModel
    head: Any  # the output layer
    pad_token_id: int
    chains: Chains
    tolerance: float

    @classmethod
    def of(
        cls, model: nn.Module, completions: Sequence[Row], *, dtype: torch.dtype, fp8: bool = False
    ) -> Completion | None:
        """Around a causal model; None where its layers are none of ours.

        Args:
            model: as of `inference.Inference.of`.
            completions: C label id sequences, each ended by EOS.
            dtype: of the arithmetic.
            fp8: products in fp8.
        """
        model.requires_grad_(False)
        packed = PackedModel.of(model, TILE_LENGTHS[-1], dtype=dtype, fp8=fp8, backward=False, compiled=False)
        return None if packed is None else cls.around(packed, completions)

    @classmethod
    def around(cls, packed: PackedModel, completions: Sequence[Row]) -> Completion:
        """Around a model that may be in training."""
        plain: Any = packed.model
        head, pad_token_id = plain.get_output_embeddings(), plain.config.pad_token_id
        return cls(packed, head, pad_token_id, Chains.of(completions), TOLERANCES.get(packed.dtype, TOLERANCE))

    @property
    def longest(self) -> int:
        """Tokens of the longest row that can be answered."""
        return TILE_LENGTHS[-1] - max(map(len, self.chains.prefixes))

    def warm(self) -> None:
        """Nothing is recorded."""

    def is_smallest(self, scale: int) -> bool:
        """Whether batches that were halved so many times can't be halved again."""
        return tokens_at_once(self.packed, scale) <= TILE_LENGTHS[-1]

    def log_probs(self, rows: Sequence[Row], scale: int = 0) -> Tensor:
        """(N, C) float32 log-probabilities on the CPU, of the labels alone: each row's exponentials sum to 1.

        Each probability is within `tolerance` of the exact one. What is left unasked is shared evenly by its labels.

        Args:
            rows: token ids of N prompts, none longer than `longest`.
            scale: batches are halved so many times, for memories that are short.
        """
        chains = len(self.chains.prefixes)
        known = np.full((len(rows), chains + self.chains.labels.shape[1]), -np.inf)  # logarithms: chains, then labels
        known[:, 0] = 0
        asked = np.zeros((len(rows), chains), dtype=bool)
        wanted = asked.copy()
        wanted[:, 0] = True
        while wanted.any():
            names, of_chain = np.nonzero(wanted)
            for start in range(0, len(names), _PAIRS):
                some = slice(start, start + _PAIRS)
                self._ask(rows, names[some], of_chain[some], known, scale)
            asked |= wanted
            wanted = self._next(known, asked)
        left = np.where(asked, 0, np.exp(known[:, :chains]))
        found = np.exp(known[:, chains:]) + left @ self.chains.labels
        found = np.maximum(found, np.finfo(np.float64).tiny)
        return torch.from_numpy(np.log(found / found.sum(1, keepdims=True)).astype(np.float32))

    def _next(self, known: NDArray[np.float64], asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N, U): the likeliest chains that were not asked for, until little is left; none where little is."""
        chains = asked.shape[1]
        masses = np.where(asked, 0, np.exp(known[:, :chains]))
        left, sure = masses.sum(1), np.exp(known[:, chains:]).sum(1)
        open_rows = np.nonzero(left > self.tolerance * sure)[0]
        wanted = np.zeros_like(asked)
        some = masses[open_rows]
        order = np.argsort(-some, axis=1)
        behind = left[open_rows, None] - np.cumsum(np.take_along_axis(some, order, 1), axis=1)
        # What the labels will hold is not known yet. Should it be less than half of what is open, a later pass asks on.
        target = self.tolerance * np.maximum(sure[open_rows], left[open_rows] / 2)
        count = (behind > target[:, None]).sum(1) + 1
        chosen = np.arange(chains)[None, :] < count[:, None]
        likely = np.zeros_like(some, dtype=bool)
        np.put_along_axis(likely, order, chosen, 1)
        wanted[open_rows] = likely & (some > 0)
        return wanted

    def _ask(
        self,
        rows: Sequence[Row],
        names: NDArray[np.int64],
        of_chain: NDArray[np.int64],
        known: NDArray[np.float64],
        scale: int,
    ) -> None:
        """Ask for chains behind names, pairwise, and write down where they lead."""
        chains = self.chains
        ends = [[*rows[name], *chains.prefixes[chain]] for name, chain in zip(names, of_chain, strict=True)]
        lengths = chains.lengths[of_chain]
        kept = [(len(end) - length, len(end)) for end, length in zip(ends, lengths.tolist(), strict=True)]
        counts = chains.first[of_chain + 1] - chains.first[of_chain]
        pair = np.repeat(np.arange(len(names)), counts)
        question = np.arange(len(pair)) + np.repeat(chains.first[of_chain] - (np.cumsum(counts) - counts), counts)
        state = (np.cumsum(lengths) - lengths)[pair] + chains.state[question]
        found = self._answers(ends, kept, state, chains.token[question], scale)
        inside = chains.target[question] < 0
        mass = known[names, of_chain] + np.bincount(pair[inside], found[inside], minlength=len(names))
        onward = ~inside
        known[names[pair[onward]], chains.target[question[onward]]] = mass[pair[onward]] + found[onward]

    def _answers(
        self,
        ends: Sequence[Row],
        kept: Sequence[tuple[int, int]],
        state: NDArray[np.int64],
        token: NDArray[np.int64],
        scale: int,
    ) -> NDArray[np.float64]:
        """(Q,) log-probabilities of tokens behind kept states, given in the order of the states."""
        device = self.packed.cos.device
        answers = torch.empty(len(state), device=device)
        of_state, of_token = torch.from_numpy(state).to(device), torch.from_numpy(token).to(device)
        states = int(sum(behind - first for first, behind in kept))
        where = torch.full((states,), -1, device=device)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for batch in batches(ends, kept, self.pad_token_id, tokens_at_once(self.packed, scale)):
                here = batch.to(device)
                hidden = stack(self.packed, here.tiles, here.tile)
                for start in range(0, len(hidden), _STATES):
                    some = here.kept[start : start + _STATES]
                    logits = self.head(hidden[start : start + _STATES].to(self.head.weight.dtype)).float()
                    where.fill_(-1)
                    where[some] = torch.arange(len(some), device=device)
                    at = where[of_state]
                    mine = (at >= 0).nonzero().squeeze(1)
                    answers[mine] = (logits - logits.logsumexp(1, keepdim=True))[at[mine], of_token[mine]]
        result: NDArray[np.float64] = answers.cpu().numpy().astype(np.float64)
        return result
