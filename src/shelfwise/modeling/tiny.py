"""The two architectures at a size for demos and tests: fresh weights, a tokenizer trained on the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shelfwise.modeling.encoding import prepare_tokenizer

# 3 layers of 128: as good on the validation part of the sample as 4 of 192 (0.789 and 0.783 after 10 epochs), in less
# than half the time (docs/lab-notes.md, 2026-11-24).
HIDDEN, LAYERS, HEADS, VOCABULARY = 128, 3, 4, 3000


def llama_tokenizer(texts: Sequence[str], vocabulary: int = VOCABULARY) -> Any:
    """A SentencePiece-style BPE tokenizer as LLaMA2's: ``▁`` for spaces, byte fallback, BOS in front, no pad token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # LLaMA2's own has no pre-tokenizer; here it only keeps the trainer from learning whole names as tokens.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*special, *bytes_], show_progress=False),
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return prepare_tokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="</s>",
        )
    )


def falcon_tokenizer(texts: Sequence[str], vocabulary: int = VOCABULARY) -> Any:
    """A byte-level BPE tokenizer as Falcon's: no BOS, ``<|endoftext|>`` last of its special tokens, no pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[">>SUFFIX<<", "<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return prepare_tokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>"))


def tokenizer_for(architecture: str, texts: Sequence[str]) -> Any:
    """Train the tokenizer of an architecture on a catalogue's own texts; deterministic."""
    return {"llama": llama_tokenizer, "falcon": falcon_tokenizer}[architecture](texts)


def config_for(architecture: str, tokenizer: Any) -> Any:
    """The architecture's transformers configuration at the tiny size.

    LLaMA: RMSNorm before each block, SwiGLU, rotary embeddings. Falcon-7B's shape: multi-query attention, attention
    and MLP in parallel, rotary embeddings, no biases.
    """
    return sized_config(
        architecture,
        len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def sized_config(architecture: str, vocabulary: int = VOCABULARY, **special_tokens: int | None) -> Any:
    """The same configuration before there is a tokenizer: a catalogue can give it fewer tokens than are allowed."""
    from transformers import FalconConfig, LlamaConfig

    common = {
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        **special_tokens,
    }
    if architecture == "llama":
        return LlamaConfig(**common, intermediate_size=HIDDEN * 8 // 3)
    return FalconConfig(
        **common, multi_query=True, parallel_attn=True, new_decoder_architecture=False, bias=False, alibi=False
    )
