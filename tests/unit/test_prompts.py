from __future__ import annotations

import pytest

from shelfwise import storage
from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.prompts import PromptFormat


def test_name_and_type_are_joined_as_the_training_text():
    assert PromptFormat().labelled("Basmati Rice 5 kg", "Rice, Aged") == "Basmati Rice 5 kg ->: Rice, Aged"


def test_the_prompt_never_holds_the_label():
    assert PromptFormat().prompt("Basmati 5 kg") == "Basmati 5 kg ->:"


def test_the_space_belongs_to_the_completion():
    assert PromptFormat().completion("Rice") == " Rice"
    with pytest.raises(InputError):
        PromptFormat(suffix=" ->: ")
    with pytest.raises(InputError):
        PromptFormat(separator="")


def test_a_prompt_format_survives_its_file(tmp_path):
    storage.write_json(tmp_path / "prompt.json", PromptFormat(" =>").to_json())
    assert PromptFormat.load(tmp_path / "prompt.json") == PromptFormat(" =>")


@pytest.mark.parametrize("text", ["", "[]", '{"other": 1}'])
def test_a_damaged_prompt_file_is_reported(tmp_path, text):
    (tmp_path / "prompt.json").write_text(text)
    with pytest.raises(CorruptArtifactError, match="Copy the run folder whole again"):
        PromptFormat.load(tmp_path / "prompt.json")
