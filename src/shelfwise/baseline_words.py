"""The baseline's margins, word by word: what sklearn computes anew for each text is computed once for each word.

The n-grams of sklearn's `char_wb` never cross a space, so what they add to a text's margins is the sum of what they add
in each of its words. Two things of TF-IDF don't add up: an n-gram that stands n times in a text counts 1 + ln(n) times,
and a text is divided by its length (the L2 norm). Both need the counts alone. So a text costs one row of margins for
each of its words, a correction for the few n-grams that its words share, and its word features.

`benchmarks/baseline_speed.py` measures it beside sklearn's way.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

TOKENS = (1, 2)  # of a word feature
CHARACTERS = (2, 5)  # of an n-gram
BYTES = 128 << 20  # of the words' margins; where more are needed, all are forgotten and begun anew
LEAST_WORDS = 1_024  # that are remembered however many labels there are
MOST_WORDS = 100_000  # and however few: a word and its n-grams take half a kilobyte, and clients can invent many
_FULL = 8  # the part of a row that makes it a full one: an eighth
_BEGINNING = 4_096  # entries that arrays have room for at first

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


find_tokens = re.compile(r"\b\w\w+\b").findall  # as sklearn's vectorizers find them


def ngrams(word: str) -> list[str]:
    """The n-grams of characters of a word with a space on either side, as `char_wb` of sklearn counts them."""
    padded = f" {word} "
    found: list[str] = []
    for n in range(CHARACTERS[0], CHARACTERS[1] + 1):
        if n >= len(padded):  # counted once, however much shorter it is
            found.append(padded)
            break
        found += [padded[i : i + n] for i in range(len(padded) - n + 1)]
    return found


class Words:
    """Margins of texts from those of their words. May be asked from several threads at once."""

    def __init__(self, word: Sequence[str], char: Sequence[str], idf: Floats, weights: sparse.csr_matrix) -> None:
        """Around what was fitted to texts in lower case.

        Args:
            word: tokens, and pairs of neighbours with a space between them.
            char: n-grams of characters.
            idf: (F,) of all features, those of `word` first.
            weights: (F, K) likewise.
        """
        self._tokens = _Tokens(word)
        self._first = len(word)  # column of the first n-gram
        self._ngrams = {ngram: column for column, ngram in enumerate(char)}
        self._idf = idf
        self._weights = _Weights(weights)
        self._shape = weights.shape
        self._capacity = max(LEAST_WORDS, min(MOST_WORDS, BYTES // (4 * weights.shape[1])))
        self._lock = threading.Lock()
        self._memory = _Memory(self._capacity, *self._shape)

    def margins(self, texts: Sequence[str]) -> Floats:
        """(N, K) margins without intercepts. No text's depend on the others, nor on what was asked before."""
        with self._lock:
            known, words, starts = self._looked_up([text.lower().split() for text in texts])
        here = sparse.csr_matrix((np.ones(len(words), np.float32), words, starts), (len(texts), len(known.margins)))
        lacking, norms = self._shared_ngrams(here @ known.counts)
        summed = here @ known.margins
        summed /= norms[:, None]
        summed += self._weights.sums(lacking.and_also(self._token_features(known.tokens, words, starts)), len(texts))
        return summed  # type: ignore[no-any-return]

    def _shared_ngrams(self, counted: sparse.csr_matrix) -> tuple[_Entries, Floats]:
        """What the words' margins lack: corrections of n-grams that stand in several words, and (N,) norms.

        Args:
            counted: (N, F) complex: the counts, and the sum of the words' own sublinear ones.
        """
        frequencies = 1 + np.log(counted.data.real)
        idf = self._idf[counted.indices]
        rows = _row_of_entry(counted.indptr)
        norms = _norms(rows, frequencies * idf, counted.shape[0])
        shared = np.flatnonzero(counted.data.real > 1)
        lacking = ((frequencies - counted.data.imag) * idf)[shared] / norms[rows[shared]]
        return _Entries(rows[shared], counted.indices[shared], lacking), norms

    def _token_features(self, tokens: _Ragged, words: Ints, starts: Ints) -> _Entries:
        """TF-IDF of tokens and of pairs of neighbours."""
        texts = len(starts) - 1
        flat, of_word = tokens.gathered(words)
        row = np.repeat(np.arange(texts, dtype=np.int32), np.diff(starts))[of_word]
        columns, rows = self._tokens.features(flat, row)
        counted = _matrix(_Entries(rows, columns, np.ones(len(columns), np.float32)), (texts, len(self._idf)))
        rows = _row_of_entry(counted.indptr)
        values = (1 + np.log(counted.data)) * self._idf[counted.indices]
        return _Entries(rows, counted.indices, values / _norms(rows, values, texts)[rows])

    def _looked_up(self, texts: Sequence[Sequence[str]]) -> tuple[_Known, Ints, Ints]:
        """What is known now, and where the texts' words stand in it, one text after the other; the lock is held."""
        memory = self._memory
        flat = list(itertools.chain.from_iterable(texts))
        words = memory.positions(flat)
        if len(words) and words.min() < 0:
            new = {flat[i] for i in np.flatnonzero(words < 0).tolist()}
            if len(memory.position) + len(new) > memory.capacity:
                new = set(flat)
                memory = self._memory = _Memory(max(self._capacity, len(new)), *self._shape)
            self._learn(memory, sorted(new))
            words = memory.positions(flat)
        return memory.known(), words, _starts(map(len, texts))

    def _learn(self, memory: _Memory, words: Sequence[str]) -> None:
        find = self._ngrams.get
        first = len(memory.position)
        for word in words:
            found = Counter(column for column in map(find, ngrams(word)) if column is not None)
            columns = np.array(sorted(found), np.int32)
            counts = np.array([found[column] for column in columns.tolist()], np.float32)
            memory.add(word, self._tokens.numbers(find_tokens(word)), columns + self._first, counts)
        new = memory.known().counts[first:]
        features = _Entries(_row_of_entry(new.indptr), new.indices, new.data.imag * self._idf[new.indices])
        memory.margins[first : first + len(words)] = self._weights.sums(features, len(words))


class _Entries(NamedTuple):
    """Entries of a sparse matrix."""

    rows: Ints
    columns: Ints
    values: Floats

    def and_also(self, others: _Entries) -> _Entries:
        """These and others."""
        return _Entries(*(np.concatenate(both) for both in zip(self, others, strict=True)))

    def only(self, chosen: NDArray[np.bool_], columns: Ints | None = None) -> _Entries:
        """Some of these, maybe under other columns."""
        columns = self.columns if columns is None else columns
        return _Entries(self.rows[chosen], columns[chosen], self.values[chosen])


class _Weights:
    """(F, K) weights; rows that are full enough are kept dense, which makes their products ten times as fast."""

    def __init__(self, weights: sparse.csr_matrix) -> None:
        full = np.diff(weights.indptr) * _FULL >= weights.shape[1]
        self._dense = weights[np.flatnonzero(full)].toarray()
        self._dense_row = np.where(full, np.cumsum(full) - 1, -1).astype(np.int32)
        self._sparse = sparse.diags_array((~full).astype(np.float32), format="csr") @ weights

    def sums(self, entries: _Entries, n_rows: int) -> Floats:
        """(N, K) the products of (N, F) entries and the weights. A row depends on its own entries alone."""
        at = self._dense_row[entries.columns]
        full = _matrix(entries.only(at >= 0, at), (n_rows, len(self._dense)))
        rest = _matrix(entries.only(at < 0), (n_rows, len(self._dense_row)))
        summed: Floats = full @ self._dense
        summed += (rest @ self._sparse).toarray()
        return summed


class _Tokens:
    """Tokens by number, so that pairs of neighbours are found without making a text of each."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        parts = [(feature.split(" "), column) for column, feature in enumerate(vocabulary)]
        self._number = {
            token: i for i, token in enumerate(dict.fromkeys(itertools.chain.from_iterable(p for p, _ in parts)))
        }
        self._alone = np.full(len(self._number) + 1, -1, np.int32)  # the last is that of any other token
        pairs = []
        for tokens, column in parts:
            numbers = [self._number[token] for token in tokens]
            if len(numbers) == 1:
                self._alone[numbers[0]] = column
            else:
                pairs.append((self._key(*numbers), column))
        pairs.sort()
        self._pairs = np.array([key for key, _ in pairs], np.int64)
        self._columns = np.array([column for _, column in pairs], np.int32)

    def numbers(self, tokens: Iterable[str]) -> Ints:
        """The number of each token."""
        other = len(self._number)
        return np.array([self._number.get(token, other) for token in tokens], np.int32)

    def features(self, tokens: Ints, rows: Ints) -> tuple[Ints, Ints]:
        """Columns of tokens and of pairs of neighbours, as often as they stand there, and the row of each.

        Args:
            tokens: (T,) numbers, the rows one after the other.
            rows: (T,) of each token.
        """
        columns = self._alone[tokens]
        together = np.flatnonzero(rows[1:] == rows[:-1])
        keys = self._key(tokens[together].astype(np.int64), tokens[together + 1])
        found = np.searchsorted(self._pairs, keys)
        there = np.flatnonzero(np.append(self._pairs, -1)[found] == keys)
        known = np.flatnonzero(columns >= 0)
        return (
            np.concatenate([columns[known], self._columns[found[there]]]),
            np.concatenate([rows[known], rows[together[there]]]),
        )

    def _key(self, left: Any, right: Any) -> Any:
        return left * (len(self._number) + 1) + right


class _Ragged(NamedTuple):
    """W lists of different lengths."""

    values: Ints
    starts: Ints  # (W + 1,)

    def gathered(self, which: Ints) -> tuple[Ints, Ints]:
        """The values of some lists one after the other, and the position in `which` of the list of each."""
        begins = self.starts[which]
        sizes = self.starts[which + 1] - begins
        of_list = np.repeat(np.arange(len(which), dtype=np.int32), sizes)
        ends = np.cumsum(sizes, dtype=np.int32)
        offsets = np.repeat(begins - (ends - sizes), sizes)
        return self.values[offsets + np.arange(len(of_list), dtype=np.int32)], of_list


class _Known(NamedTuple):
    """What is known of W words."""

    counts: sparse.csr_matrix  # (W, F) complex: how often each n-gram stands in the word; the same, sublinear
    margins: Floats  # (W, K) what the word's n-grams add, not yet divided by a text's norm
    tokens: _Ragged  # the numbers of each word's tokens


class _Memory:
    """Words and what is known of them. Arrays grow at their ends alone, so that views of them stay as they are."""

    def __init__(self, capacity: int, n_features: int, n_labels: int) -> None:
        self.capacity = capacity
        self.position: dict[str, int] = {}
        self.margins = np.empty((capacity, n_labels), np.float32)  # memory is taken as rows are filled
        self._n_features = n_features
        self._entries = _Growing(np.int32, np.complex64)
        self._tokens = _Growing(np.int32)
        self._entry_starts, self._token_starts = np.zeros((2, capacity + 1), np.int32)

    def add(self, word: str, tokens: Ints, columns: Ints, counts: Floats) -> None:
        """Take a word up; its row of `margins` is the caller's to fill."""
        number = len(self.position)
        self._entry_starts[number + 1] = self._entries.add(columns, counts + 1j * (1 + np.log(counts)))
        self._token_starts[number + 1] = self._tokens.add(tokens)
        self.position[word] = number

    def positions(self, words: Sequence[str]) -> Ints:
        """Where each word stands; -1 for one that is not known."""
        find = self.position.get
        return np.array([find(word, -1) for word in words], np.int32)

    def known(self) -> _Known:
        """Views of what is known by now."""
        words = len(self.position)
        starts = self._entry_starts[: words + 1]
        columns, counts = self._entries.views()
        (tokens,) = self._tokens.views()
        return _Known(
            sparse.csr_matrix((counts, columns, starts), (words, self._n_features), copy=False),
            self.margins[:words],
            _Ragged(tokens, self._token_starts[: words + 1]),
        )


class _Growing:
    """Arrays of one length that are added to at their ends."""

    def __init__(self, *dtypes: Any) -> None:
        self._arrays = [np.empty(_BEGINNING, dtype) for dtype in dtypes]
        self._size = 0

    def add(self, *values: NDArray[Any]) -> int:
        """Put values behind each array; the length from then on."""
        end = self._size + len(values[0])
        if end > len(self._arrays[0]):
            self._arrays = [np.concatenate([old, np.empty(max(len(old), end), old.dtype)]) for old in self._arrays]
        for array, more in zip(self._arrays, values, strict=True):
            array[self._size : end] = more
        self._size = end
        return end

    def views(self) -> list[NDArray[Any]]:
        """The arrays as far as they are filled."""
        return [array[: self._size] for array in self._arrays]


def _matrix(entries: _Entries, shape: tuple[int, int]) -> sparse.csr_matrix:
    """The matrix of some entries, each row in the order of its columns; those of one place are summed.

    As scipy's `coo_matrix.tocsr` gives it, whose checks take longer than all else where a text is asked alone.
    """
    places = entries.rows.astype(np.int64) * shape[1] + entries.columns
    order = np.argsort(places, kind="stable")
    places, values = places[order], entries.values[order]
    first = np.flatnonzero(np.append(True, places[1:] != places[:-1])[: len(places)])
    if len(first) < len(places):
        values, places = np.add.reduceat(values, first), places[first]
    rows, columns = np.divmod(places, shape[1])
    starts = np.searchsorted(rows, np.arange(shape[0] + 1)).astype(np.int32)
    return sparse.csr_matrix((values, columns.astype(np.int32), starts), shape)


def _starts(sizes: Iterable[int]) -> Ints:
    """Where each of some lists begins when they stand one after the other, and where the last one ends."""
    return np.array([0, *itertools.accumulate(sizes)], np.int32)


def _row_of_entry(starts: Ints) -> Ints:
    return np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))


def _norms(rows: Ints, values: Floats, n_rows: int) -> Floats:
    """(N,) the length of each row; 1 of a row without entries, which sklearn leaves as it is too."""
    squares = np.bincount(rows, weights=np.square(values, dtype=np.float64), minlength=n_rows)
    return np.sqrt(np.where(squares > 0, squares, 1)).astype(np.float32)
