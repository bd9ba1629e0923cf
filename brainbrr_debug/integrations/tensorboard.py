"""A run directory for TensorBoard: readings as scalars, findings and verdicts as text. Imports no torch.

Written from what the run left, so that any PyTorch program under watch has it; the same bytes for the same run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brainbrr_debug.errors import UsageError
from brainbrr_debug.records import Finding, number
from brainbrr_debug.report.headline import headline
from brainbrr_debug.report.material import read_verdict
from brainbrr_debug.rundir import RunDir, atomic_path

FOLDER = "tensorboard/watch"
FILE = "events.out.tfevents.readings"
FINDINGS = 200
"""So many are written; the text of more is nothing that anybody reads there."""


def installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("tensorboard") is not None


def log_run(run: RunDir) -> Path:
    """Write the event file of a run, in place of the one that was there; returns its path.

    Raises UsageError where TensorBoard is not installed, RunDirError for a verdict that cannot be read.
    """
    if not installed():
        raise UsageError("TensorBoard is not installed; pip install 'brainbrr[tensorboard]'")
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = run.path / FOLDER / FILE
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        for event in _events(run):
            writer.write(event.SerializeToString())
        writer.flush()
    return path


def _events(run: RunDir) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    yield Event(wall_time=0.0, file_version="brain.Event:2")
    last = 0.0
    for step, last, values in run.lines("readings.jsonl", _scalars).items:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
        yield Event(wall_time=last, step=step, summary=summary)
    for finding in run.findings().items[:FINDINGS]:
        yield Event(wall_time=last, step=finding.step or 0, summary=_text(f"finding/{finding.check}", _told(finding)))
    for place, verdict in enumerate(map(read_verdict, run.list_verdicts())):
        summary = _text(f"verdict/{place}", f"{headline(verdict)}\n\n{verdict['sentence']}")
        yield Event(wall_time=last, step=verdict["step"] or 0, summary=summary)


def _scalars(line: Mapping[str, Any]) -> tuple[int, float, list[tuple[str, float]]]:
    """Step, time and values of one line of readings."""
    rows = [(phase, site, quantity, number(value)) for phase, site, quantity, value, *_ in line["readings"]]
    values = [(f"{quantity}/{phase}/{site or 'model'}", value) for phase, site, quantity, value in rows]
    return int(line["step"]), float(line["time"]), values


def _told(finding: Finding) -> str:
    parts = [f"{finding.severity.name} {finding.message}", finding.why, finding.remedy]
    return "\n\n".join(part for part in parts if part)


def _text(tag: str, words: str) -> Any:
    """A text summary: a tensor of one string. It is shown as Markdown, so a code block keeps names as they are."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    block = "\n".join(f"    {line}" for line in words.splitlines())
    tensor = TensorProto(
        dtype="DT_STRING",
        string_val=[block.encode("utf-8", "backslashreplace")],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary(value=[Summary.Value(tag=tag, metadata=kind, tensor=tensor)])
