from __future__ import annotations

import collections
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.tensors import TreeError, TreeWriter, copied, from_bytes, leaves, read_tree, to_bytes

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

ALL_DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
    torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64,
    torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu, torch.float4_e2m1fn_x2, torch.int2, torch.int4, torch.uint1, torch.uint4, torch.uint7,
]  # fmt: skip


def through(tree: Any) -> Any:
    writer = TreeWriter()
    skeleton = writer.write(tree, "tree")
    tensors = [
        from_bytes(torch.from_numpy(to_bytes(x).copy()), x.dtype, tuple(x.shape), tuple(x.stride()))
        for _, x in writer.tensors
    ]
    return read_tree(skeleton, tensors)


@settings(max_examples=80)
@given(st.sampled_from(ALL_DTYPES), st.lists(st.integers(0, 3), max_size=3), st.binary(min_size=512, max_size=512))
def test_every_dtype_keeps_every_bit(dtype: torch.dtype, shape: list[int], noise: bytes) -> None:
    count = math.prod(shape)
    data = bytearray(noise[: count * dtype.itemsize])
    if dtype == torch.bool:
        data = bytearray(b & 1 for b in data)
    raw = torch.frombuffer(data, dtype=torch.uint8).clone() if data else torch.zeros(0, dtype=torch.uint8)
    x = from_bytes(raw, dtype, tuple(shape), torch.empty(shape).stride())
    back = through(x)
    assert back.dtype == dtype and back.shape == x.shape
    assert to_bytes(back).tobytes() == bytes(data)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_every_dtype_keeps_gaps_and_order_in_memory(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    count = 6 * dtype.itemsize
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8, generator=generator)
    x = from_bytes(raw, dtype, (3, 2), (2, 1))
    for view in (x.as_strided((2, 3), (1, 2)), x.as_strided((3,), (2,)), x.as_strided((2, 2), (4, 1))):
        back = through(view)
        assert back.dtype == dtype and back.stride() == view.stride()
        assert to_bytes(back).tobytes() == to_bytes(view).tobytes()


def test_payloads_of_nan_survive() -> None:
    bits = torch.tensor([0x7FC0BEEF, 0xFFC00001 - 2**32, 0x7F800001], dtype=torch.int64).to(torch.int32)
    back = through(bits.view(torch.float32))
    assert torch.equal(back.view(torch.int32), bits)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(4, 3).mT,
        torch.randn(4, 6)[:, ::2],
        torch.randn(3, 1, 2).permute(2, 1, 0),
    ],
)
def test_the_layout_in_memory_survives(x: torch.Tensor) -> None:
    back = through(x)
    assert back.stride() == x.stride() and torch.equal(back, x)


def test_overlapping_and_lazily_conjugated_tensors_keep_their_values() -> None:
    x = torch.randn(3, 1).expand(3, 4)
    assert torch.equal(through(x), x)
    z = torch.randn(3, dtype=torch.complex64).conj()
    assert torch.equal(through(z), z.resolve_conj())


def test_trees_keep_types_and_keys() -> None:
    tree = {
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "foreach": None, "params": [0, 1]}],
        0: collections.OrderedDict(a=torch.ones(2), b=math.inf),
        (1, "x"): collections.Counter({5: 2}),
        "numbers": [2**70, -0.0, True, "µV", torch.bfloat16, torch.device("cpu")],
        "numpy": (np.float32(1.5), np.arange(6).reshape(2, 3), np.bool_(True)),
    }
    back = through(tree)
    assert list(back) == list(tree)
    assert back["param_groups"] == tree["param_groups"]
    assert type(back[0]) is collections.OrderedDict and torch.equal(back[0]["a"], torch.ones(2))
    assert back[0]["b"] == math.inf
    assert back[(1, "x")] == tree[(1, "x")] and type(back[(1, "x")]) is collections.Counter
    assert back["numbers"] == tree["numbers"] and math.copysign(1, back["numbers"][1]) == -1
    assert isinstance(back["numpy"][0], np.float32) and np.array_equal(back["numpy"][1], tree["numpy"][1])


def test_a_float_that_is_nan_keeps_its_bits() -> None:
    nan = np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\xff", np.float64)[0].item()
    assert np.float64(through([nan])[0]).tobytes() == b"\x01\x00\x00\x00\x00\x00\xf8\xff"


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_tensors_survive() -> None:
    x = torch.sparse_coo_tensor(torch.tensor([[0, 0]]), torch.tensor([1.0, 2.0]), (3,), check_invariants=True)
    assert not through(x).is_coalesced() and torch.equal(through(x).to_dense(), x.to_dense())
    csr = torch.sparse_compressed_tensor(
        torch.tensor([0, 1, 2]),
        torch.tensor([1, 0]),
        torch.tensor([3.0, 4.0]),
        (2, 2),
        layout=torch.sparse_csr,
        check_invariants=True,
    )
    assert torch.equal(through(csr).to_dense(), csr.to_dense())


def test_a_shared_tensor_is_stored_once() -> None:
    x = torch.randn(3)
    writer = TreeWriter()
    writer.write({"a": x, "b": x, "c": x[:2]}, "tree")
    assert [name for name, _ in writer.tensors] == ["tree/a", "tree/c"]


def test_what_requires_a_gradient_does_so_again() -> None:
    assert through(torch.ones(2, requires_grad=True)).requires_grad


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_foreign_types_are_named_with_their_place() -> None:
    with pytest.raises(TreeError, match=r"batch/1/x is a builtins\.object; expected dicts, lists"):
        TreeWriter().write([0, {"x": object()}], "batch")
    with pytest.raises(TreeError, match=r"batch is a NumPy array of object; expected numbers"):
        TreeWriter().write(np.array([None]), "batch")
    with pytest.raises(TreeError, match="batch is a quantized tensor"):
        TreeWriter().write(torch._empty_affine_quantized(2, scale=1.0, zero_point=0, dtype=torch.qint8), "batch")


def test_of_a_tensor_without_storage_the_shape_survives() -> None:
    x = torch.empty_strided((2, 3), (1, 2), dtype=torch.bfloat16, device="meta")
    back = through({"x": [x]})["x"][0]
    assert back.is_meta and (back.shape, back.stride(), back.dtype) == (x.shape, x.stride(), x.dtype)


def test_a_skeleton_of_unknown_form_is_refused() -> None:
    with pytest.raises(TreeError, match="kind 'pickle'; this version does not know it"):
        read_tree({"pickle": "…"}, [])


def test_leaves_and_copies_reach_into_every_container() -> None:
    class Pair(NamedTuple):
        a: torch.Tensor
        b: int

    x = torch.ones(2)
    tree = {"a": [x, (x, {"b": x})], "c": 1, "d": Pair(x, 2)}
    assert len(list(leaves(tree))) == 4
    copy = copied(tree)
    copy["a"][0].zero_()
    assert x.sum() == 2 and isinstance(copy["d"], Pair) and copy["c"] == 1
