"""Bytes of the tensors that a piece of code makes and keeps, counted on any device."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While entered, counts each storage that an operator gives back, until it is freed, inside or outside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage(), given)
        self.peak = max(self.peak, self.now)
        return out

    def _count(self, storage: Any, given: set[int]) -> None:
        # A storage's Python object lives as long as the storage: its id is the storage's until then.
        if id(storage) in self._sizes or id(storage) in given:  # given: made before, or a view
            return
        self._sizes[id(storage)] = storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self._forget, id(storage)).atexit = False

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
