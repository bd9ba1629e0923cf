"""`git bisect run brainbrr-debug replay CAPTURE --git-bisect` names the commit that broke a run."""

import importlib
import os
import re
import subprocess
import sys

import pytest

from brainbrr_debug.capture import write_capture
from brainbrr_debug.rerun import run_until_harm

SUBJECT = '''
import torch
from torch import nn
from brainbrr_debug.subject import Run


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(8, 4, bias=False)
        self.head = nn.Linear(4, 1)

    def forward(self, signal):
        features = self.encode(signal)
        return self.head(features / {norm}).squeeze(-1)


class Subject:
    """{comment}"""

    def build(self, seed, switches):
        torch.manual_seed(seed)
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        return Run(model=model, optimizer=optimizer, loss_fn=nn.functional.mse_loss, batches=self.batches(seed))

    def batches(self, seed):
        generator = torch.Generator().manual_seed(seed)
        for step in range(4):
            signal = torch.randn(3, 8, generator=generator)
            signal[1] *= step != 2
            yield (signal,), torch.randn(3, generator=generator)

    def switches(self):
        return {{}}

    def identify(self, batch_index, sample_index):
        return {{}}
'''
GUARDED = "(features.norm(dim=-1, keepdim=True) + 1e-6)"
BARE = "features.norm(dim=-1, keepdim=True)"
COMMITS = (
    ("good 0", SUBJECT.format(norm=GUARDED, comment="First.")),
    ("good 1", SUBJECT.format(norm=GUARDED, comment="Second.")),
    ("does not import", "def broken(:\n"),
    ("crashes", SUBJECT.format(norm=GUARDED, comment="Third.") + "\n\nimport os\n\nos.abort()\n"),
    ("good 4", SUBJECT.format(norm=GUARDED, comment="Fourth.")),
    ("the one that broke it", SUBJECT.format(norm=BARE, comment="Fifth.")),
    ("bad 6", SUBJECT.format(norm=BARE, comment="Sixth.")),
    ("bad 7", SUBJECT.format(norm=BARE, comment="Seventh.")),
)


def git(place, *words):
    return subprocess.run(["git", *words], cwd=place, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Eight commits, and beside them the capture that the last one left."""
    place = tmp_path / "repository"
    place.mkdir()
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    git(place, "init", "-q")
    git(place, "config", "user.name", "A person")
    git(place, "config", "user.email", "person@example.org")
    for message, text in COMMITS:
        (place / "broken_by_commit.py").write_text(text)
        git(place, "add", "-A")
        git(place, "commit", "-q", "-m", message)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    subject = importlib.import_module("broken_by_commit").Subject()
    content = run_until_harm(subject, "broken_by_commit:Subject").content
    assert content is not None and content.step == 2
    write_capture(tmp_path / "capture.h5", content)
    return place


@pytest.mark.slow
def test_git_bisect_names_the_commit_that_broke_a_run(repository):
    git(repository, "bisect", "start", "HEAD", "HEAD~7")
    command = [sys.executable, "-B", "-m", "brainbrr_debug", "replay", "../capture.h5", "--times", "1", "--git-bisect"]
    said = subprocess.run(
        ["git", "bisect", "run", *command], cwd=repository, check=False, capture_output=True, text=True
    )
    first = re.search(r"^(\w{40}) is the first bad commit", said.stdout, re.MULTILINE)
    assert first is not None, said.stdout + said.stderr
    assert git(repository, "log", "-1", "--format=%s", first[1]) == "the one that broke it\n"
    skipped = re.findall(r"^# skip: \[\w+\] (.*)$", git(repository, "bisect", "log"), re.MULTILINE)
    assert skipped and set(skipped) <= {"crashes", "does not import"}
