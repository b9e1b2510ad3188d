from __future__ import annotations

import pytest
import torch

from shelfwise.modeling.batching import pad
from shelfwise.modeling.engine import causal_parts
from shelfwise.modeling.label_tree import LabelTree, label_log_probs
from support.catalogue import LABELS

NAMES = ["Basmati long grain 5 kg", "Oil", "Aloe face gel with rose, a long name"]


def alone(engine, prompt, completion):
    ids = torch.tensor([prompt + completion])
    log_probs = engine.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return sum(log_probs[len(prompt) - 1 + k, token] for k, token in enumerate(completion))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_tree_scores_equal_each_label_scored_alone(architecture, attention, make_engine):
    engine = make_engine(architecture, "completion")
    engine.model.config._attn_implementation = attention
    engine.model.lm_head.weight.data.mul_(10)  # fresh weights give nearly equal scores, which would prove little
    ends = engine.encoder.completions(LABELS.names)
    prompts = engine.encoder.encode(NAMES)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    decoder, head = causal_parts(engine.model)
    with torch.no_grad():
        padded = pad(prompts, engine.encoder.tokenizer.pad_token_id)
        scored = label_log_probs(decoder, head, LabelTree.of(ends), padded, lengths)
        expected = torch.stack([torch.stack([alone(engine, prompt, end) for end in ends]) for prompt in prompts])
    assert expected.std() > 1
    torch.testing.assert_close(scored, expected, atol=1e-3, rtol=1e-5)


def test_the_tree_shares_prefixes_and_keeps_labels_apart():
    tree = LabelTree.of([[5, 6, 2], [5, 6, 7, 2], [5, 8, 2], [9, 2]])
    assert len(tree) == 5  # 5, 56, 567, 58, 9
    assert tree.label_edges.sum(dim=1).tolist() == [3, 4, 3, 2]
    assert tree.tokens.tolist() == [5, 6, 7, 8, 9]
    assert tree.depths.tolist() == [0, 1, 2, 1, 0]
    assert tree.ancestors.sum(dim=1).tolist() == [1, 2, 3, 2, 1]


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_label_probabilities_sum_to_one(architecture, make_engine):
    engine = make_engine(architecture, "completion")
    totals = torch.from_numpy(engine.log_probs(NAMES)).exp().sum(dim=1)
    torch.testing.assert_close(totals, torch.ones(3), atol=1e-5, rtol=0)
