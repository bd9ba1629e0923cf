"""A Memento puts everything back into the very same objects."""

from __future__ import annotations

import collections
import copy
import dataclasses
import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from brainbrr_debug.tracing.memento import Memento, storage_key

COUNTER = 0
HISTORY: list[int] = []


class Holder:
    """Something with attributes of all kinds."""

    calls = 0

    def __init__(self) -> None:
        self.number, self.items, self.table = 1, [1, 2], {"a": torch.ones(2)}
        self.queue, self.seen = collections.deque([1], maxlen=3), {1}
        self.nested = (torch.zeros(3), [torch.arange(3.0)])
        self.array, self.generator = np.arange(3.0), torch.Generator().manual_seed(3)
        self.random, self.numpy_random = random.Random(1), np.random.default_rng(1)
        self.counter = itertools.count(5)

    def change(self) -> None:
        global COUNTER
        COUNTER += 1
        HISTORY.append(COUNTER)
        type(self).calls += 1
        self.number += 1
        self.items.append(3)
        self.table["a"].add_(1)
        self.table["b"] = torch.ones(1)
        self.queue.append(2)
        self.seen.add(9)
        self.nested[0].fill_(7)
        self.nested[1][0] = torch.zeros(1)
        self.array += 1
        self.extra = "new"

    def draw(self) -> tuple[float, ...]:
        drawn = torch.rand(1, generator=self.generator).item(), torch.rand(1).item(), random.random()
        return (*drawn, self.random.random(), self.numpy_random.random(), np.random.rand(), float(next(self.counter)))


def test_attributes_containers_globals_and_classes_come_back() -> None:
    holder = Holder()
    before = copy.deepcopy({key: value for key, value in vars(holder).items() if key not in ("generator", "counter")})
    identities = {key: id(value) for key, value in vars(holder).items() if key != "counter"}
    memento = Memento([holder])
    for _ in range(2):
        holder.change()
        memento.restore()
        now = {key: value for key, value in vars(holder).items() if key not in ("generator", "counter")}
        assert now.keys() == before.keys() and now["items"] == before["items"] and now["number"] == 1
        assert torch.equal(now["table"]["a"], torch.ones(2)) and "b" not in now["table"]
        assert torch.equal(now["nested"][0], torch.zeros(3)) and torch.equal(now["nested"][1][0], torch.arange(3.0))
        assert list(now["queue"]) == [1] and now["seen"] == {1} and np.array_equal(now["array"], np.arange(3.0))
        assert {key: id(value) for key, value in vars(holder).items() if key != "counter"} == identities
        assert COUNTER == 0 and HISTORY == [] and Holder.calls == 0


def test_every_random_generator_and_counter_repeats() -> None:
    holder = Holder()
    memento = Memento([holder])
    first = holder.draw()
    holder.draw()
    memento.restore()
    assert holder.draw() == first
    memento.restore()
    assert holder.draw() == first


def test_closures_defaults_and_slots() -> None:
    @dataclasses.dataclass(slots=True)
    class Slotted:
        value: int
        tensor: torch.Tensor

    slotted, scale, state = Slotted(1, torch.ones(2)), 1.0, [0]

    def loss(x: float, memory: list[int] = state) -> float:
        nonlocal scale
        scale *= 2
        memory.append(1)
        slotted.value += 1
        slotted.tensor.mul_(3)
        return scale * x

    memento = Memento([loss])
    loss(1.0)
    memento.restore()
    assert scale == 1.0 and state == [0] and slotted.value == 1 and torch.equal(slotted.tensor, torch.ones(2))


def test_parameters_gradients_views_and_replaced_memory() -> None:
    model = nn.Linear(3, 2)
    weight, view = model.weight, model.weight.detach()[0]
    weight.grad = torch.full_like(weight, 5.0)
    memory, gradient, values = storage_key(weight), weight.grad, weight.detach().clone()
    memento = Memento([model, view])
    with torch.no_grad():
        weight.add_(1)
    weight.data = torch.zeros(2, 3)
    gradient.zero_()
    weight.grad = None
    model.extra = nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    memento.restore()
    assert model.weight is weight and storage_key(weight) == memory and torch.equal(weight, values)
    assert weight.grad is gradient and torch.equal(gradient, torch.full((2, 3), 5.0))
    assert torch.equal(view, values[0]) and not hasattr(model, "extra") and model.bias.requires_grad


def test_optimizer_with_attributes_that_getstate_drops() -> None:
    class Counting(torch.optim.Adam):
        steps = 0
        seen: list[int] = []  # noqa: RUF012 - shared on purpose

        def step(self, closure=None):
            self.steps += 1
            self.seen.append(self.steps)
            return super().step(closure)

    model = nn.Linear(3, 2)
    optimizer = Counting(model.parameters(), foreach=False)
    memento = Memento([optimizer])
    values = model.weight.detach().clone()
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        memento.restore()
        assert optimizer.steps == 0 and not optimizer.state and Counting.seen == []
        assert torch.equal(model.weight, values) and model.weight.grad is None


def test_sparse_resized_and_expanded_tensors() -> None:
    sparse = torch.eye(3).to_sparse()
    small, wide = torch.ones(2), torch.ones(1).expand(5)
    memento = Memento([[sparse, small, wide]])
    sparse._values().mul_(2)
    small.resize_(100).fill_(3)
    wide.untyped_storage().fill_(0)
    memento.restore()
    assert torch.equal(sparse.to_dense(), torch.eye(3)) and torch.equal(small, torch.ones(2))
    assert torch.equal(wide, torch.ones(5))
    assert memento.before(small) is not None and torch.equal(memento.before(small), torch.ones(2))


def test_what_cannot_be_repeated_is_admitted() -> None:
    assert Memento([{"a": iter([1, 2])}]).complete
    assert not Memento([{"a": (n for n in range(3))}]).complete


@pytest.mark.filterwarnings("ignore")
def test_data_sets_are_not_copied(tmp_path) -> None:
    mapped = np.memmap(tmp_path / "data", dtype=np.float32, mode="w+", shape=(4,))
    dataset = torch.utils.data.TensorDataset(torch.ones(4))
    memento = Memento([{"mapped": mapped, "dataset": dataset, "loader": torch.utils.data.DataLoader(dataset)}])
    assert not memento.tensors
