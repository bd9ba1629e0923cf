"""What we name on the planted faults, and what anomaly mode and the Transformers debugger name on them.

    python -m tests.benchmarks.named_by_peers

prints a table in Markdown. An answer is exact when operation and line (where the fault has one in the user's code) are
right, for the Transformers debugger, which knows modules only, when the module is. A false alarm is any answer about a
healthy control. The Transformers debugger is measured when `transformers` can be imported.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import io
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator

import torch

from brainbrr_debug.origin import diagnose
from tests.faults import CONTROLS, FAULTS, Control, Fault, Program

Answer = tuple[bool, bool]  # named anything, named exactly
REPLAYS: list[int] = []  # of every fault that we named
OWN = (RuntimeError, ValueError, ArithmeticError, IndexError)  # what the programs raise on what they were fed


def ours(entry: Fault | Control) -> Answer:
    program = _build(entry)
    origin = diagnose(program.model, program.batches, program.loss_fn, program.optimizer)
    if isinstance(entry, Control) or origin.healthy:
        return not origin.healthy, False
    REPLAYS.append(origin.replays or 0)
    named = (origin.phase, origin.module, origin.op, origin.step, origin.location)
    kind, node = entry.kind or origin.kind, entry.node or origin.node
    wanted = (entry.phase, entry.module, entry.op, entry.step, entry.location)
    return True, named == wanted and (origin.kind, origin.node) == (kind, node)


def anomaly_mode(entry: Fault | Control) -> Answer:
    program = _build(entry)
    with warnings.catch_warnings(record=True) as caught, torch.autograd.detect_anomaly():
        warnings.simplefilter("always")
        try:
            for _ in _steps(program):
                pass
        except OWN as error:
            found = re.search(r"Function '(\w+?)Backward\d*' returned nan", str(error))
            if found is None or isinstance(entry, Control):
                return found is not None, False
            forward = "\n".join(str(warning.message) for warning in caught)
            return True, _same(found[1], entry.op) and _mentions(forward, entry.location)
    return False, False


def transformers_debugger(entry: Fault | Control) -> Answer:
    from transformers.debug_utils import DebugUnderflowOverflow

    program = _build(entry)
    if not isinstance(program.model, torch.nn.Module):
        return False, False
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")
        DebugUnderflowOverflow(program.model)
        try:
            for _ in _steps(program):
                pass
        except OWN as error:
            if "DebugUnderflowOverflow" not in str(error):
                return False, False
            frames = re.findall(r"^ {17} (\S*) \w+$", printed.getvalue(), flags=re.MULTILINE)
            module = frames[-1] if frames else ""
            return True, isinstance(entry, Fault) and module == entry.module
    return False, False


def _build(entry: Fault | Control) -> Program:
    torch.manual_seed(0)
    return entry.build()


def _steps(program: Program) -> Iterator[torch.Tensor]:
    for inputs, target in program.batches:
        program.optimizer.zero_grad()
        loss = program.loss_fn(program.model(*inputs), target)
        loss.backward()
        program.optimizer.step()
        yield loss


def _same(node: str, op: str) -> bool:
    return node.lower() == op.rpartition("::")[2].replace("_", "").lower()


def _mentions(traceback: str, location: str | None) -> bool:
    if location is None:
        return True
    file, _, line = location.rpartition(":")
    return f'File "{file}", line {line}' in traceback


def main() -> None:
    tools: dict[str, Callable[[Fault | Control], Answer]] = {"brainbrr_debug": ours, "anomaly mode": anomaly_mode}
    if importlib.util.find_spec("transformers") is not None:
        tools["Transformers debugger (modules)"] = transformers_debugger
    phases = ["data", "forward", "backward", "optimizer"]
    print("| tool | " + " | ".join(phases) + " | all | false alarms | s | slowest, s |")
    print("|---|" + "---|" * (len(phases) + 4))
    counts = collections.Counter(fault.phase for fault in FAULTS)
    for name, tool in tools.items():
        begun = time.perf_counter()
        exact: collections.Counter[str] = collections.Counter()
        slowest = 0.0
        for fault in FAULTS:
            started = time.perf_counter()
            exact[fault.phase] += tool(fault)[1]
            slowest = max(slowest, time.perf_counter() - started)
        alarms = sum(tool(control)[0] for control in CONTROLS)
        row = [f"{exact[phase]}/{counts[phase]}" for phase in phases]
        row += [f"{exact.total()}/{len(FAULTS)}", f"{alarms}/{len(CONTROLS)}", f"{time.perf_counter() - begun:.0f}"]
        row.append(f"{slowest:.1f}")
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)
    print(f"\n{statistics.median(REPLAYS):g} replays a fault (median), {max(REPLAYS)} at most")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):  # no tool can look into a compiled region
        main()
