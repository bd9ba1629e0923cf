from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from brainbrr.config import ConfigError
from brainbrr.training.tensorboard import scalar_writer


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    log, close = scalar_writer(tmp_path / "log", enabled=False)
    log(0, {"loss": 1.0})
    close()
    assert not (tmp_path / "log").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scalars_can_be_read_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log, close = scalar_writer(tmp_path / "log", enabled=True)
    log(3, {"loss": 0.5, "auroc": math.nan})
    log(4, {"loss": 0.25})
    close()
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5), (4, 0.25)]
    assert math.isnan(events.Scalars("auroc")[0].value)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"TensorBoard is not installed; pip install 'brainbrr\[tensorboard\]'"):
        scalar_writer(tmp_path / "log", enabled=True)
