"""Probabilities of labels as texts, by a packed model: the likely ones' tokens, until the rest no longer matters.

A label's probability is the product of its tokens' probabilities, end of text included. Exact ones for C labels cost as
many tokens as their prefix tree has, some 1,700 for BigBasket's 426 types, where a name has 12. But a trained model is
sure of most: a prefix's probability is the sum of all that continue it, so what lies behind an unlikely prefix can be
left out, and how much it can change is known: what those left out hold may be all the labels' or none of it, so half
of it is counted, and every probability is at most half of it away. Prefixes are asked for best first (Dijkstra 1959), a
lot in each pass, until neither that half nor any one of them holds more than `tolerance` of what the labels hold.

No token passes twice: the keys and values of names, and of prefixes that others continue, are kept. Names go in lots,
of which two take turns: while the GPU is busy with one, the other's next tokens are chosen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shelfwise.modeling.packed.attention import Paths
from shelfwise.modeling.packed.chains import Chains, counted
from shelfwise.modeling.packed.forward import batches, on_its_way, stack, tokens_at_once
from shelfwise.modeling.packed.kept import Kept
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.packed.rows import log_sums
from shelfwise.modeling.packed.tiles import TILE_LENGTHS, Row

# By how much a probability may be wrong for what is left unasked: in fp32 by half of the last digit that files show.
# Rounding to bf16 changed a trained run's by up to 0.08 (docs/lab-notes.md).
TOLERANCES = {torch.float32: 5e-5}
TOLERANCE = 1e-2
_COARSE = 0.02  # of what is open, left for later while it is more than what is known of the labels
_NAMES = 512  # of a lot at most
_SLOTS = 32  # of a name: its own tokens and those of prefixes that others continue; 24 on average (docs/lab-notes.md)
_SHARE = 0.5  # of the free memory, for the lots that take turns
_ON_CPU = 512 << 20  # bytes that count as free on a CPU
_TURNS = 2  # lots under way at once
_STATES = 4_096  # whose logits over the vocabulary are held at once

Lot = Generator[None, None, NDArray[np.float32]]


@dataclass(slots=True)
class _Names:
    """N names that are answered together."""

    kept: Kept
    slots: NDArray[np.int64]  # (N, longest) of their tokens; -1 behind them
    chains: NDArray[np.int64]  # (N, U) the first slot of each chain that is kept


@dataclass(frozen=True, slots=True)
class _Asked:
    """Questions under way: all those of P pairs of name and chain."""

    names: NDArray[np.int64]
    chains: NDArray[np.int64]
    answers: Callable[[], NDArray[np.float32]]  # waits; log-probabilities of tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """A decoder stack with its output layer, for the probabilities of labels. Holds no weights of its own."""

    packed: PackedModel
    head: Any  # the output layer
    pad_token_id: int
    chains: Chains
    tolerance: float
    names_at_once: int  # in a lot

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
        tolerance = TOLERANCES.get(packed.dtype, TOLERANCE)
        return cls(packed, head, pad_token_id, Chains.of(completions), tolerance, _names_at_once(packed))

    @property
    def longest(self) -> int:
        """Tokens of the longest row that can be answered."""
        return len(self.packed.cos) - max(map(len, self.chains.prefixes))

    def warm(self) -> None:
        """Nothing is recorded."""

    def is_smallest(self, scale: int) -> bool:
        """Whether batches that were halved so many times can't be halved again."""
        return tokens_at_once(self.packed, scale) <= TILE_LENGTHS[-1]

    def log_probs(self, rows: Sequence[Row], scale: int = 0) -> Tensor:
        """(N, C) float32 log-probabilities on the CPU, of the labels alone: each row's exponentials sum to 1.

        Each probability is within `tolerance` of the exact one. Half of what is left unasked is shared evenly by its
        labels.

        Args:
            rows: token ids of N prompts, none longer than `longest`.
            scale: batches and lots are halved so many times, for memories that are short.
        """
        size = max(1, self.names_at_once >> scale)
        lots = [rows[start : start + size] for start in range(0, len(rows), size)]
        answers = _in_turns([self._lot(number, lot, scale) for number, lot in enumerate(lots)])
        return torch.from_numpy(np.concatenate(answers))

    def _lot(self, number: int, rows: Sequence[Row], scale: int) -> Lot:
        """Answer some names; yields whenever it would have to wait for the GPU."""
        chains = len(self.chains.prefixes)
        known = np.full((len(rows), chains + self.chains.labels.shape[1]), -np.inf)  # logarithms: chains, then labels
        known[:, 0] = 0
        asked = np.zeros((len(rows), chains), dtype=bool)
        names, under_way = self._begin(rows, scale)
        step = 0
        while True:
            yield
            self._note(known, under_way, self._wait(number, step, under_way))
            asked[under_way.names, under_way.chains] = True
            wanted = self._next(known, asked)
            if not wanted.any():
                break
            of_name, of_chain = np.nonzero(wanted)
            under_way, step = self._ask(names, of_name, of_chain, scale), step + 1
        left = np.where(asked, 0, np.exp(known[:, :chains]))
        found = np.exp(known[:, chains:]) + left / 2 @ self.chains.labels
        found = np.maximum(found, np.finfo(np.float64).tiny)
        answers: NDArray[np.float32] = np.log(found / found.sum(1, keepdims=True)).astype(np.float32)
        return answers

    def _wait(self, number: int, step: int, asked: _Asked) -> NDArray[np.float32]:
        """The answers to a lot's questions of one step."""
        return asked.answers()

    def _note(self, known: NDArray[np.float64], asked: _Asked, answers: NDArray[np.float32]) -> None:
        """Write down where chains lead."""
        of, question = self.chains.questions(asked.chains)
        target = self.chains.target[question]
        inside, onward = target < 0, target >= 0
        mass = known[asked.names, asked.chains]
        mass = mass + np.bincount(of[inside], answers[inside].astype(np.float64), minlength=len(mass))
        known[asked.names[of[onward]], target[onward]] = mass[of[onward]] + answers[onward]

    def _next(self, known: NDArray[np.float64], asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N, U): the likeliest chains that were not asked for, until little is left; none where little is."""
        chains = asked.shape[1]
        masses = np.where(asked, 0, np.exp(known[:, :chains]))
        left, sure = masses.sum(1), np.exp(known[:, chains:]).sum(1)
        least = self.tolerance * sure
        open_rows = np.nonzero((left > 2 * least) | (masses.max(1) > least))[0]
        wanted = np.zeros_like(asked)
        some, left, least = masses[open_rows], left[open_rows], least[open_rows]
        order = np.argsort(-some, axis=1)
        ordered = np.take_along_axis(some, order, 1)
        behind = left[:, None] - np.cumsum(ordered, axis=1)
        # While little is known of the labels, so is what they will hold, and what of the rest will matter.
        coarse = np.where(sure[open_rows] < left, _COARSE * left, 0)
        enough = (behind > np.maximum(2 * least, coarse)[:, None]).sum(1) + 1
        large = (ordered > np.maximum(least, coarse)[:, None]).sum(1)
        chosen = np.arange(chains)[None, :] < np.maximum(enough, large)[:, None]
        likely = np.zeros_like(some, dtype=bool)
        np.put_along_axis(likely, order, chosen, 1)
        wanted[open_rows] = likely & (some > 0)
        return wanted

    def _begin(self, rows: Sequence[Row], scale: int) -> tuple[_Names, _Asked]:
        """Pass the names through, and ask what follows them."""
        device = self.packed.cos.device
        lengths = np.array([len(row) for row in rows])
        most = tokens_at_once(self.packed, scale)
        with torch.inference_mode():
            kept = Kept(self.packed, most + max(self.chains.lengths), len(rows) * _SLOTS)
        names = _Names(
            kept, np.full((len(rows), max(lengths)), -1), np.zeros((len(rows), len(self.chains.prefixes)), dtype=int)
        )
        of_token = np.repeat(np.arange(len(rows)), lengths)
        at = counted(lengths)
        order, answers = [], []
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for batch in batches(rows, [(0, len(row)) for row in rows], self.pad_token_id, most):
                tiles = batch.tiles.to(device)
                first = kept.room(len(tiles.ids))
                tokens = batch.kept.numpy()
                name, place = of_token[tokens], at[tokens]
                names.slots[name, place] = first + batch.tiles.keep.numpy()
                last = place == lengths[name] - 1
                keep = _sent(device, batch.tiles.keep.numpy()[last])
                hidden = stack(self.packed, tiles.ids, kept.in_tiles(tiles, batch.tile, first), keep)
                answers.append(self._answers(hidden, np.zeros(last.sum(), dtype=np.int64)))
                order.append(name[last])
            by_name = _sent(device, np.argsort(np.concatenate(order)))
            found = torch.cat(answers).view(len(rows), -1)[by_name].flatten()
            of_name = np.arange(len(rows))
            return names, _Asked(of_name, np.zeros_like(of_name), on_its_way(found))

    def _ask(self, names: _Names, of_name: NDArray[np.int64], of_chain: NDArray[np.int64], scale: int) -> _Asked:
        """Pass chains through behind names, pairwise, and ask what is in them and what follows."""
        device = self.packed.cos.device
        most = tokens_at_once(self.packed, scale)
        ends = np.cumsum(self.chains.lengths[of_chain])
        parts = -(-ends[-1] // most)
        cuts = np.unique(np.searchsorted(ends, ends[-1] * np.arange(parts + 1) / parts, side="right"))
        answers = []
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for start, stop in pairwise(cuts):
                some = of_chain[start:stop]
                slots, position, paths = self._paths(names, of_name[start:stop], some)
                own = self.chains.lengths[some]
                ids = self.chains.tokens[np.repeat(self.chains.begins[some], own) + counted(own)]
                attend = names.kept.in_paths(paths, _sent(device, slots), _sent(device, position))
                answers.append(self._answers(stack(self.packed, _sent(device, ids), attend, None), some))
            return _Asked(of_name, of_chain, on_its_way(torch.cat(answers)))

    def _paths(
        self, names: _Names, of_name: NDArray[np.int64], of_chain: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], Paths]:
        """Where P chains' tokens are put and stand, and what they see: their name, the chains above, themselves."""
        chains, device = self.chains, self.packed.cos.device
        own, inner = chains.lengths[of_chain], chains.inner[of_chain]
        lasting, passing = own * inner, own * ~inner
        first = names.kept.room(int(lasting.sum()))
        begin = np.where(inner, first + np.cumsum(lasting) - lasting, np.cumsum(passing) - passing)
        names.chains[of_name[inner], of_chain[inner]] = begin[inner]
        above = chains.above[of_chain]
        above = np.where(above < 0, -1, names.chains[of_name[:, None], above] + chains.offset[of_chain])
        order = np.arange(own.max())
        mine = np.where(order < own[:, None], begin[:, None] + order, -1)
        whole = np.concatenate([names.slots[of_name], above, mine], axis=1)
        lengths = (whole >= 0).sum(1)
        table = np.full((len(whole), lengths.max()), -1, dtype=np.int32)
        table[np.arange(lengths.max()) < lengths[:, None]] = whole[whole >= 0]
        parts = (lengths, np.cumsum(own) - own, own)
        seen, firsts, new = (_sent(device, part.astype(np.int32)) for part in parts)
        paths = Paths(_sent(device, table), seen, firsts, new, int(own.max()))
        place = counted(own)
        position = (np.repeat(lengths - own, own) + place).astype(np.int32)
        return np.repeat(begin, own) + place, position, paths

    def _answers(self, hidden: Tensor, of_chain: NDArray[np.int64]) -> Tensor:
        """(K,) log-probabilities, to all questions of P chains whose states stand one after the other."""
        device = hidden.device
        of, question = self.chains.questions(of_chain)
        lengths = self.chains.lengths[of_chain]
        state = (np.cumsum(lengths) - lengths)[of] + self.chains.state[question]
        found = []
        for start in range(0, len(hidden), _STATES):
            logits = self.head(hidden[start : start + _STATES].to(self.head.weight.dtype))
            sums = log_sums(logits, kernel=self.packed.kernel)
            some = slice(*np.searchsorted(state, [start, start + _STATES]))
            at = _sent(device, state[some] - start)
            found.append(logits[at, _sent(device, self.chains.token[question[some]])].float() - sums[at])
        return torch.cat(found)


def _names_at_once(packed: PackedModel) -> int:
    """As many as there is memory for; a CPU's batches are small, so it gains nothing by many."""
    device = packed.cos.device
    _, kv_heads, width = packed.heads
    name = _SLOTS * len(packed.calm) * 2 * kv_heads * width * packed.dtype.itemsize
    free = _ON_CPU
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        free -= torch.cuda.memory_allocated(device)
    return int(min(_NAMES, max(1, free * _SHARE / _TURNS // name)))


def _in_turns(lots: Sequence[Lot]) -> list[NDArray[np.float32]]:
    """What lots return; some are under way at once, and each goes on when its turn comes."""
    found: dict[int, NDArray[np.float32]] = {}
    waiting, under_way = deque(enumerate(lots)), deque[tuple[int, Lot]]()
    while waiting or under_way:
        number, lot = waiting.popleft() if waiting and len(under_way) < _TURNS else under_way.popleft()
        try:
            next(lot)
            under_way.append((number, lot))
        except StopIteration as end:
            found[number] = end.value
    return [found[number] for number in range(len(lots))]


def _sent(device: torch.device, values: NDArray[Any]) -> Tensor:
    """To the device, without waiting for a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
