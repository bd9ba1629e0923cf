"""Where an operation was called: module by qualified name, line of user code, custom autograd Function.

Read off the Python stack, so that nothing has to be hooked or patched, `module.forward(…)` called directly counts,
and a module that is called again during a recomputation is found in the same way.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import sysconfig
import types
from functools import lru_cache
from typing import Literal

import torch

Owner = Literal["user", "torch", "library", "own", "generated"]

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_STDLIB = tuple({os.path.abspath(sysconfig.get_paths()[key]) + os.sep for key in ("stdlib", "platstdlib")})
_FUNCTION_FILE = os.path.join(_TORCH, "autograd", "function.py")
_CHECKPOINT_FILE = os.path.join(_TORCH, "utils", "checkpoint.py")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an operation was called.

    `module` is None when no named module was running; `function` is the class name of the custom autograd Function
    that ran the operation, if one did (then `location` is its `.apply` line). `stepping`: an optimizer's step runs.
    Inside a backward pass, `in_engine` says that user code or a module was entered from it, `recomputed` that this was
    a forward pass run once more.
    """

    module: str | None
    location: str | None
    function: str | None = None
    stepping: bool = False
    in_engine: bool = False
    recomputed: bool = False


def within_function(engine: types.CodeType) -> bool:
    """Whether the innermost run of the engine on the stack was started by the backward of a custom Function."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not engine:
        frame = frame.f_back
    while frame is not None and (frame := frame.f_back) is not None and frame.f_code is not engine:
        code = frame.f_code
        if code.co_name.startswith("apply") and code.co_filename == _FUNCTION_FILE and "self" in frame.f_locals:
            return True
    return False


@lru_cache(maxsize=4096)
def owner(filename: str) -> Owner:
    """Whose code a file is: the user's, torch's, another library's, this package's, or generated at run time."""
    if filename.startswith("<"):
        return "generated"
    path = os.path.abspath(filename)
    if path.startswith(_OWN):
        return "own"
    if path.startswith(_TORCH):
        return "torch"
    parts = path.split(os.sep)
    if "site-packages" in parts or "dist-packages" in parts or path.startswith(_STDLIB):
        return "library"
    return "user"


class Locator:
    """Finds the place of the running operation by walking the stack outwards to one of the `boundaries`.

    `boundaries` are the code objects that start a step; `engine` is the one that runs a backward pass.
    """

    def __init__(self, model: object, *, boundaries: frozenset[types.CodeType], engine: types.CodeType) -> None:
        self._names: dict[int, str] = {}
        self._owners: dict[int, str] = {}
        if isinstance(model, torch.nn.Module):
            self._names = {id(module): name for name, module in model.named_modules()}
            self._owners = {id(p): name.rpartition(".")[0] for name, p in model.named_parameters()}
        self._boundaries = boundaries
        self._engine = engine

    def place(self) -> Place:
        """The place of the innermost operation on the caller's stack."""
        found = _Walk()
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code not in self._boundaries:
            if frame.f_code is self._engine:
                found.leave_engine()
            else:
                self._look(frame, found)
            frame = frame.f_back
        if frame is None:  # a thread of the autograd engine: its stack begins inside a backward pass
            found.leave_engine()
        return found.place()

    def owner_of(self, parameter: torch.Tensor) -> str:
        """Qualified name of the module that holds a parameter; "" when none does."""
        return self._owners.get(id(parameter), "")

    def _look(self, frame: types.FrameType, found: _Walk) -> None:
        code = frame.f_code
        whose = owner(code.co_filename)
        if code.co_name == "step" and isinstance(frame.f_locals.get("self"), torch.optim.Optimizer):
            found.stepping = True
        if found.module is None and code.co_name in ("forward", "_call_impl"):
            found.module = self._module_of(frame)
        if code.co_name == "apply" and code.co_filename == _FUNCTION_FILE and not found.left_engine:
            function = frame.f_locals.get("cls")
            if isinstance(function, type) and not function.__module__.startswith("torch."):
                found.enter_function(function.__name__)
        if whose == "user" and found.location is None:
            found.location = f"{code.co_filename}:{frame.f_lineno}"
        elif whose == "generated" and found.generated is None:
            found.generated = f"{code.co_filename}:{frame.f_lineno}"
        elif code.co_filename == _CHECKPOINT_FILE and not found.left_engine:
            found.checkpoint = True

    def _module_of(self, frame: types.FrameType) -> str | None:
        code = frame.f_code
        if not code.co_argcount:
            return None
        return self._names.get(id(frame.f_locals.get(code.co_varnames[0])))


class _Walk:
    """What a walk outwards along the stack has met so far."""

    def __init__(self) -> None:
        self.module: str | None = None
        self.location: str | None = None
        self.generated: str | None = None
        self.function: str | None = None
        self.checkpoint = False
        self.stepping = False
        self.left_engine = False
        self.in_engine = False
        self.recomputed = False

    def enter_function(self, name: str) -> None:
        self.function = name  # the outermost one stays: its node is the one in the autograd graph
        self.location = self.generated = None

    def leave_engine(self) -> None:
        if not self.left_engine:
            self.left_engine = True
            self.recomputed = self.checkpoint or self.module is not None
            self.in_engine = self.recomputed or self.location is not None

    def place(self) -> Place:
        return Place(
            module=self.module,
            location=self.location or self.generated,
            function=self.function,
            stepping=self.stepping,
            in_engine=self.in_engine,
            recomputed=self.recomputed,
        )
