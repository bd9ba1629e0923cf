"""Bad data that arrives in carriers of every kind: objects, expanded, packed and frozen tensors, arrays, numbers."""

from __future__ import annotations

import collections
import dataclasses
import types

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from tests.faults.table import Program, adamw, fault, mse, sgd

NAN = float("nan")


def hole(*shape: int) -> torch.Tensor:
    """Normal numbers with one NaN."""
    x = torch.randn(*shape)
    x.view(-1)[1] = NAN
    return x


class Reads(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.fc, self.read = nn.Linear(2, 1), read

    def forward(self, batch):
        return self.fc(self.read(batch))


@fault("data", "<input>", "data", "bad-input", kind="nan", step=1, like="batches of numpy arrays")
def batches_of_numpy_arrays() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x):
            return self.fc(torch.as_tensor(x, dtype=torch.float32)).squeeze(-1)

    rows = np.random.default_rng(0).normal(size=(2, 4, 2))
    rows[1, 2, 0] = np.nan
    model = Net()
    return Program(model, [((row,), torch.randn(4)) for row in rows], mse, adamw(model))


@fault("data", "<input>", "data", "bad-input", kind="inf", like="a weight that is a Python number")
def weight_that_is_a_python_number() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x, importance):
            return self.fc(x).squeeze(-1) * importance

    model = Net()
    return Program(model, [((torch.randn(3, 2), float("inf")), torch.randn(3))], mse, adamw(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", like="a packed sequence with a hole")
def packed_sequence_with_a_hole() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.fc = nn.GRU(2, 3), nn.Linear(3, 1)

        def forward(self, packed):
            _, h = self.gru(packed)
            return self.fc(h[-1]).squeeze(-1)

    hole = torch.randn(4, 2)
    hole[1, 1] = float("nan")
    model = Net()
    return Program(model, [((pack_sequence([hole, torch.randn(2, 2)]),), torch.randn(2))], mse, sgd(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", step=1, like="a batch that is a dataclass")
def dataclass_with_a_hole() -> Program:
    @dataclasses.dataclass
    class Sample:
        features: torch.Tensor
        weight: float = 1.0

    model = Reads(lambda sample: sample.features * sample.weight)
    return Program(model, [((Sample(x),), torch.randn(4, 1)) for x in (torch.randn(4, 2), hole(4, 2))], mse, sgd(model))


@fault("data", "<target>", "data", "bad-target", kind="nan", like="pyg-team/pytorch_geometric: a graph object")
def graph_object_with_a_bad_label() -> Program:
    graph = types.SimpleNamespace(x=torch.randn(4, 2), y=hole(4, 1), name="g")
    model = Reads(lambda g: g.x)
    return Program(model, [((graph,), graph)], lambda o, g: mse(o, g.y), adamw(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", like="huggingface/transformers: a BatchEncoding")
def user_dictionary_with_a_hole() -> Program:
    model = Reads(lambda batch: batch["x"])
    return Program(model, [((collections.UserDict(x=hole(4, 2)),), torch.randn(4, 1))], mse, sgd(model))


@fault("data", "<target>", "data", "bad-target", kind="inf", like="one label for all, expanded")
def expanded_label() -> Program:
    model = nn.Linear(2, 1)
    label = torch.tensor(float("inf")).expand(4, 1)
    return Program(model, [((torch.randn(4, 2),), label)], nn.L1Loss(), sgd(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", like="features computed under inference mode")
def features_made_under_inference_mode() -> Program:
    with torch.inference_mode():
        features = hole(4, 2) * 1.0
    model = Reads(torch.clone)
    return Program(model, [((features,), torch.randn(4, 1))], mse, adamw(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", like="a sparse adjacency with a bad weight")
def sparse_matrix_with_a_hole() -> Program:
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 2))

        def forward(self, adjacency):
            return torch.sparse.mm(adjacency, self.w)

    model = Graph()
    adjacency = torch.tensor([[1.0, 0.0, NAN], [0.0, 2.0, 0.0]]).to_sparse()
    return Program(model, [((adjacency,), torch.randn(2, 2))], mse, sgd(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", step=1, like="an autoencoder's input is its target")
def input_that_is_its_own_target() -> Program:
    model = nn.Sequential(nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 2))
    return Program(model, [((x,), x) for x in (torch.randn(4, 2), hole(4, 2))], mse, adamw(model))
