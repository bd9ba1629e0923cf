"""Inside the observed process: what it opens to write, its temporary files, its live tensors, the keys it reads.

Only the standard library, and nothing of the program's own is imported: hooks wait until the program imports torch or
yaml by itself. At exit everything goes into one JSON file in the folder that the environment names.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

FOLDER = "BRAINBRR_SMOKE_FOLDER"
FIRST, LAST = 2, 8
"""The evaluation batches behind which live tensors are counted, of one stretch of evaluation."""

_written: set[str] = set()
_temporary: set[str] = set()
_censuses: list[dict[str, Any]] = []
_documents: list[Recorded] = []


def begin() -> None:
    """Put everything into place. Does nothing where nobody asked."""
    if os.environ.get(FOLDER):
        sys.addaudithook(_audit)
        sys.meta_path.insert(0, _AfterImport({"torch.nn.modules.module": _after_torch, "yaml": _after_yaml}))
        atexit.register(_report, os.getpid())


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool(flags & (os.O_WRONLY | os.O_RDWR))
        if writes and isinstance(path, (str, bytes)):
            _written.add(os.path.abspath(os.fsdecode(path)))
    elif event in ("tempfile.mkstemp", "tempfile.mkdtemp"):
        _temporary.add(os.path.abspath(arguments[0]))
    elif event == "os.rename":  # a file that is written under a temporary name and then moved
        source, target = (os.path.abspath(os.fsdecode(path)) for path in arguments[:2])
        if source in _written:
            _written.add(target)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function behind the import of a module that the program does."""

    def __init__(self, calls: dict[str, Callable[[ModuleType], None]]) -> None:
        self._calls = calls

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The ordinary spec, with a loader that calls back; None for all other modules."""
        call = self._calls.pop(name, None)
        spec = None if call is None else importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_call(module: ModuleType) -> None:
            execute(module)
            assert call is not None
            call(module)

        spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return spec


# Live tensors while evaluating


def _after_torch(module: ModuleType) -> None:
    depth, batches = 0, 0
    series: dict[str, Any] | None = None

    def enter(root: Any, inputs: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(root: Any, inputs: Any, output: Any) -> None:
        nonlocal depth, batches, series
        depth -= 1
        if depth:
            return
        if root.training:
            batches, series = 0, None
            return
        batches += 1
        if FIRST <= batches <= LAST:
            if series is None:
                series = {"module": type(root).__name__, "bytes": [], "output": 0}
                _censuses.append(series)
            series["bytes"].append(_live_bytes())
            series["output"] = _bytes_of(output)

    module.register_module_forward_pre_hook(enter)
    module.register_module_forward_hook(leave, always_call=True)


def _live_bytes() -> int:
    """Of the storages of all tensors that the garbage collector knows, each once."""
    import torch

    storages: dict[int, int] = {}
    for candidate in gc.get_objects():
        if issubclass(type(candidate), torch.Tensor) and candidate.layout is torch.strided:
            with contextlib.suppress(RuntimeError):  # a tensor without storage
                storage = candidate.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _bytes_of(output: Any) -> int:
    from torch.utils._pytree import tree_leaves

    return sum(x.numel() * x.element_size() for x in tree_leaves(output) if hasattr(x, "element_size"))


# Keys of a configuration


class Recorded(dict):  # type: ignore[type-arg]
    """A mapping that remembers which of its keys were asked for, and whether it was handed on as a whole."""

    def __init__(self, values: dict[Any, Any], name: str = "") -> None:
        wrapped = {
            key: Recorded(value, f"{name}{key}.") if type(value) is dict else value for key, value in values.items()
        }
        super().__init__(wrapped)
        self.name, self.read, self.whole = name, set[Any](), False

    def __getitem__(self, key: Any) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """Remember the key."""
        self.read.add(key)
        return super().get(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        """Remember the key."""
        self.read.add(key)
        return super().pop(key, *default)

    def __contains__(self, key: Any) -> bool:
        self.read.add(key)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        self.whole = True
        return super().__iter__()

    def keys(self) -> Any:
        """Handed on."""
        self.whole = True
        return super().keys()

    def items(self) -> Any:
        """Handed on."""
        self.whole = True
        return super().items()

    def values(self) -> Any:
        """Handed on."""
        self.whole = True
        return super().values()

    def copy(self) -> Any:
        """Handed on."""
        self.whole = True
        return super().copy()

    def unread(self) -> Iterator[str]:
        """Keys that nobody asked for, of mappings that were asked for some by name and never handed on."""
        if self.read and not self.whole:
            yield from (f"{self.name}{key}" for key in dict.keys(self) if key not in self.read)
        for value in dict.values(self):
            if isinstance(value, Recorded):
                yield from value.unread()


def _after_yaml(module: ModuleType) -> None:
    for name in ("load", "safe_load", "full_load"):
        setattr(module, name, _recording(getattr(module, name)))


def _recording(load: Callable[..., Any]) -> Callable[..., Any]:
    def recorded(stream: Any, *arguments: Any, **options: Any) -> Any:
        values = load(stream, *arguments, **options)
        if type(values) is not dict:
            return values
        found = Recorded(values)
        found.file = getattr(stream, "name", "")  # type: ignore[attr-defined]
        _documents.append(found)
        return found

    return recorded


def _report(process: int) -> None:
    if os.getpid() != process:  # a forked child has the parent's hooks and books, and not its end
        return
    sizes = {path: os.path.getsize(path) for path in _written if os.path.isfile(path)}
    report = {
        "written": sizes,
        "left": sorted(path for path in _temporary if os.path.exists(path)),
        "censuses": _censuses,
        "documents": [
            {"file": str(getattr(document, "file", "")), "unread": sorted(document.unread())} for document in _documents
        ],
    }
    target = os.path.join(os.environ[FOLDER], f"{process}.json")
    with open(f"{target}.part", "w", encoding="utf-8") as file:
        json.dump(report, file)
    os.replace(f"{target}.part", target)
