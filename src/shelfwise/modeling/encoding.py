"""Tokenisation: texts to prompt ids, labels to completion ids, and the pad token that is never a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.prompts import PromptFormat

# The longest BigBasket prompt has 57 tokens (SmolLM2); a longer text is cut, its suffix kept.
MAX_LENGTH = 128
_PROBE = "x"


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer with a prompt format: the one owner of what ids a model sees."""

    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    prompts: PromptFormat
    max_length: int = MAX_LENGTH

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Prompt ids of each text: BOS where the tokenizer has the habit, the text, the suffix. No EOS.

        A text of more than `max_length` tokens loses its end, never the suffix that every prompt ends with.
        """
        if not texts:
            return []
        encoded: list[list[int]] = self.tokenizer([self.prompts.prompt(text) for text in texts])["input_ids"]
        tail = self._suffix_length()
        prompts = []
        for kept in map(self._open, encoded):
            if len(kept) > self.max_length:
                kept = kept[: self.max_length - tail] + kept[-tail:]
            prompts.append(kept)
        return prompts

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts for themselves, without a prompt's suffix: BOS where the tokenizer has the habit, then EOS."""
        if not texts:
            return []
        encoded: list[list[int]] = self.tokenizer(list(texts))["input_ids"]
        return [[*self._open(ids)[: self.max_length - 1], self.tokenizer.eos_token_id] for ids in encoded]

    def completions(self, labels: Sequence[str]) -> list[list[int]]:
        """Ids of each label after a prompt, ended by EOS.

        Tokenised behind a probe and cut off again, so that SentencePiece's leading-space rule holds as it does in a
        whole text.

        Raises:
            InputError: this tokenizer merges across the seam, so prompt and completion can't be told apart.
        """
        probe = self.encode([_PROBE])[0]
        ends = self.tokenizer([self.prompts.labelled(_PROBE, label) for label in labels])["input_ids"]
        eos = self.tokenizer.eos_token_id
        completions = []
        for label, ids in zip(labels, ends, strict=True):
            whole = self._open(ids)
            if whole[: len(probe)] != probe or len(whole) == len(probe):
                raise InputError(
                    f"The tokenizer merges the end of a prompt with the start of '{label}', so the label's tokens "
                    "can't be told from the prompt's. Use --objective head with this base model."
                )
            completions.append([*whole[len(probe) :], eos])
        return completions

    def _open(self, ids: list[int]) -> list[int]:
        """Ids without the EOS that some tokenizers put behind every text."""
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids

    def _suffix_length(self) -> int:
        plain = self.tokenizer(_PROBE)["input_ids"]
        whole = self.tokenizer(self.prompts.prompt(_PROBE))["input_ids"]
        return max(1, len(whole) - len(plain))


def prepare_tokenizer(tokenizer: Any) -> Any:
    """Make a tokenizer safe for product names: padded on the right by a token that is no target, names taken as text.

    The pad token is the tokenizer's own unless that is EOS, a `completion` run's target; else its unknown token
    (LLaMA2's ``<unk>``), else another special token that no text can hold; no token is ever added, so the embedding
    keeps its size. EOS itself serves when there is nothing else: our batches mark targets by position, not by id.

    Special tokens written in a name (``</s>``) are read as the text they are.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no end-of-text token.")
    reserved = {tokenizer.eos_token_id, tokenizer.bos_token_id}
    candidates = [tokenizer.pad_token, tokenizer.unk_token, *special_tokens(tokenizer)]
    free = (token for token in candidates if token and tokenizer.convert_tokens_to_ids(token) not in reserved)
    tokenizer.pad_token = next(free, tokenizer.eos_token)
    tokenizer.padding_side = "right"
    tokenizer.split_special_tokens = True
    return tokenizer


def special_tokens(tokenizer: Any) -> list[str]:
    """The tokenizer's special tokens in the order of their ids."""
    added = tokenizer.added_tokens_decoder
    return [str(added[index]) for index in sorted(added) if added[index].special]


def load_tokenizer(folder: Path) -> Any:
    """Load and prepare the tokenizer of a folder.

    Raises:
        CorruptArtifactError: the folder holds no tokenizer that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptArtifactError(f"{folder}: no tokenizer that can be loaded ({error}).") from error
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"{folder}: only fast tokenizers (tokenizer.json) are supported.")
    return prepare_tokenizer(tokenizer)
