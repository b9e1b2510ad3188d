"""Short rows without padding: many product names side by side in tiles of one fixed length.

A product name has about 12 tokens. Padded to the longest row of its batch most of the work is waste, and attention
kernels made for long rows waste most of what is left. Here whole rows are laid into tiles of 64 tokens, every product
runs over all tokens at once, and attention runs inside a tile, each row seeing itself alone. What the rows of a tile
begin with alike stands there once (`tiles.lay`). The result is the transformers model's own
(`tests/unit/modeling/test_packed.py`); weights and adapters stay transformers' and PEFT's parameters, so what is saved
does not know how it was computed.
"""
