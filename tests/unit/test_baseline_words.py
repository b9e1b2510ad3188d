"""Margins word by word are sklearn's features times the weights, whatever else was asked."""

from __future__ import annotations

import random
import re
import threading

import numpy as np
import pytest
from scipy import sparse

from shelfwise import baseline_words
from shelfwise.baseline import Baseline
from shelfwise.data import sample
from shelfwise.data.catalogue import read_catalogue

ODD = [
    "",
    " ",
    "a",
    "?",
    "a a a",
    "banana bananas Banana BANANA",
    "Men's T-Shirt, men's t-shirt",
    "Straße STRASSE straße ΑΣ ας",
    "café Crème  1,5 l",
    "tea\u00a0green\u2003tea green tea green tea",
    "हल्दी पाउडर 100 g",
    "x" * 300,
    " ".join(f"word{i}" for i in range(400)),
]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    names = [product.name for product in read_catalogue(sample.catalogue_path()).products]
    draw = random.Random(0)
    mixed = [" ".join(draw.sample(" ".join(draw.sample(names, 3)).split(), 5)) for _ in range(300)]
    return [*names[:300], *ODD, *mixed]


@pytest.fixture(scope="module")
def fitted() -> Baseline:
    products = read_catalogue(sample.catalogue_path()).labelled
    labels = sorted({product.label for product in products if product.label})
    return Baseline.fit([p.name for p in products], [labels.index(p.label or "") for p in products], len(labels))


def made(fitted: Baseline) -> baseline_words.Words:
    word, char = fitted.vocabularies
    return baseline_words.Words(word, char, np.concatenate(fitted.idf), fitted.weights)


def test_words_are_taken_apart_as_sklearn_does(fitted: Baseline, texts: list[str]) -> None:
    word, char = fitted.vectorizers
    by_sklearn = char.build_analyzer()
    for text in texts:
        assert baseline_words.find_tokens(text) == re.findall(word.token_pattern, text)
        for part in text.lower().split():
            assert sorted(baseline_words.ngrams(part)) == sorted(by_sklearn(part))


def test_they_are_sklearns_features_times_the_weights(fitted: Baseline, texts: list[str]) -> None:
    features = sparse.hstack([vectorizer.transform(texts) for vectorizer in fitted.vectorizers], format="csr")
    expected = (features @ fitted.weights).toarray()
    found = made(fitted).margins(texts)
    assert found.dtype == np.float32
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-5)  # 400 words of one text


def test_they_do_not_depend_on_other_texts_to_the_last_bit(fitted: Baseline, texts: list[str]) -> None:
    together = made(fitted).margins(texts)
    words = made(fitted)
    backwards = np.concatenate([words.margins([text]) for text in reversed(texts)])[::-1]
    assert (together == backwards).all()
    assert (words.margins(texts) == together).all()  # all of it known by now


def test_what_is_forgotten_is_found_again(fitted: Baseline, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    together = made(fitted).margins(texts)
    assert made(fitted)._capacity == baseline_words.MOST_WORDS
    monkeypatch.setattr(baseline_words, "BYTES", 1)
    monkeypatch.setattr(baseline_words, "LEAST_WORDS", 40)
    words = made(fitted)
    seen = set()
    for start in range(0, len(texts), 7):
        assert (words.margins(texts[start : start + 7]) == together[start : start + 7]).all()
        seen.add(id(words._memory))
    assert len(seen) > 5  # it was begun anew
    assert len(words._memory.position) <= max(40, 400)


def test_several_threads_may_ask_at_once(fitted: Baseline, texts: list[str]) -> None:
    together = made(fitted).margins(texts)
    words = made(fitted)
    wrong: list[int] = []

    def ask(offset: int) -> None:
        for start in range(offset, len(texts), 13):
            if not (words.margins(texts[start : start + 13]) == together[start : start + 13]).all():
                wrong.append(start)

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in (0, 0, 5, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert words.margins([]).shape == (0, together.shape[1])
