"""Shelfwise: fine-tunes causal language models to tell a product's inventory type from its name."""

__version__ = "0.1.0"
