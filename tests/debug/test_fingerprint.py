from __future__ import annotations

import math

import torch
from torch import nn

from brainbrr_debug.fingerprint import digest, fingerprint, gradient_digest, mismatches


def found(model: nn.Module, loss: float = 1.0, norm: float = 2.0) -> dict[str, object]:
    return fingerprint([torch.tensor(loss)], torch.tensor(norm), model.named_parameters())


def model_with_gradients() -> nn.Module:
    model = nn.Linear(3, 2)
    model.weight.grad = torch.arange(6.0).reshape(2, 3)
    return model


def test_a_fingerprint_matches_itself_and_names_what_differs() -> None:
    model = model_with_gradients()
    expected = found(model)
    assert mismatches(expected, found(model)) == []
    assert expected["gradients"]["bias"] is None
    assert mismatches(expected, found(model, loss=1.0000001)) == ["losses was 1, here 1.00000012"]
    assert mismatches(expected, found(model, norm=math.nan)) == ["gradient norm was 2, here nan"]
    model.weight.grad[0, 0] = 1e-30
    assert mismatches(expected, found(model)) == ["gradient of 1 of 2 parameters differs, first weight"]


def test_with_a_tolerance_only_the_pattern_of_gradients_counts() -> None:
    model = model_with_gradients()
    expected = found(model)
    model.weight.grad *= 1.5
    assert mismatches(expected, found(model, loss=1.0000001), tolerance=1e-5) == []
    assert len(mismatches(expected, found(model, loss=1.1), tolerance=1e-5)) == 1
    model.weight.grad[1, 1] = math.nan
    assert len(mismatches(expected, found(model), tolerance=1e-5)) == 1
    assert found(model)["gradients"]["weight"]["nan"] == 1


def test_nan_matches_nan() -> None:
    model = model_with_gradients()
    assert mismatches(found(model, loss=math.nan, norm=math.nan), found(model, loss=math.nan, norm=math.nan)) == []


def test_digests_see_the_sign_of_zero_the_dtype_and_the_shape_but_no_layout() -> None:
    x = torch.randn(4, 6)
    assert digest(x) == digest(x.mT.contiguous().mT)
    assert (
        len({digest(torch.zeros(2)), digest(-torch.zeros(2)), digest(torch.zeros(1, 2)), digest(torch.zeros(1))}) == 4
    )
    assert digest(torch.zeros(2, dtype=torch.int32)) != digest(torch.zeros(2))
    assert gradient_digest({"a": x}) != gradient_digest({"b": x})
