"""The process that every trial is forked from: it has imported torch and the subject, read the capture, and computes
nothing, because a process that has computed (threads, a GPU) cannot be forked safely.

    Forkserver ──a socket a job──▶ the process ──forks──▶ a guardian ──forks──▶ the trial

The guardian waits for the trial's answer, for its end and for the clock, so that a crash, a hang and a kill for want of
memory are answers. When the one who asked is gone, it ends the trial; when the Forkserver is gone, the process ends.
All of them are in a session of their own, which `close` kills, and which Ctrl-C in a terminal does not reach.

A subject whose import alone sets up a GPU cannot be forked; its trials start from nothing instead, slowly.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from brainbrr_debug.capture import CaptureContent, read_capture
from brainbrr_debug.jobs import Answer, Job, perform
from brainbrr_debug.records import dumps, from_json
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import load_captured_subject

IDLE_S = 1800.0
"""Where nobody asked for so long the process ends, because on a cluster nobody else ends it; asked again, it begins."""

_PROGRAM = "from brainbrr_debug.forkserver import serve; serve()"


class Forkserver:
    """Does jobs over the capture at `path`, each in a process of its own; several threads may ask at once."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(self._path.absolute()), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # a subject that prints must not get between a command and its one document
                start_new_session=True,
                # What the check for a GPU does by default cannot be forked.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
            )

    def ask(self, job: Job, timeout_s: float) -> Answer:
        """The job's answer; a trial that crashes or is not done after `timeout_s` seconds is skipped, and why."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                if self._process.poll() is not None:
                    self._control.close()
                    self._start()
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
            with Connection(ours.detach()) as guardian:
                guardian.send((job, timeout_s))
                return from_json(Answer, json.loads(guardian.recv_bytes()))
        except (EOFError, OSError):
            code = self._process.poll()
            ended = "was lost" if code is None else f"lost the process it was forked from, which {_ended(code)}"
            return Answer(skipped=f"the trial {ended}")

    def close(self) -> None:
        """End every trial that still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._control.close()


# In the process ------------------------------------------------------------------------------------------------------

_IMPORTED_LATE = ("torch._dynamo", "brainbrr_debug.origin")
"""What the first step of any optimizer imports, and the tracer: seconds that every trial would pay for."""

_loaded: tuple[CaptureContent, Subject] | None = None


def serve() -> None:
    """Fork a guardian for every job until the one who started this process is gone."""
    path, control = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    torch.set_num_threads(1)  # an import that computes must not start threads, which a fork would lose
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    _load(path)
    fork = multiprocessing.get_context("fork")
    while select.select([control], [], [], IDLE_S)[0] or multiprocessing.active_children():
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        fork.Process(target=_guard, args=(path, control, descriptors[0])).start()
        os.close(descriptors[0])


def _load(path: str) -> tuple[CaptureContent, Subject]:
    global _loaded
    if _loaded is None:
        content = read_capture(path)
        _loaded = content, load_captured_subject(content)
    return _loaded


def _guard(path: str, control: socket.socket, descriptor: int) -> None:
    """Have one job done, and answer for it whatever becomes of it."""
    control.close()
    cannot_fork = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    context: Any = multiprocessing.get_context("spawn" if cannot_fork else "fork")
    with Connection(descriptor) as client:
        job, timeout_s = client.recv()
        reader, writer = context.Pipe(duplex=False)
        trial = context.Process(target=_do, args=(path, job, writer))
        trial.start()
        writer.close()
        ready = wait([reader, client], timeout_s)
        try:
            if reader in ready:
                client.send_bytes(reader.recv_bytes())
            elif not ready:
                client.send_bytes(_skipped(f"no answer within {timeout_s:g} s", timeout_s))
        except EOFError:
            trial.join()
            client.send_bytes(_skipped(_ended(trial.exitcode)))
        finally:
            trial.kill()


def _do(path: str, job: Job, answer_to: Connection[Any, Any]) -> None:
    answer_to.send_bytes(dumps(perform(job, *_load(path))).encode())


def _skipped(reason: str, seconds: float = 0.0) -> bytes:
    return dumps(Answer(skipped=reason, seconds=seconds)).encode()


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return f"crashed with signal {-code} ({signal.Signals(-code).name}){memory}"
    return f"ended with exit code {code} and no answer"
