"""Programs that do to their process what no exception handler survives; which, says the switch "end"."""

from __future__ import annotations

import os
import signal
import sys
import time

import toy_subjects

from brainbrr_debug.subject import Switch

ENDS = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
    "sys.exit": lambda: sys.exit(5),
    "hang": lambda: time.sleep(3600),
    "memory": lambda: bytearray(1 << 62),
    "odd": lambda: (_ for _ in ()).throw(Odd("an exception of its own")),
    "prints": lambda: print("printed by the subject"),
}


class Odd(Exception):
    """No exception that anybody expects."""


class CrashingSubject(toy_subjects.TieSubject):
    def build(self, seed, switches):
        if switches.get("end", "none") != "none":
            ENDS[switches["end"]]()
        return super().build(seed, switches)

    def switches(self):
        ends = Switch(values=("none", *ENDS), safe="none", component="mix")
        return {**super().switches(), "end": ends}
