"""The table of planted faults and healthy controls: what each is, and what a diagnosis of it has to say.

Every entry is a builder of a small training program, reduced from a kind of public report (`like`). The line in which
the failure is born carries the comment `# born`; a fault without one is born in a line that is not the user's.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import torch


@dataclasses.dataclass
class Program:
    model: Any
    batches: Any
    loss_fn: Callable[[Any, Any], torch.Tensor]
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    build: Callable[[], Program]
    step: int
    phase: str
    module: str
    op: str
    node: str | None
    kind: str | None
    mechanism: str
    location: str | None
    proof: str
    like: str


@dataclasses.dataclass(frozen=True)
class Control:
    name: str
    build: Callable[[], Program]


FAULTS: list[Fault] = []
CONTROLS: list[Control] = []


def fault(
    phase: str, module: str, op: str, mechanism: str, *, step: int = 0, node: str | None = None,
    kind: str | None = None, proof: str = "healed", like: str = "", line: str | None = None,
) -> Callable[[Callable[[], Program]], Callable[[], Program]]:  # fmt: skip
    def register(build: Callable[[], Program]) -> Callable[[], Program]:
        FAULTS.append(
            Fault(
                name=build.__name__,
                build=build,
                step=step,
                phase=phase,
                module=module,
                op=op,
                node=node,
                kind=kind,
                mechanism=mechanism,
                location=line or _marked_line(build),
                proof=proof,
                like=like,
            )
        )
        return build

    return register


def control(build: Callable[[], Program]) -> Callable[[], Program]:
    CONTROLS.append(Control(name=build.__name__, build=build))
    return build


def _marked_line(build: Callable[[], Program]) -> str | None:
    lines, first = inspect.getsourcelines(build)
    marked = [first + offset for offset, line in enumerate(lines) if line.rstrip().endswith("# born")]
    assert len(marked) <= 1, f"{build.__name__}: more than one line is marked"
    return f"{inspect.getsourcefile(build)}:{marked[0]}" if marked else None


def vectors(
    steps: int, *shape: int, target: tuple[int, ...] = ()
) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    """`steps` batches of one normal input of `shape` and a normal target."""
    return [((torch.randn(*shape),), torch.randn(*(target or (shape[0],)))) for _ in range(steps)]


def mse(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean()


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-2)


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)
