"""The labels' tokens as a tree: which are asked for together, and what leads where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise.modeling.packed.tiles import Row


@dataclass(frozen=True, slots=True)
class Chains:
    """The prefix tree of C labels' tokens, cut where it branches: U chains of tokens, the first one without any.

    A chain is asked for at once. Its questions are "this token behind that state": first those inside it, then those
    that lead on, to another chain or, with the end of text, to a label.
    """

    prefixes: list[tuple[int, ...]]  # of each chain: the tokens that lead to its end, its own last
    lengths: NDArray[np.int64]  # (U,) tokens of its own; the first chain has the end of the prompt in their place
    tokens: NDArray[np.int64]  # of all chains, one after the other; the first chain has none
    begins: NDArray[np.int64]  # (U,) where a chain's own begin among them
    above: NDArray[np.int64]  # (U, A) the chains whose tokens come before its own, token by token; -1 behind them
    offset: NDArray[np.int64]  # (U, A) which of that chain's tokens
    inner: NDArray[np.bool_]  # (U,) whether other chains come behind it; not of the first, which has no tokens
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
        parents = [0]
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
                    parents.append(waiting)
                asked.append((state, token, len(prefixes) - 1 if label is None else -2 - label))
            questions.append(asked)
            waiting += 1
        count = len(prefixes)
        flat = np.array([question for asked in questions for question in asked], dtype=np.int64).reshape(-1, 3)
        target = np.where(flat[:, 2] < -1, count - 2 - flat[:, 2], flat[:, 2])
        labels = np.array(
            [[tuple(ids[: len(prefix)]) == prefix for ids in completions] for prefix in prefixes], dtype=np.float64
        )
        before: list[list[tuple[int, int]]] = [[]]
        for chain in range(1, count):
            parent = parents[chain]
            before.append([*before[parent], *((parent, i) for i in range(lengths[parent] if parent else 0))])
        own = [prefix[len(tokens) :] for prefix, tokens in zip(prefixes, before, strict=True)]
        return cls(
            prefixes=prefixes,
            lengths=np.array(lengths),
            tokens=np.array([token for tokens in own for token in tokens], dtype=np.int64),
            begins=np.cumsum([0, *map(len, own)])[:-1],
            above=_filled([[chain for chain, _ in tokens] for tokens in before]),
            offset=_filled([[i for _, i in tokens] for tokens in before]),
            inner=np.isin(np.arange(count), parents[1:]) & (np.arange(count) > 0),
            first=np.cumsum([0, *map(len, questions)]),
            state=flat[:, 0],
            token=flat[:, 1],
            target=target,
            labels=labels / labels.sum(1, keepdims=True),
        )

    def questions(self, of_chain: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(K,) which of P chains, and (K,) which question: all questions of the chains, one chain after the other."""
        counts = self.first[of_chain + 1] - self.first[of_chain]
        of = np.repeat(np.arange(len(of_chain)), counts)
        return of, counted(counts) + self.first[of_chain][of]


def counted(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 to counts[0] - 1, 0 to counts[1] - 1, and so on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _filled(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(N, longest) of ragged rows, -1 behind their ends."""
    found = np.full((len(rows), max(1, *map(len, rows))), -1)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = values
    return found
