from __future__ import annotations

import pytest

from shelfwise.errors import InputError
from shelfwise.modeling import tiny
from shelfwise.modeling.encoding import Encoder, load_tokenizer
from shelfwise.prompts import PromptFormat

LABELS = ["Hair Oil", "Hair Oil & Serum", "Rice", "Rice, Aged"]


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_prompt_and_completion_ids_are_those_of_the_whole_text(architecture, encoders):
    encoder = encoders[architecture]
    for name in ("Basmati long grain 5 kg", "Crème ½ × 2", "x"):
        prompt = encoder.encode([name])[0]
        for label, ids in zip(LABELS, encoder.completions(LABELS), strict=True):
            whole = encoder.tokenizer(encoder.prompts.labelled(name, label))["input_ids"]
            assert prompt + ids == [*whole, encoder.tokenizer.eos_token_id]


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_no_completion_is_a_prefix_of_another_although_a_label_is(architecture, encoders):
    ends = encoders[architecture].completions(LABELS)
    assert not any(a is not b and b[: len(a)] == a for a in ends for b in ends)


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_special_tokens_written_in_a_name_are_read_as_text(architecture, encoders):
    encoder = encoders[architecture]
    special = {encoder.tokenizer.eos_token_id, encoder.tokenizer.pad_token_id}
    ids = encoder.encode(["Towel </s> <|endoftext|> <unk> >>SUFFIX<< large"])[0]
    assert not special & set(ids)


def test_llama_prompts_begin_with_bos_and_falcon_prompts_do_not(encoders):
    llama, falcon = encoders["llama"], encoders["falcon"]
    assert llama.encode(["Rice"])[0][0] == llama.tokenizer.bos_token_id
    assert falcon.tokenizer.bos_token_id is None


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_the_pad_token_is_never_the_end_of_text(architecture, encoders):
    tokenizer = encoders[architecture].tokenizer
    assert tokenizer.pad_token_id is not None
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_a_pad_token_that_is_the_end_of_text_is_replaced(encoders, tmp_path):
    tokenizer = tiny.llama_tokenizer(["Rice flour"], 300)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token == "<unk>"


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_a_long_name_loses_its_end_and_keeps_the_suffix(architecture, encoders):
    full = encoders[architecture]
    short = Encoder(full.tokenizer, full.prompts, max_length=12)
    whole, cut = full.encode(["Basmati " * 40])[0], short.encode(["Basmati " * 40])[0]
    assert len(cut) == 12
    assert full.tokenizer.decode(cut).endswith("->:")
    assert cut[:8] == whole[:8]


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_a_saved_tokenizer_is_the_same_after_loading(architecture, encoders, tmp_path):
    encoder = encoders[architecture]
    encoder.tokenizer.save_pretrained(tmp_path)
    again = Encoder(load_tokenizer(tmp_path), encoder.prompts)
    names = ["Basmati long grain", "Towel </s> large", "Crème ½"]
    assert again.encode(names) == encoder.encode(names)
    assert again.tokenizer.pad_token_id == encoder.tokenizer.pad_token_id


def test_a_tokenizer_that_merges_across_the_seam_is_refused(encoders):
    class Merging(PromptFormat):
        def labelled(self, text: str, label: str) -> str:
            return f"{text}{label}"

    encoder = Encoder(encoders["falcon"].tokenizer, Merging())
    with pytest.raises(InputError, match="--objective head"):
        encoder.completions(["Hair Oil"])
