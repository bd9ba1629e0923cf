"""The state of a training program as of one moment,
taken from its objects and put back into the very same objects.,

A deep copy would not do: an optimizer's `__getstate__` drops attributes, closures share state with the model, and
replays must run the user's own objects. So the object graph below the given roots (modules, optimizers, functions with
their closures and globals, containers, generators) is walked; storages are copied, containers and attributes are
remembered by reference, and `restore` puts all of it back in place. Random number generators are part of it.
"""

from __future__ import annotations

import collections
import copy
import functools
import itertools
import random
import sys
import types
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import torch

from brainbrr_debug.subject import Run
from brainbrr_debug.tracing.locations import owner

_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, torch.layout,
    types.ModuleType, types.BuiltinFunctionType, torch.utils.hooks.RemovableHandle,
    torch.nn.parameter.UninitializedTensorMixin,  # type: ignore[attr-defined]  # has no elements yet
    torch.utils.data.Dataset, torch.utils.data.DataLoader,  # read by a step, never changed
)  # fmt: skip
_REBINDABLE = (type(None), bool, int, float, complex, str, tuple, frozenset, torch.Tensor)
_STATELESS_MODULES = frozenset({  # machinery that no training step reads numbers from
    "_io", "_thread", "abc", "asyncio", "concurrent", "enum", "h5py", "importlib", "io", "logging", "multiprocessing",
    "pandas", "pathlib", "polars", "pyarrow", "re", "socket", "sqlite3", "subprocess", "threading", "typing", "weakref",
})  # fmt: skip


def storage_key(tensor: torch.Tensor) -> int:
    """Identity of the memory behind a tensor; 0 when it has none of its own (sparse, wrapper subclass)."""
    if tensor.layout != torch.strided or tensor.is_mkldnn:
        return 0
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:
        return 0


# Iterators can be copied but not set back: where one is held, a copy takes its place.
_OPAQUE = (types.GeneratorType, zip, map, filter, enumerate)
_ITERATORS: tuple[type, ...] = (itertools.count, itertools.cycle, type(iter([])), type(iter(())), type(iter(range(0))))

Path = tuple[Hashable, ...]
Found = Iterator[tuple[Hashable, Any]]  # a step of a path and what lies there


class Memento:
    """The state below `roots` and of all global random number generators, as of its construction.

    `tensors` maps the path by which a tensor was first reached (place among the roots, attribute names, keys) to it.
    `complete` is False when something was met whose state cannot be had (a generator in mid-run).
    """

    def __init__(self, roots: Iterable[object]) -> None:
        self.tensors: dict[Path, torch.Tensor] = {}
        self.complete = True
        self._storages: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[int, object] = {}  # holds what it has seen, so that an id cannot be used again
        with torch.no_grad():
            pending: collections.deque[tuple[Path, Any]] = collections.deque(
                ((n,), root) for n, root in enumerate(roots)
            )
            while pending:
                path, thing = pending.popleft()
                pending.extend(((*path, step), inner) for step, inner in self._take(path, thing))
        self._undo.append(_random_state())

    def restore(self) -> None:
        """Put everything back. May be called any number of times."""
        with torch.no_grad():
            for undo in self._undo:
                undo()
            for storage, content in self._storages.values():
                if storage.nbytes() != content.nbytes():
                    storage.resize_(content.nbytes())
                storage.copy_(content)

    def before(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The elements `tensor` had then, or None if its memory was not part of the state."""
        found = self._storages.get(storage_key(tensor))
        if found is None or found[1].nbytes() != tensor.untyped_storage().nbytes():
            return None
        past = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return past.set_(found[1], tensor.storage_offset(), tensor.size(), tensor.stride())

    def undo_of_changes(self, path: Path) -> Iterator[tuple[int, Callable[[], object]]]:
        """For each memory below `path` that holds other bytes now: its key, and what puts the old ones back."""
        for at, tensor in self.tensors.items():
            key = storage_key(tensor)
            if at[: len(path)] == path and key in self._storages:
                storage, content = self._storages[key]
                if storage.nbytes() == content.nbytes() and not torch.equal(_bytes(storage), _bytes(content)):
                    yield key, functools.partial(storage.copy_, content)

    def _take(self, path: Path, thing: Any) -> Found:
        if isinstance(thing, _ATOMS) or id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, torch.Tensor):
            yield from self._take_tensor(path, thing)
        elif isinstance(thing, (dict, list, set, collections.deque)):
            yield from self._take_container(thing)
        elif isinstance(thing, (tuple, frozenset)):
            yield from enumerate(thing)
        elif isinstance(thing, types.FunctionType):
            yield from self._take_function(thing)
        elif isinstance(thing, types.MethodType):
            yield from (("self", thing.__self__), ("function", thing.__func__))
        elif isinstance(thing, functools.partial):
            yield from (("function", thing.func), ("args", thing.args), ("keywords", thing.keywords))
        elif isinstance(thing, types.CellType):
            yield from self._take_cell(thing)
        elif isinstance(thing, type):
            yield from self._take_class(thing)
        elif isinstance(thing, _OPAQUE):
            self.complete = False
        elif not self._take_generator(thing):
            yield from self._take_object(thing)

    def _take_tensor(self, path: Path, tensor: torch.Tensor) -> Found:
        self.tensors[path] = tensor
        key = storage_key(tensor)
        if key and not tensor.is_meta:
            if key not in self._storages:
                storage = tensor.untyped_storage()
                self._storages[key] = (storage, storage.clone())  # type: ignore[no-untyped-call]
            self._undo.append(functools.partial(_reattach, tensor, tensor.detach(), tensor.requires_grad))
        elif not tensor.is_meta:
            self._undo.append(functools.partial(_overwrite, tensor, tensor.detach().clone()))
        if tensor.is_leaf:
            grad = tensor.grad
            self._undo.append(functools.partial(setattr, tensor, "grad", grad))
            yield "grad", grad
        yield "attributes", tensor.__dict__

    def _take_container(self, thing: Any) -> Found:
        yield "attributes", getattr(thing, "__dict__", None)  # of a subclass
        if isinstance(thing, dict):
            items = list(thing.items())
            self._undo.append(functools.partial(_refill_dict, thing, [(key, _kept(value)) for key, value in items]))
            yield from ((key if isinstance(key, (str, int)) else id(key), value) for key, value in items)
        elif isinstance(thing, set):
            self._undo.append(functools.partial(_refill_set, thing, set(thing)))
            yield from ((id(item), item) for item in list(thing))
        else:
            self._undo.append(functools.partial(_refill_list, thing, [_kept(value) for value in thing]))
            yield from enumerate(list(thing))

    def _take_function(self, function: types.FunctionType) -> Found:
        if owner(function.__code__.co_filename) not in ("user", "generated"):
            return
        yield from enumerate((function.__closure__, function.__defaults__, function.__kwdefaults__, function.__dict__))
        scope = function.__globals__
        for name in _global_names(function.__code__):
            value = scope.get(name)
            if name in scope and not isinstance(value, types.ModuleType):
                if isinstance(value, (*_REBINDABLE, *_ITERATORS)):
                    self._undo.append(functools.partial(_rebind_global, scope, name, _kept(value)))
                yield name, value

    def _take_cell(self, cell: types.CellType) -> Found:
        try:
            content = cell.cell_contents
        except ValueError:  # empty
            return
        self._undo.append(functools.partial(_refill_cell, cell, _kept(content)))
        yield "content", content

    def _take_class(self, kind: type) -> Found:
        for base in kind.__mro__:
            source = getattr(sys.modules.get(base.__module__), "__file__", None)
            if source is None or owner(source) != "user":
                continue
            for name, value in list(vars(base).items()):
                if not name.startswith("__") and isinstance(value, _REBINDABLE):
                    self._undo.append(functools.partial(_rebind_attribute, base, name, value))
                yield name, value.__func__ if isinstance(value, (staticmethod, classmethod)) else value

    def _take_generator(self, thing: Any) -> bool:
        if isinstance(thing, torch.Generator):
            self._undo.append(functools.partial(_seed, thing, thing.get_state()))
        elif isinstance(thing, random.Random):
            self._undo.append(functools.partial(thing.setstate, thing.getstate()))
        elif (numpy := sys.modules.get("numpy")) is None:
            return False
        elif isinstance(thing, numpy.random.RandomState):
            self._undo.append(functools.partial(thing.set_state, thing.get_state()))
        elif isinstance(thing, numpy.random.Generator):
            self._undo.append(functools.partial(setattr, thing.bit_generator, "state", thing.bit_generator.state))
        elif isinstance(thing, numpy.memmap) or (isinstance(thing, numpy.ndarray) and not thing.flags.writeable):
            pass
        elif isinstance(thing, numpy.ndarray):
            self._undo.append(functools.partial(numpy.copyto, thing, thing.copy()))
        else:
            return False
        return True

    def _take_module(self, attributes: dict[str, Any]) -> Found:
        """A module has a dozen tables of hooks, mostly empty: those need no walk."""
        items = list(attributes.items())
        self._undo.append(functools.partial(_refill_dict, attributes, [(key, _kept(value)) for key, value in items]))
        for key, value in items:
            if (
                key.endswith(("hooks", "_with_kwargs", "_always_called", "_set"))
                and not value
                and hasattr(value, "clear")
            ):
                self._undo.append(value.clear)
            else:
                yield key, value

    def _take_object(self, thing: Any) -> Found:
        if type(thing).__module__.partition(".")[0] in _STATELESS_MODULES:
            return
        if isinstance(thing, Run):  # its batches are not drawn from by a step, and may be a whole data set
            yield from enumerate((thing.model, thing.optimizer, thing.loss_fn, thing.step, thing.extra_state))
            return
        yield "class", type(thing)
        if isinstance(thing, torch.jit.ScriptModule):
            yield from enumerate((*thing.parameters(), *thing.buffers()))
        attributes = getattr(thing, "__dict__", None)
        if isinstance(thing, torch.nn.Module) and isinstance(attributes, dict):
            yield from self._take_module(attributes)
        elif isinstance(attributes, dict):
            yield "attributes", attributes
        for base in type(thing).__mro__:
            for name in _slots(base):
                member = base.__dict__.get(name)
                if isinstance(member, types.MemberDescriptorType) and hasattr(thing, name):
                    value = getattr(thing, name)
                    self._undo.append(functools.partial(member.__set__, thing, value))
                    yield name, value


def _seed(generator: torch.Generator, state: torch.Tensor) -> None:
    generator.set_state(state)


def _slots(base: type) -> tuple[str, ...]:
    slots = base.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    inner = [
        name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _global_names(constant)
    ]
    return (*code.co_names, *inner)


def _reattach(tensor: torch.Tensor, alias: torch.Tensor, requires_grad: bool) -> None:
    """Let `tensor` look again at the memory that `alias` looks at (it may have been given other memory)."""
    same = storage_key(tensor) == storage_key(alias) and tensor.storage_offset() == alias.storage_offset()
    if not same or tensor.size() != alias.size() or tensor.stride() != alias.stride() or tensor.dtype != alias.dtype:
        tensor.data = alias
    if tensor.is_leaf and tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)


def _overwrite(tensor: torch.Tensor, content: torch.Tensor) -> None:
    tensor.data = content.clone()


def _kept(value: Any) -> Any:
    """`value` itself, or a copy of an iterator as it is now."""
    return copy.copy(value) if isinstance(value, _ITERATORS) else value


def _refill_cell(cell: types.CellType, content: Any) -> None:
    cell.cell_contents = _kept(content)


def _rebind_global(scope: dict[str, Any], name: str, value: object) -> None:
    if scope.get(name) is not value:
        scope[name] = _kept(value)


def _rebind_attribute(owner_class: type, name: str, value: object) -> None:
    if vars(owner_class).get(name) is not value:
        setattr(owner_class, name, value)


def _refill_dict(thing: dict[Any, Any], items: list[tuple[Any, Any]]) -> None:
    now = list(thing.items())
    if len(now) != len(items) or any(a[0] is not b[0] or a[1] is not b[1] for a, b in zip(now, items, strict=True)):
        thing.clear()
        thing.update((key, _kept(value)) for key, value in items)


def _refill_set(thing: set[Any], items: set[Any]) -> None:
    if thing != items:
        thing.clear()
        thing.update(items)


def _refill_list(thing: Any, items: list[Any]) -> None:
    now = list(thing)
    if len(now) != len(items) or any(a is not b for a, b in zip(now, items, strict=True)):
        thing.clear()
        thing.extend(_kept(value) for value in items)


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _random_state() -> Callable[[], None]:
    """Puts the global generators of torch (every device in use), Python and NumPy back when called."""
    undo: list[Callable[[], None]] = [functools.partial(torch.set_rng_state, torch.get_rng_state())]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        undo.append(functools.partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    undo.append(functools.partial(random.setstate, random.getstate()))
    if (numpy := sys.modules.get("numpy")) is not None:
        undo.append(functools.partial(numpy.random.set_state, numpy.random.get_state()))

    def restore() -> None:
        for one in undo:
            one()

    return restore
