"""Exact probabilities of a closed set of labels under a causal model, over their prefix tree.

Scoring each of C labels behind a prompt alone costs C forward passes that repeat the prompt and every shared prefix.
Here the prompt and all distinct label prefixes stand in one row; a mask lets each prefix see the prompt and its own
ancestors only, and its position ids are those it would have alone. One pass then gives every next-token probability
that any label needs (the tree attention of Miao et al. 2023, SpecInfer, used for scoring instead of speculation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LabelTree:
    """The prefix tree of C labels' completion ids, without their common root (the end of the prompt).

    Node n holds the prefix that ends in token `tokens[n]`. A label's log-probability is the sum over its edges; an
    edge is "token after node", where node -1 is the root.
    """

    tokens: Tensor  # (M,) int64
    depths: Tensor  # (M,) int64, from 0 for a label's first token
    ancestors: Tensor  # (M, M) bool, True where column is row's ancestor or row itself
    edge_from: Tensor  # (E,) int64, node index + 1, so that 0 is the root
    edge_token: Tensor  # (E,) int64
    label_edges: Tensor  # (C, E) float32, 1 where the label runs over the edge

    @classmethod
    def of(cls, completions: Sequence[Sequence[int]]) -> LabelTree:
        """Build the tree.

        Args:
            completions: C label id sequences, each ended by EOS, so that none is a prefix of another.
        """
        nodes: dict[tuple[int, ...], int] = {}
        edges: dict[tuple[int, int], int] = {}
        runs: list[list[int]] = []
        for ids in completions:
            run, parent = [], 0
            for length in range(1, len(ids) + 1):
                run.append(edges.setdefault((parent, ids[length - 1]), len(edges)))
                if length < len(ids):  # the last token, EOS, is predicted and never read
                    parent = nodes.setdefault(tuple(ids[:length]), len(nodes)) + 1
            runs.append(run)
        ancestors = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
        for prefix, node in nodes.items():
            for length in range(1, len(prefix) + 1):
                ancestors[node, nodes[prefix[:length]]] = True
        label_edges = torch.zeros(len(completions), len(edges))
        for label, run in enumerate(runs):
            label_edges[label, run] = 1
        return cls(
            tokens=torch.tensor([prefix[-1] for prefix in nodes], dtype=torch.long),
            depths=torch.tensor([len(prefix) - 1 for prefix in nodes], dtype=torch.long),
            ancestors=ancestors,
            edge_from=torch.tensor([parent for parent, _ in edges], dtype=torch.long),
            edge_token=torch.tensor([token for _, token in edges], dtype=torch.long),
            label_edges=label_edges,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> LabelTree:
        """The same tree on another device."""
        return LabelTree(
            *(getattr(self, name).to(device) for name in self.__dataclass_fields__),
        )


def label_log_probs(
    backbone: nn.Module, head: nn.Module, tree: LabelTree, input_ids: Tensor, lengths: Tensor
) -> Tensor:
    """Log-probability of every label behind every prompt, unnormalised over the set.

    Args:
        backbone: the causal model without its output layer, giving `last_hidden_state`.
        head: the output layer, hidden states to vocabulary logits.
        tree: of C labels, on the same device.
        input_ids: (N, T) int64, prompts padded on the right.
        lengths: (N,) int64, each prompt's number of tokens.

    Returns:
        (N, C) float32, natural logarithms, each <= 0, not divided by length. Their exponentials sum to less than 1 by
        the probability of texts that are no label.
    """
    rows, width = input_ids.shape
    nodes = len(tree)
    ids = torch.cat([input_ids, tree.tokens.expand(rows, nodes)], dim=1)
    columns = torch.arange(width, device=input_ids.device)
    positions = torch.cat([columns.expand(rows, width), lengths[:, None] + tree.depths], dim=1)
    dtype = next(backbone.parameters()).dtype
    if torch.is_autocast_enabled(input_ids.device.type):
        dtype = torch.get_autocast_dtype(input_ids.device.type)
    hidden = backbone(
        input_ids=ids,
        attention_mask=_tree_mask(tree, columns, lengths, dtype),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    last = hidden[torch.arange(rows, device=ids.device), lengths - 1]
    states = torch.cat([last[:, None], hidden[:, width:]], dim=1)  # (N, 1 + M, H); 0 is the root
    scored = torch.stack([_edge_log_probs(head, tree, row) for row in states])
    return scored @ tree.label_edges.T


def _tree_mask(tree: LabelTree, columns: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, 1, T + M, T + M) additive mask: causal on the prompt, own ancestors on the tree.

    Additive, not boolean: eager attention adds whatever it is given (docs/lab-notes.md).
    """
    rows, width, nodes = len(lengths), len(columns), len(tree)
    real = columns < lengths[:, None]  # (N, T)
    seen = torch.zeros(rows, width + nodes, width + nodes, dtype=torch.bool, device=columns.device)
    seen[:, :width, :width] = columns[None, :] <= columns[:, None]
    seen[:, width:, :width] = real[:, None, :]
    seen[:, width:, width:] = tree.ancestors
    mask = torch.zeros(seen.shape, dtype=dtype, device=columns.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _edge_log_probs(head: nn.Module, tree: LabelTree, states: Tensor) -> Tensor:
    """(E,) log-probability of each edge's token after its node; one prompt at a time bounds the (M, V) logits."""
    logits = head(states).float()
    edges: Tensor = logits[tree.edge_from, tree.edge_token] - torch.logsumexp(logits, dim=-1)[tree.edge_from]
    return edges
