"""What a pickle would call if it were loaded, read from its opcodes: nothing in it is run. Imports no torch."""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

_DATA = re.compile(
    r"collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(bytearray|complex|set)"
    r"|torch\.((cuda\.|sparse\.)*[A-Z]\w*(Storage|Tensor)|Tensor|Size|device|bool|bfloat16)"
    r"|torch\.(q?u?int|float|complex|bits|per_channel_|per_tensor_)\w*"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.nn\.parameter\.Parameter"
    r"|torch\.storage\.(Typed|Untyped)Storage|torch\.serialization\._get_layout"
)
"""What `torch.load(weights_only=True)` builds by itself: tensors, and containers of them."""
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_LARGEST = 256 << 20  # bytes of one pickle: tensors lie outside of it
_STREAMS = 5  # of a file in PyTorch's format before 1.6; what follows them is raw numbers
_MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, EOFError, MemoryError)


class Unreadable(ValueError):
    """A file that holds no pickle, or not a whole one."""


def callables(path: Path) -> tuple[str, ...]:
    """Every "module.name" beyond plain data that loading the file would import, most of them to be called; sorted.

    Raises Unreadable for a file that is torn, or no checkpoint.
    """
    names = {name for stream in _streams(path) for name in _globals(stream)}
    return tuple(sorted(name for name in names if not _DATA.fullmatch(name)))


def _streams(path: Path) -> Iterator[bytes]:
    """The pickles of a file: of an archive its .pkl members, else the file itself."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file.read(_LARGEST)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".pkl")]
            if not members:
                raise Unreadable("an archive without a pickle in it")
            for info in members:
                if info.file_size > _LARGEST:
                    raise Unreadable(f"its member {info.filename} has {info.file_size} bytes")
                yield archive.read(info)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Unreadable(f"a damaged archive: {error}") from error


def _globals(data: bytes) -> Iterator[str]:
    """The names in up to five pickles that follow each other; the first must be whole."""
    position = 0
    for number in range(_STREAMS):
        try:
            names, used = _one(data[position:])
        except _MALFORMED as error:
            if number == 0:
                raise Unreadable(f"no whole pickle: {' '.join(str(error).split()) or type(error).__name__}") from error
            return
        yield from names
        position += used
        if position >= len(data):
            return


def _one(data: bytes) -> tuple[list[str], int]:
    """The names in the first pickle, and its length; "?" for one whose two texts do not stand right before it.

    So written by every pickler; anything else could be meant to show other texts than those that are used.
    """
    names: list[str] = []
    pushed: list[str | None] = [None, None]  # what each operation left on top: a text, or something else
    memo: dict[int, str | None] = {}
    for operation, argument, position in pickletools.genops(data):
        code = operation.name
        if code == "STOP":
            return names, (position or 0) + 1
        if code in ("GLOBAL", "INST"):
            names.append(str(argument).replace(" ", "."))
        elif code == "STACK_GLOBAL":
            module, name = pushed[-2:]
            names.append("?" if module is None or name is None else f"{module}.{name}")
        elif code.startswith("EXT"):
            names.append(f"copyreg extension {argument}")
        if code in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            memo[len(memo) if argument is None else int(argument)] = pushed[-1]
        elif code in ("BINGET", "LONG_BINGET", "GET"):
            pushed.append(memo.get(int(argument or 0)))
        else:
            pushed.append(argument if isinstance(argument, str) and code in _TEXTS else None)
    raise ValueError("it ends before its end")
