"""The linear baseline: the yardstick beside every number of a language model, and a fast classifier of its own.

TF-IDF of words (1 to 2) and of characters inside words (2 to 5), and one linear support vector machine a label
(`sklearn.svm.LinearSVC`). Saved as JSON and safetensors; a reloaded baseline answers bit for bit as the fitted one,
because `fit` already rounds to what the files hold.

Size, measured on BigBasket (22,044 names, 426 labels, the reference random split): 118,756 features, 50.6 million
coefficients, of which all but 3.3 million lie below `SMALLEST` and are dropped. That leaves the answer to every one of
the 5,510 test names as it was (accuracy 0.7933) and moves no margin by more than 0.003. Fewer features are no better
way: leaving out those seen once (min_df=2) costs 0.003 of accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shelfwise import artifact
from shelfwise.baseline_words import CHARACTERS, TOKENS, Words
from shelfwise.errors import COPY_AGAIN, CorruptArtifactError, InputError

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

FORMAT = 1
FACTS = "baseline.json"
VOCABULARY = "vocabulary.json"
WEIGHTS = "weights.safetensors"
ANALYZERS: tuple[tuple[str, tuple[int, int]], ...] = (("word", TOKENS), ("char_wb", CHARACTERS))
SMALLEST = 5e-4  # absolute coefficient below which a weight is dropped; see the measurement above
CHUNK = 4096  # texts at once: each call of the sparse products costs as much as some tens of texts
IN_CACHE = 512  # of their rows at once, where one array is worked on over and over
MAX_LABELS = 1_000_000
MAX_BYTES = 4 << 30  # of one file


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline; a `classifier.Scorer`. F features, K labels that training had, C labels in all."""

    exact: ClassVar[bool] = True  # a text's answer depends on the text alone, to the last bit
    n_labels: int  # C
    seen: NDArray[np.int64]  # (K,) positions of the labels that training had, ascending
    vocabularies: tuple[tuple[str, ...], ...]  # one an analyzer; side by side they are the F features
    idf: tuple[NDArray[np.float32], ...]  # likewise
    weights: sparse.csr_matrix  # (F, K) float32, of values that float16 holds exactly
    intercept: NDArray[np.float32]  # (K,)
    _words: Words = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        word, char = self.vocabularies
        object.__setattr__(self, "_words", Words(word, char, np.concatenate(self.idf), self.weights))

    @property
    def vectorizers(self) -> tuple[TfidfVectorizer, ...]:
        """sklearn's, which make the same features; answers don't need them, and importing sklearn takes 2 s."""
        return tuple(_vectorizer(i, *fitted) for i, fitted in enumerate(zip(self.vocabularies, self.idf, strict=True)))

    @classmethod
    def fit(
        cls, texts: Sequence[str], targets: Sequence[int] | NDArray[np.integer], n_labels: int, seed: int = 0
    ) -> Baseline:
        """Fit on training rows.

        Args:
            texts: N normalised texts.
            targets: N label positions in [0, n_labels).
            n_labels: C, labels of the run; not all need occur.
            seed: of the order in which liblinear visits the rows.

        Raises:
            InputError: lengths differ, a target is out of range, fewer than two labels occur, or no text holds a word.
        """
        true = np.asarray(targets, np.int64)
        if true.shape != (len(texts),):
            raise InputError(f"{len(texts)} texts, but {true.size} targets.")
        if true.size and (true.min() < 0 or true.max() >= n_labels):
            raise InputError(f"A target is not among the {n_labels} label positions.")
        if len(seen := np.unique(true)) < 2:
            raise InputError("The baseline needs products of at least two inventory types to learn from.")
        fitted = [_vectorizer(position) for position in range(len(ANALYZERS))]
        try:
            features = sparse.hstack([vectorizer.fit_transform(texts) for vectorizer in fitted], format="csr")
        except ValueError as error:  # sklearn's "empty vocabulary"
            raise InputError(f"The baseline finds no words in the {len(texts)} training texts ({error}).") from error
        coefficients, intercept = _support_vectors(features, true, seed)
        return cls(
            n_labels=n_labels,
            seen=seen,
            vocabularies=tuple(tuple(vectorizer.get_feature_names_out().tolist()) for vectorizer in fitted),
            idf=tuple(vectorizer.idf_.astype(np.float32) for vectorizer in fitted),
            weights=sparse.csr_matrix(coefficients.T.astype(np.float32)),
            intercept=intercept,
        )

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Softmax of the machines' compressed margins; `calibration` fits the temperature that makes it honest.

        A machine is trained to say -1 where its label is clearly not meant, so margins are measured from there, and
        compressed by a square root: high ones grow with the number of telling words more than with the odds. Answers
        stay the same. On BigBasket validation names, after fitting the temperature, the mean negative log-likelihood
        falls from 1.363 to 1.146 nats and the calibration error from 0.075 to 0.024 (with brands 0.840 to 0.693 and
        0.059 to 0.019); six other shapes were tried, none did as well.

        A label that training never had gets a margin one below the row's lowest: it is never answered while another
        can be, its likelihood stays finite, and the row still sums to 1.

        Returns:
            (N, C) natural logarithms; each row's exponentials sum to 1.
        """
        result = np.empty((len(texts), self.n_labels), np.float32)
        for start in range(0, len(texts), CHUNK):
            margins = self._words.margins(texts[start : start + CHUNK])
            for first in range(0, len(margins), IN_CACHE):
                here = margins[first : first + IN_CACHE]
                here += self.intercept
                rows = result[start + first : start + first + len(here)]
                rows[:] = _compress(here.min(axis=1, keepdims=True) - 1)
                rows[:, self.seen] = _compress(here)
                rows -= rows.max(axis=1, keepdims=True)
                rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return result

    def save(self, folder: Path) -> None:
        """Write three plain files into `folder`, which is made when missing.

        Raises:
            StorageError: the disk refused.
        """
        from safetensors.numpy import save

        idf = {f"idf_{i}": values for i, values in enumerate(self.idf)}
        columns = np.uint16 if len(self.seen) <= np.iinfo(np.uint16).max else np.uint32
        tensors = {
            **idf,
            "seen": self.seen,
            "intercept": self.intercept,
            "data": self.weights.data.astype(np.float16),
            "indices": self.weights.indices.astype(columns),
            "indptr": self.weights.indptr.astype(np.int64),
        }
        artifact.write_json(folder / FACTS, {"format": FORMAT, "n_labels": self.n_labels, "analyzers": ANALYZERS})
        artifact.write_text(folder / VOCABULARY, json.dumps(self.vocabularies, ensure_ascii=False))
        with artifact.atomic_file(folder / WEIGHTS, "wb") as stream:
            stream.write(save(tensors))

    @classmethod
    def load(cls, folder: Path) -> Baseline:
        """Read a saved baseline.

        Raises:
            CorruptArtifactError: a file is missing, unreadable, too large, or does not fit the others.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            facts = json.loads(_bytes(folder / FACTS))
            _require(facts["format"] == FORMAT, f"{FACTS} is of format {facts['format']}, this version reads {FORMAT}")
            _require(facts["analyzers"] == json.loads(json.dumps(ANALYZERS)), "its features are made another way")
            n_labels = facts["n_labels"]
            _require(type(n_labels) is int and 2 <= n_labels <= MAX_LABELS, f"{n_labels!r} labels")
            return cls._of(n_labels, json.loads(_bytes(folder / VOCABULARY)), load(_bytes(folder / WEIGHTS)))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CorruptArtifactError(f"{folder}: not a readable baseline ({error}). {COPY_AGAIN}") from error

    @classmethod
    def _of(cls, n_labels: int, vocabularies: list[list[str]], tensors: dict[str, NDArray[np.generic]]) -> Baseline:
        """Assemble what the files hold, after checking that the parts fit each other; ValueError when they don't."""
        _require(len(vocabularies) == len(ANALYZERS), f"{len(vocabularies)} vocabularies")
        idf = [tensors[f"idf_{i}"].astype(np.float32) for i in range(len(ANALYZERS))]
        for words, weights in zip(vocabularies, idf, strict=True):
            _require(bool(words) and all(isinstance(word, str) for word in words), "a vocabulary is no list of texts")
            _require(len(set(words)) == len(words), "a vocabulary entry is repeated")
            _require(weights.shape == (len(words),), "idf does not fit the vocabulary")
        seen, intercept = tensors["seen"], tensors["intercept"].astype(np.float32)
        _require(seen.dtype == np.int64 and seen.ndim == 1 and len(seen) >= 2, "the labels seen are no list")
        _require(seen[0] >= 0 and seen[-1] < n_labels and bool((np.diff(seen) > 0).all()), "labels out of range")
        _require(intercept.shape == seen.shape, "intercepts do not fit the labels")
        data, indices = tensors["data"].astype(np.float32), tensors["indices"].astype(np.int64)
        indptr, n_features = tensors["indptr"].astype(np.int64), sum(map(len, vocabularies))
        _require(
            indptr.shape == (n_features + 1,) and data.shape == indices.shape == (indptr[-1],), "weights cut short"
        )
        _require(indptr[0] == 0 and bool((np.diff(indptr) >= 0).all()), "weights out of order")
        _require(not len(indices) or (indices.min() >= 0 and indices.max() < len(seen)), "weights for unknown labels")
        _require(all(bool(np.isfinite(part).all()) for part in (data, intercept, *idf)), "a weight is not finite")
        weights = sparse.csr_matrix((data, indices, indptr), shape=(n_features, len(seen)))
        return cls(n_labels, seen.astype(np.int64), tuple(map(tuple, vocabularies)), tuple(idf), weights, intercept)


def _vectorizer(
    position: int, vocabulary: Sequence[str] | None = None, idf: NDArray[np.float32] | None = None
) -> TfidfVectorizer:
    """The analyzer at this position of `ANALYZERS`: ready to be fitted, or as it was fitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    analyzer, ngram_range = ANALYZERS[position]
    columns = None if vocabulary is None else {word: i for i, word in enumerate(vocabulary)}
    vectorizer = TfidfVectorizer(
        analyzer=analyzer, ngram_range=ngram_range, sublinear_tf=True, dtype=np.float32, vocabulary=columns
    )
    if idf is not None:
        vectorizer.idf_ = idf
    return vectorizer


def _support_vectors(
    features: sparse.csr_matrix, targets: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Fit one machine a label; weights below `SMALLEST` are 0.

    Returns:
        (K, F) coefficients and (K,) intercepts, K labels in ascending order of their positions.
    """
    from sklearn.svm import LinearSVC

    machines = LinearSVC(random_state=seed).fit(features, targets)
    coefficients, intercept = machines.coef_, machines.intercept_
    if len(intercept) == 1:  # of two labels sklearn keeps only the second's machine
        coefficients, intercept = np.vstack([-coefficients, coefficients]), np.append(-intercept, intercept)
    coefficients[np.abs(coefficients) < SMALLEST] = 0
    return coefficients.astype(np.float16), intercept.astype(np.float32)


def _compress(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed square root of the distance from -1."""
    return np.copysign(np.sqrt(np.abs(margins + 1)), margins + 1)


def _bytes(path: Path) -> bytes:
    size = path.stat().st_size
    _require(size <= MAX_BYTES, f"{path.name} is larger than {MAX_BYTES:,} bytes")
    return path.read_bytes()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
