"""Tensors as exact bytes, and trees of tensors as JSON plus a list of tensors. No pickle anywhere.

A tree is built of dict, list, tuple, None, bool, int, float, str, torch tensors, NumPy arrays, dtypes and devices: what
optimizers, scalers, schedulers and batches are made of. Everything comes back with the same types and the same bits,
NaN payloads and memory layout included. A tensor on the "meta" device is its shape, dtype and strides.
"""

from __future__ import annotations

import collections
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


class TreeError(TypeError):
    """Something that cannot be stored as plain data: where it was and what it was."""


def leaves(tree: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts, lists, tuples, sets of fields (dataclasses, named tuples) and objects like them."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from leaves(value)
    elif hasattr(tree, "__dataclass_fields__") and not isinstance(tree, type):
        for name in tree.__dataclass_fields__:
            yield from leaves(getattr(tree, name))


def copied(tree: Any, device: torch.device | str | None = None) -> Any:
    """`tree` with every tensor cloned (to `device`, if given), gradients cut, the rest rebuilt or shared."""
    if isinstance(tree, Tensor):
        out = tree.detach().clone() if device is None else tree.detach().to(device, copy=True)
        return out.requires_grad_(tree.requires_grad)
    if isinstance(tree, collections.OrderedDict):
        return collections.OrderedDict((key, copied(value, device)) for key, value in tree.items())
    if isinstance(tree, dict):
        return {key: copied(value, device) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(copied(value, device) for value in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(copied(value, device) for value in tree)
    return tree


# Tensors as bytes ---------------------------------------------------------------------------------------------------


def is_dense(x: Tensor) -> bool:
    """True when the elements of `x` fill its part of the storage without gap or overlap, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return x.numel() > 0


def to_bytes(x: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bits of a strided tensor of any dtype, uint8 (bytes,), in memory order if dense, else in index order."""
    x = x.detach()
    if x.is_conj() or x.is_neg():
        x = x.resolve_conj().resolve_neg()
    flat = x.as_strided((x.numel(),), (1,)) if is_dense(x) else _copyable(x).contiguous().reshape(-1)
    if flat.numel() == 0:
        return np.zeros(0, np.uint8)
    array: np.ndarray[Any, np.dtype[np.uint8]] = flat.cpu().view(torch.uint8).numpy()
    return array


def from_bytes(flat: Tensor, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The tensor whose bits `to_bytes` gave, on top of `flat` (uint8, 1-d), with its shape and strides.

    `flat` should come from torch's allocator: matrix kernels may round otherwise on differently aligned memory.
    Where strides overlapped (an expanded tensor) the result is contiguous.
    """
    flat = flat.view(dtype) if flat.numel() else torch.empty(0, dtype=dtype)
    if flat.numel() == 0 or any(s == 0 and n > 1 for s, n in zip(stride, shape, strict=True)):
        return flat.reshape(shape)
    if is_dense(torch.empty_strided(shape, stride, dtype=torch.uint8, device="meta")):
        return flat.as_strided(shape, stride)
    bits = _copyable(flat.reshape(shape))
    return torch.empty_strided(shape, stride, dtype=bits.dtype).copy_(bits).view(dtype)


def _copyable(x: Tensor) -> Tensor:
    """The same bits: torch cannot copy elements of a byte's parts (int4 and the like)."""
    return x.view(torch.uint8) if x.dtype.itemsize == 1 else x


# Trees as JSON ------------------------------------------------------------------------------------------------------


class TreeWriter:
    """Turns trees into JSON-safe skeletons; `tensors` collects (name, tensor) in order, each shared tensor once."""

    def __init__(self) -> None:
        self.tensors: list[tuple[str, Tensor]] = []
        self._seen: dict[tuple[Any, ...], int] = {}

    def write(self, tree: Any, name: str) -> Any:
        """The skeleton of `tree`; `name` is the path that its tensors get. Raises TreeError for foreign types."""
        if tree is None or isinstance(tree, (bool, str)):
            return tree
        if isinstance(tree, (Tensor, np.ndarray, np.generic)):
            return self._array(tree, name)
        if isinstance(tree, int):
            return int(tree)
        if isinstance(tree, float):
            return float(tree) if math.isfinite(tree) else {"float": struct.pack("<d", tree).hex()}
        if isinstance(tree, torch.dtype):
            return {"dtype": str(tree).removeprefix("torch.")}
        if isinstance(tree, torch.device):
            return {"device": str(tree)}
        return self._container(tree, name)

    def _container(self, tree: Any, name: str) -> Any:
        if isinstance(tree, Mapping):
            kind = {collections.OrderedDict: "ordered", collections.Counter: "counter"}.get(type(tree), "dict")
            items = [[self.write(k, f"{name}/key"), self.write(v, f"{name}/{k}")] for k, v in tree.items()]
            return {kind: items}
        if isinstance(tree, (list, tuple)):
            kind = "list" if isinstance(tree, list) else "tuple"
            return {kind: [self.write(value, f"{name}/{i}") for i, value in enumerate(tree)]}
        raise TreeError(
            f"{name} is a {type(tree).__module__}.{type(tree).__qualname__}; expected dicts, lists, tuples, numbers, "
            "strings and tensors"
        )

    def _array(self, x: Any, name: str) -> Any:
        if not isinstance(x, Tensor):
            return self._numpy(x, name)
        if x.is_quantized:
            raise TreeError(f"{name} is a quantized tensor; expected one with plain numbers")
        if x.is_meta:
            return {"meta": [str(x.dtype).removeprefix("torch."), list(x.shape), list(x.stride())]}
        if x.layout == torch.sparse_coo:
            parts = {"indices": x._indices(), "values": x._values()}
            return {"coo": self._parts(parts, name), "shape": list(x.shape), "coalesced": x.is_coalesced()}
        if x.layout == torch.sparse_csr:
            parts = {"rows": x.crow_indices(), "columns": x.col_indices(), "values": x.values()}
            return {"csr": self._parts(parts, name), "shape": list(x.shape)}
        if x.layout != torch.strided:
            raise TreeError(f"{name} has layout {x.layout}; expected strided, sparse_coo or sparse_csr")
        return {"tensor": self._index(x, name), "grad": x.requires_grad}

    def _numpy(self, x: Any, name: str) -> Any:
        array = np.asarray(x)
        if array.dtype.kind not in "biufc":
            raise TreeError(f"{name} is a NumPy array of {array.dtype}; expected numbers")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        node = {"of": array.dtype.str, "shape": list(array.shape), "scalar": isinstance(x, np.generic)}
        return {"numpy": self._array(torch.from_numpy(flat.copy()), name), **node}

    def _parts(self, parts: Mapping[str, Tensor], name: str) -> list[Any]:
        return [self._array(part, f"{name}/{which}") for which, part in parts.items()]

    def _index(self, x: Tensor, name: str) -> int:
        key = (x.data_ptr(), x.device, x.dtype, tuple(x.shape), tuple(x.stride()), x.is_conj(), x.is_neg())
        if x.numel() == 0 or key not in self._seen:
            self._seen[key] = len(self.tensors)
            self.tensors.append((name, x))  # keeps x alive, so that its address is not given to another tensor
        return self._seen[key]


def read_tree(skeleton: Any, tensors: list[Tensor]) -> Any:
    """The tree that TreeWriter wrote. Raises TreeError for a skeleton that it cannot have written."""
    if skeleton is None or isinstance(skeleton, (bool, str, int, float)):
        return skeleton
    if not isinstance(skeleton, dict) or not skeleton:
        raise TreeError(f"a node is {skeleton!r:.60}; expected a tagged object")
    kind, body = next(iter(skeleton.items()))
    if kind in ("list", "tuple"):
        values = [read_tree(value, tensors) for value in body]
        return values if kind == "list" else tuple(values)
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]({read_tree(k, tensors): read_tree(v, tensors) for k, v in body})
    return _read_leaf(kind, body, skeleton, tensors)


_MAPPINGS: dict[str, Any] = {"dict": dict, "ordered": collections.OrderedDict, "counter": collections.Counter}


def _read_leaf(kind: str, body: Any, node: dict[str, Any], tensors: list[Tensor]) -> Any:
    if kind == "tensor":
        x = tensors[body]
        return x.detach().requires_grad_() if node["grad"] else x
    if kind == "float":
        return struct.unpack("<d", bytes.fromhex(body))[0]
    if kind == "dtype":
        return getattr(torch, body)
    if kind == "device":
        return torch.device(body)
    if kind == "meta":
        dtype, shape, stride = body
        return torch.empty_strided(shape, stride, dtype=getattr(torch, dtype), device="meta")
    if kind == "numpy":
        array = read_tree(body, tensors).numpy().view(np.dtype(node["of"])).reshape(node["shape"]).copy()
        return array[()] if node["scalar"] else array
    parts = [read_tree(part, tensors) for part in body] if kind in ("coo", "csr") else []
    if kind == "coo":
        indices, values = parts
        coalesced = node["coalesced"]
        return torch.sparse_coo_tensor(indices, values, node["shape"], is_coalesced=coalesced, check_invariants=False)
    if kind == "csr":
        rows, columns, values = parts
        return torch.sparse_csr_tensor(rows, columns, values, node["shape"], check_invariants=False)
    raise TreeError(f"a node is of kind {kind!r}; this version does not know it")
