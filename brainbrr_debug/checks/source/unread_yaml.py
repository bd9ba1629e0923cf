"""`config.unread`, over YAML: keys of configuration files that stand nowhere in the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

import yaml

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import PythonFile, Source, TextFile
from brainbrr_debug.checks.source.unread import ID
from brainbrr_debug.records import Finding, Severity

_CONFIGS = re.compile(
    r"(^|/)(configs?|conf|cfgs?|hparams|experiments?)/.*\.ya?ml$|(^|/)(config|train\w*|default\w*|hparams)\.ya?ml$"
)
_OTHERS = re.compile(
    r"(^|/)(\.github|docs?|deploy\w*|k8s|helm|docker|charts?|workflows?|tests?)/|mkdocs|compose|environment"
)
_INTERPOLATION = re.compile(r"\$\{([^}]*)\}")
_WORD_AT_START = re.compile(r"(?m)^[ \t'\"{?]*([A-Za-z_]\w*)")
_READS_YAML = re.compile(r"(^|\.)(yaml\.(\w*load\w*|compose\w*)|ruamel\.yaml\.YAML|YAML|OmegaConf\.load)$")
_BUILT = re.compile(r"defaults|hydra|class_path|includes|_\w+_")
_TAG = re.compile(r"(?m)^[^#\n]*[:,\[{-]\s*!\w")
"""A file with one of these keys, or with tags of its own (`!ref`, `!new:`), is put together by somebody else."""


def unread_keys(source: Source) -> Iterable[Finding]:
    """Keys at the top of a configuration file that no identifier, attribute or string of the program spells.

    Deeper mappings are often handed whole to a library that reads them; files that Hydra composes, and files of which
    most keys are unknown, belong to another program, and so do all of them where the program reads no YAML.
    """
    if not any(_reads_yaml(file) for file in source.core):
        return
    spoken = _words(source) | _interpolated(source)
    for file in source.texts:
        if not _CONFIGS.search(file.path) or _OTHERS.search(file.path) or "${" in file.text or _TAG.search(file.text):
            continue
        if spoken.issuperset(_WORD_AT_START.findall(file.text)):
            continue  # none of its keys can be unknown: most files need no parsing
        try:
            top = yaml.compose(file.text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError, ValueError):
            continue  # templates and other dialects: config.* checks speak of files that cannot be read
        keys = _keys(top)
        unknown = {name: line for name, line in keys.items() if name not in spoken}
        if not any(map(_BUILT.fullmatch, keys)) and len(unknown) <= 0.3 * len(keys):
            for name, line in unknown.items():
                yield _finding(file, name, line)


def _reads_yaml(file: PythonFile) -> bool:
    """Whether it reads YAML itself: where nothing does, a library reads the files, and may read any key."""
    return ("yaml" in file.text or "OmegaConf" in file.text) and any(
        _READS_YAML.search(file.name(call.func)) for call in file.of(ast.Call)
    )


def _words(source: Source) -> set[str]:
    """Every word that the program spells."""
    spoken: set[str] = set()
    strings: set[str] = set()
    for file in source.python:
        spoken.update([node.id for node in file.of(ast.Name)])
        spoken.update([node.attr for node in file.of(ast.Attribute)])
        spoken.update([node.arg for node in file.of(ast.arg)])
        spoken.update([node.arg for node in file.of(ast.keyword) if node.arg])
        strings |= {v for node in file.of(ast.Constant) if isinstance(v := node.value, str) and len(v) < 200}
    spoken.update(re.findall(r"\w+", " ".join(strings)))
    return spoken


def _interpolated(source: Source) -> set[str]:
    """Every word that some file asks another for: `${cluster.workers}`."""
    asked = [part for file in source.texts if "${" in file.text for part in _INTERPOLATION.findall(file.text)]
    return set(re.findall(r"\w+", " ".join(asked)))


def _keys(node: yaml.Node | None) -> dict[str, int]:
    """The keys at the top of a document that could be names in a program, with their lines."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {
        str(key.value): key.start_mark.line + 1
        for key, _ in pairs
        if key.start_mark is not None and re.fullmatch(r"[A-Za-z_]\w*", str(key.value))
    }


def _finding(file: TextFile, name: str, line: int) -> Finding:
    return found(
        ID,
        Severity.P2,
        file.path,
        line,
        f"{name} is set, and nothing in the program spells it",
        why="whoever sets it believes that it does something",
        remedy=f"remove {name}, or read it where it belongs",
    )
