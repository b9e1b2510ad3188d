"""Small catalogues and trained runs for tests of whole paths."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from shelfwise.config import parse
from shelfwise.modeling import backbone, tiny
from shelfwise.pipelines.run import TrainedRun
from shelfwise.pipelines.train import train
from shelfwise.prompts import PromptFormat
from support.catalogue import EXAMPLES, LABELS

CATEGORIES = {"Face Care": "Beauty", "Hair Oil": "Beauty", "Hair Oil & Serum": "Beauty"}


def write_catalogue(path: Path) -> Path:
    """The five types as a CSV: 120 products with brands and categories, each name told apart by its number."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["product", "category", "sub_category", "brand", "type"])
        for number, (text, label) in enumerate(EXAMPLES):
            brand = f"Brand {number % 9}"
            writer.writerow([f"{text} no {number}", CATEGORIES.get(label, "Food"), f"{label[:4]} shelf", brand, label])
    return path


def write_base_model(architecture: str, folder: Path, layers: int = 2) -> Path:
    """A base model of random weights with its tokenizer, as a plain transformers folder: a hub model's stand-in."""
    prompts = PromptFormat()
    tokenizer = tiny.tokenizer_for(architecture, [prompts.labelled(text, label) for text, label in EXAMPLES])
    config = tiny.config_for(architecture, tokenizer)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = layers, 64, 128
    torch.manual_seed(7)
    settings = backbone.LoadSettings("completion", "full", 0, torch.device("cpu"), "fp32")
    backbone.fresh(config, settings, tokenizer.pad_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_small(catalogue: Path, out: Path, **changes: Any) -> TrainedRun:
    """Train a run in seconds."""
    training = {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "precision": "fp32",
        **changes.pop("training", {}),
    }
    return train(parse({"catalogue": str(catalogue), "training": training, **changes}, "test"), out, device="cpu")


__all__ = ["EXAMPLES", "LABELS", "train_small", "write_base_model", "write_catalogue"]
