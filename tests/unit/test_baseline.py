from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shelfwise.baseline import FACTS, VOCABULARY, WEIGHTS, Baseline
from shelfwise.errors import CorruptArtifactError, InputError

BRANDS = ["Amber", "Borealis", "Cobalt", "Dune", "Élan"]
TYPES = {
    1: ["Basmati Rice", "Brown Rice", "Steamed Rice"],
    2: ["Face Wash", "Neem Face Wash", "Foaming Face Wash"],
    4: ["Green Tea", "Tulsi Tea", "Masala Tea Bags"],
}
N_LABELS = 6  # 0, 3 and 5 never occur in training


def products() -> tuple[list[str], list[int]]:
    rows = [
        (f"{brand} {name} {size}", target)
        for target, names in TYPES.items()
        for name in names
        for brand in BRANDS
        for size in ("100 g", "1 kg")
    ]
    return [text for text, _ in rows], [target for _, target in rows]


@pytest.fixture(scope="module")
def fitted() -> Baseline:
    return Baseline.fit(*products(), N_LABELS)


def test_it_learns_what_words_tell(fitted: Baseline) -> None:
    new = ["Zephyr Red Rice 5 kg", "Zephyr Aloe Face Wash", "Zephyr Lemon Tea 25 pcs"]
    assert fitted.log_probs(new).argmax(1).tolist() == [1, 2, 4]


def test_every_row_is_a_distribution_over_all_labels(fitted: Baseline) -> None:
    log_probs = fitted.log_probs([*products()[0], "qqq", "?", "茶"])
    assert log_probs.shape == (len(products()[0]) + 3, N_LABELS)
    assert log_probs.dtype == np.float32
    assert np.isfinite(log_probs).all()
    assert np.allclose(np.exp(log_probs).sum(1), 1, atol=1e-5)
    assert fitted.log_probs([]).shape == (0, N_LABELS)


def test_a_label_never_seen_is_never_answered(fitted: Baseline) -> None:
    log_probs = fitted.log_probs([*products()[0], "qqq", "?"])
    seen, unseen = log_probs[:, [1, 2, 4]], log_probs[:, [0, 3, 5]]
    assert (unseen.max(1) < seen.min(1)).all()


def test_an_answer_does_not_depend_on_its_neighbours(fitted: Baseline) -> None:
    texts = products()[0]
    together = fitted.log_probs(texts)
    alone = np.concatenate([fitted.log_probs([text]) for text in texts])
    assert np.array_equal(together, alone)


def test_a_reloaded_baseline_answers_bit_for_bit(fitted: Baseline, tmp_path: Path) -> None:
    fitted.save(tmp_path / "baseline")
    assert sorted(p.name for p in (tmp_path / "baseline").iterdir()) == sorted([FACTS, VOCABULARY, WEIGHTS])
    texts = [*products()[0], "Zephyr Lemon Tea", "qqq"]
    assert np.array_equal(Baseline.load(tmp_path / "baseline").log_probs(texts), fitted.log_probs(texts))


def test_the_same_seed_gives_the_same_baseline(fitted: Baseline) -> None:
    texts = products()[0]
    assert np.array_equal(Baseline.fit(*products(), N_LABELS).log_probs(texts), fitted.log_probs(texts))


def test_two_labels_are_enough(tmp_path: Path) -> None:
    texts, targets = products()
    pairs = [(text, target) for text, target in zip(texts, targets, strict=True) if target != 4]
    two = Baseline.fit([text for text, _ in pairs], [target for _, target in pairs], N_LABELS)
    two.save(tmp_path)
    assert Baseline.load(tmp_path).log_probs(["Black Rice", "Rose Face Wash"]).argmax(1).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("texts", "targets", "message"),
    [
        (["rice", "tea"], [0], "2 texts, but 1 targets"),
        (["rice", "tea"], [0, 6], "not among the 6 label positions"),
        (["rice", "tea"], [-1, 0], "not among the 6 label positions"),
        (["rice", "brown rice"], [1, 1], "at least two inventory types"),
        ([], [], "at least two inventory types"),
        (["?", "!"], [0, 1], "finds no words"),
    ],
)
def test_what_can_not_be_learned_from_is_refused(texts: list[str], targets: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Baseline.fit(texts, targets, N_LABELS)


def _facts(change: dict[str, object], folder: Path) -> None:
    stored = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps(stored | change))


def _tensor(name: str, position: int, value: float, folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors[name][position] = value
    save_file(tensors, folder / WEIGHTS)


def _vocabulary(folder: Path) -> None:
    words = json.loads((folder / VOCABULARY).read_text())
    (folder / VOCABULARY).write_text(json.dumps([words[0][:-1], words[1]]))


DAMAGES = {
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "no vocabulary": lambda folder: (folder / VOCABULARY).unlink(),
    "cut weights": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-7]),
    "facts are a list": lambda folder: (folder / FACTS).write_text("[]"),
    "newer format": lambda folder: _facts({"format": 2}, folder),
    "other analyzers": lambda folder: _facts({"analyzers": [["word", [1, 1]]]}, folder),
    "absurd label count": lambda folder: _facts({"n_labels": 10**12}, folder),
    "label count below the labels": lambda folder: _facts({"n_labels": 4}, folder),
    "a word less": _vocabulary,
    "vocabulary of numbers": lambda folder: (folder / VOCABULARY).write_text("[[1], [2]]"),
    "weight is not finite": lambda folder: _tensor("data", 0, np.inf, folder),
    "weight for a label that is not there": lambda folder: _tensor("indices", 0, 3, folder),
    "weights out of order": lambda folder: _tensor("indptr", 1, 10**6, folder),
    "labels out of order": lambda folder: _tensor("seen", 0, 5, folder),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_baseline_is_not_loaded(fitted: Baseline, tmp_path: Path, damage: str) -> None:
    fitted.save(tmp_path)
    DAMAGES[damage](tmp_path)
    with pytest.raises(CorruptArtifactError, match="not a readable baseline"):
        Baseline.load(tmp_path)
