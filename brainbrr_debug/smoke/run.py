"""Runs the command with the observer on its path, and gathers what its processes reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

from brainbrr_debug.errors import UsageError
from brainbrr_debug.facts import Growing, SmokeFacts
from brainbrr_debug.smoke.observer import FOLDER

SITE = Path(__file__).parent / "site"
_TAIL = 300  # characters of the command's last words


def observe(command: str, *, limit_s: float) -> SmokeFacts:
    """Run `command` in a shell, here, with the observer in each Python process that it starts.

    Raises UsageError for a command that no Python process came of, or that runs longer than `limit_s`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, FOLDER: folder, "PYTHONPATH": path}
        process = subprocess.Popen(
            command,
            shell=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise UsageError(
                f"--smoke: still running after {limit_s:g} s; expected a short command: fewer steps, or a higher "
                "limit_s of memory.eval_growth in the checklist"
            ) from error
        reports = [json.loads(each.read_text(encoding="utf-8")) for each in sorted(Path(folder).glob("*.json"))]
    if not reports:
        raise UsageError(f"--smoke: no Python process of {command!r} could be observed: {said[-_TAIL:].strip()}")
    return SmokeFacts(
        command=command,
        code=process.returncode,
        said=said[-_TAIL:].strip(),
        here=Path.cwd(),
        written={Path(path): size for report in reports for path, size in report["written"].items()},
        left=tuple(Path(path) for report in reports for path in report["left"] if Path(path).exists()),
        growing=tuple(
            Growing(module=each["module"], live=tuple(each["bytes"]), output=each["output"])
            for report in reports
            for each in report["censuses"]
        ),
        unread=tuple(
            (document["file"], key)
            for report in reports
            for document in report["documents"]
            for key in document["unread"]
        ),
    )
