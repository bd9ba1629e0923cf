"""Checks over source: small repositories with each fault, and others that look like it and are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

from brainbrr_debug.checks.given import Given
from tests.triage.cases import Case


def repository(**files: str) -> Callable[[Path], Given]:
    """A repository of these files; in a name `__` stands for a slash and the last `_` for the dot."""

    def make(folder: Path) -> Given:
        for name, text in files.items():
            stem, _, ending = name.replace("__", "/").rpartition("_")
            path = folder / (f"{stem}.{ending}" if stem else ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text), encoding="utf-8")
        return Given(source=folder)

    return make


def pair(planted: Callable[[Path], Given], healthy: Callable[[Path], Given], *, finds: int = 1) -> Case:
    return Case(planted=planted, healthy=healthy, look="source", finds=finds)


def code(text: str) -> Callable[[Path], Given]:
    return repository(a_py=text)


SWALLOW = (
    pair(
        code(
            "def verify(path):\n    try:\n        read(path)\n    except Exception:\n        return True\n"
            "    return True\n"
        ),
        code(
            "def verify(path):\n    try:\n        read(path)\n    except Exception:\n        return False\n"
            "    return True\n"
        ),
    ),
    pair(
        code("try:\n    load()\nexcept:\n    pass\n"),
        code("try:\n    load()\nexcept Exception:\n    clear()\n    raise\n"),
    ),
    pair(
        code("for case in cases:\n    try:\n        run(case)\n    except (KeyError, Exception):\n        continue\n"),
        code("for case in cases:\n    try:\n        run(case)\n    except Exception:\n        skipped += 1\n"),
    ),
    pair(
        code("def f():\n    try:\n        return read()\n    except BaseException as error:\n        return None\n"),
        code(
            "def f():\n    try:\n        return read()\n    except BaseException as error:\n        return str(error)\n"
        ),
    ),
    pair(
        code("try:\n    value = read()\nexcept Exception:\n    value = 0\n"),
        code("try:\n    value = read()\nexcept Exception:\n    logger.warning('no value')\n    value = 0\n"),
    ),
    pair(
        repository(
            a_py="try:\n    step()\nexcept Exception:\n    pass\n",
            test_a_py="try:\n    f()\nexcept Exception:\n    pass\n",
        ),
        code("try:\n    import numba\n    FAST = True\nexcept Exception:\n    FAST = False\n"),
    ),
    pair(
        code("try:\n    step()\nexcept Exception:\n    state = None\n"),
        code(
            "class A:\n    def __del__(self):\n        try:\n            self.file.close()\n"
            "        except Exception:\n            pass\n"
        ),
    ),
)

_EVALUATION = """
import torch

@torch.no_grad()
def evaluate(model, loader):
    kept = []
    for images, masks in loader:
        {body}
    return {result}
"""


def evaluation(body: str, result: str = "torch.cat(kept)") -> Callable[[Path], Given]:
    return code(_EVALUATION.format(body=body, result=result))


EVAL_GROWTH = (
    pair(
        evaluation("kept.append(model(images).cpu())"),
        evaluation("kept.append((model(images) == masks).mean().item())"),
    ),
    pair(
        evaluation("out = model(images)\n        kept.append(out.argmax(1))"),
        evaluation("out = model(images)\n        kept.append(dice(out.argmax(1), masks))"),
    ),
    pair(
        evaluation("kept += [masks.numpy()]", "metrics(kept)"),
        evaluation("kept += [float(masks.sum())]", "metrics(kept)"),
    ),
    pair(
        evaluation("kept.extend(p for p in [images]) or kept.extend(images.cpu())", "score(kept)"),
        evaluation("for p, m in zip(model(images), masks):\n            kept.append(dice(p, m))", "score(kept)"),
    ),
    pair(
        code(
            """
            import torch
            class Trainer:
                def validate(self):
                    self.model.eval()
                    for index in range(len(self.dataset)):
                        image, mask = self.dataset[index]
                        self.seen.append(self.model(image))
                def finish(self):
                    return torch.stack(self.seen)
            """
        ),
        code(
            """
            import torch
            class Net:
                def forward(self, x):
                    kept = []
                    with torch.no_grad():
                        for step in x.data:
                            kept.append(self.net(step))
                    return torch.stack(kept)
            """
        ),
    ),
    pair(
        code(
            """
            import torch
            def run(model, loader):
                model.eval()
                whole = torch.zeros(0)
                for batch in loader:
                    whole = torch.cat([whole, model(batch)])
                return whole
            """
        ),
        code(
            """
            import torch
            def train(model, loader):
                kept = []
                for batch in loader:
                    with torch.no_grad():
                        target = model(batch)
                    loss = model(batch, target)
                    loss.backward()
                    kept.append(target)
                return kept
            """
        ),
    ),
    pair(
        evaluation("row = []\n        row.append(images)\n        kept.append(torch.stack(row))"),
        evaluation("row = []\n        row.append(images)\n        show(torch.stack(row))", "None"),
    ),
)

_TWO_FILES = """
class Volumes:
    def __init__(self, paths, cache_dir=None, *, seed=0):
        self.paths, self.cache_dir, self.seed = paths, cache_dir, seed
"""
CALL_DRIFT = (
    pair(
        repository(
            kit__data_py=_TWO_FILES,
            kit__train_py="from kit.data import Volumes\nVolumes(p, cache_dir=c)\n",
            kit__search_py="from .data import Volumes\nVolumes(p)\n",
        ),
        repository(
            kit__data_py=_TWO_FILES,
            kit__train_py="from kit.data import Volumes\nVolumes(p, cache_dir=c)\n",
            kit__search_py="from .data import Volumes\nVolumes(p, c)\nVolumes(p, **more)\n",
        ),
    ),
    pair(
        code(
            "def study(name, seed=None): ...\ndef f(seed):\n    study('a', seed=seed)\ndef g(seed):\n    study('b')\n"
        ),
        repository(
            kit__study_py="def create_study(name, seed=None): ...\n",
            kit__a_py="from kit.study import create_study\ncreate_study('a', seed=1)\n",
            kit__b_py="import optuna\noptuna.create_study('b')\n",
        ),
    ),
    pair(
        code("def load(path, *, device='cpu'): ...\ndef f(device):\n    load(1, device=device)\n    load(2)\n"),
        code("def load(path, *, device='cpu'): ...\ndef f(device):\n    load(1, device=device)\nload(2)\n"),
    ),
)

TEMPFILES = (
    pair(
        code("import tempfile\ndef f(data):\n    folder = tempfile.mkdtemp()\n    write(folder, data)\n"),
        code(
            "import tempfile\ndef f(data):\n    with tempfile.TemporaryDirectory() as folder:\n"
            "        write(folder, data)\n"
        ),
    ),
    pair(
        code(
            "from tempfile import NamedTemporaryFile\ndef fetch(data):\n"
            "    with NamedTemporaryFile(suffix='.nii', delete=False) as file:\n        file.write(data)\n"
            "    return file.name\n"
        ),
        code(
            "import os\nfrom tempfile import NamedTemporaryFile\ndef fetch(data, target):\n"
            "    with NamedTemporaryFile(delete=False) as file:\n        file.write(data)\n"
            "    os.replace(file.name, target)\n"
        ),
    ),
    pair(
        code("import tempfile as t\nclass A:\n    def __init__(self):\n        self.folder = t.mkdtemp()\n"),
        code(
            "import tempfile, shutil\nclass A:\n    def __init__(self):\n        folder = tempfile.mkdtemp()\n"
            "        self.folder = folder\n    def close(self):\n        shutil.rmtree(self.folder)\n"
        ),
    ),
    pair(
        code("import tempfile\nclass A:\n    def __init__(self):\n        _, self.path = tempfile.mkstemp()\n"),
        code(
            "import os, tempfile\nclass A:\n    def __enter__(self):\n        _, self.path = tempfile.mkstemp()\n"
            "    def __exit__(self, *e):\n        os.remove(self.path)\n"
        ),
    ),
    pair(
        code("import tempfile\ndef make():\n    return tempfile.mkdtemp()\ndef use():\n    train(make())\n"),
        code(
            "import shutil, tempfile\ndef make():\n    return tempfile.mkdtemp()\n"
            "def use():\n    folder = make()\n    train(folder)\n    shutil.rmtree(folder)\n"
        ),
    ),
    pair(
        code(
            "import tempfile\ndef make():\n    return tempfile.mkdtemp()\ndef fill():\n    return write(make())\n"
            "def use():\n    train(fill())\n"
        ),
        code(
            "import tempfile\ndef make():\n    return tempfile.mkdtemp()\ndef fill():\n    return write(make())\n"
            "def use(tasks):\n    tasks.add_task(os.remove, fill())\n"
        ),
    ),
    pair(  # what a caller tidies is what the function returns
        code(
            "import tempfile\ndef fold():\n    folder = tempfile.mkdtemp()\n    score = train(folder)\n    return 1.0\n"
            "def study(name):\n    return fold(), name.replace('a', 'b')\n"
        ),
        code(
            "import shutil, tempfile\ndef fold():\n    folder = tempfile.mkdtemp()\n    return folder\n"
            "def study(name):\n    used = fold()\n    shutil.rmtree(used)\n"
        ),
    ),
    pair(
        code("import tempfile\nprint(tempfile.mkstemp()[1])\n"),
        code(
            "import atexit, shutil, tempfile\nfrom functools import partial\ndef make():\n"
            "    folder = tempfile.mkdtemp()\n    atexit.register(partial(shutil.rmtree, folder))\n    return folder\n"
        ),
    ),
    pair(
        code(
            "import tempfile\ndef use():\n    folder = tempfile.mkdtemp()\n    flush(folder)\n"
            "def flush(a):\n    print(a)\n"
        ),
        code(
            "import shutil, tempfile\ndef use():\n    folder = tempfile.mkdtemp()\n    flush(folder)\n"
            "def flush(a):\n    drop(a)\ndef drop(b):\n    shutil.rmtree(str(b))\n"
        ),
    ),
    pair(
        code(
            "import tempfile\ndef f(a):\n    with tempfile.NamedTemporaryFile(dir=a, delete=False) as file:\n"
            "        write(file)\n"
        ),
        code(
            "import tempfile\ndef f():\n    with tempfile.TemporaryDirectory() as a:\n"
            "        with tempfile.NamedTemporaryFile(dir=a, delete=False) as file:\n            write(file)\n"
        ),
    ),
)

_USER = "from settings import LIMIT\n"
ENV = (
    pair(
        repository(settings_py="import os\nLIMIT = int(os.environ.get('LIMIT', '3'))\n", main_py=_USER),
        repository(
            settings_py="import os\ndef limit():\n    return int(os.environ.get('LIMIT', '3'))\n", main_py=_USER
        ),
    ),
    pair(
        repository(settings_py="from os import environ\nLIMIT = environ['LIMIT']\n", main_py=_USER),
        repository(main_py="import os\nRANK = os.environ['RANK']  # a program: nothing is imported from it\n"),
    ),
    pair(
        repository(settings_py="import os\nclass Settings:\n    LIMIT = os.getenv('LIMIT')\n", main_py=_USER),
        repository(settings_py="import os\nos.environ['OMP_NUM_THREADS'] = '1'\nLIMIT = 3\n", main_py=_USER),
    ),
    pair(
        repository(settings_py="import os\ndef f(limit=os.getenv('LIMIT')): ...\n", main_py="import settings\n"),
        repository(
            settings_py="import os\nif __name__ == '__main__':\n    print(os.getenv('LIMIT'))\n",
            main_py="import settings\n",
        ),
    ),
)

SANITISER = (
    pair(
        code("import torch\ndef f(logits):\n    return torch.nan_to_num(logits)\n"),
        code(
            "import torch\ndef f(logits, seen):\n    seen.bad += (~torch.isfinite(logits)).sum()\n"
            "    return torch.nan_to_num(logits)\n"
        ),
    ),
    pair(
        code(
            "import torch\ndef f(model):\n    for p in model.parameters():\n        p.grad[torch.isnan(p.grad)] = 0\n"
        ),
        code("import numpy as np\ndef f(x):\n    x[np.isnan(x)] = 0\n    return np.nan_to_num(x)\n"),
    ),
    pair(
        code("import torch\ndef f(self, x):\n    return self.logits.clamp(-100, 100)\n"),
        code("import torch\ndef f(self, probability):\n    return probability.clamp(min=1e-6).log()\n"),
    ),
)

_TUNE = "import optuna\n# {said}\ndef study():\n    return optuna.create_study(pruner=optuna.pruners.{pruner}())\n"
CLAIMS = (
    pair(
        repository(README_md="Trials are stopped by ASHA.\n", hpo_py=_TUNE.format(said="ASHA", pruner="MedianPruner")),
        repository(
            README_md="Trials are stopped by ASHA.\n",
            hpo_py=_TUNE.format(said="ASHA", pruner="SuccessiveHalvingPruner"),
        ),
    ),
    pair(
        repository(README_md="Optimised with AdamW.\n", train_py="from torch import optim\noptim.Adam([])\n"),
        repository(
            README_md="Optimised with Adam, not BASHAM.\n", train_py="from torch import optim\noptim.Adam([])\n"
        ),
    ),
    pair(
        repository(
            triage__claims_yaml="- {term: Dice, means: [dice], never: [jaccard]}\n",
            README_md="We report Dice.\n",
            a_py="jaccard(a, b)\n",
        ),
        repository(
            triage__claims_yaml="- {term: Dice, means: [dice], never: [jaccard]}\n",
            README_md="We report Dice.\n",
            a_py="dice(a, b) + jaccard(a, b)\n",
        ),
    ),
)

_CONFIG = (
    "from dataclasses import dataclass\n@dataclass\nclass TrainConfig:\n    lr: float = 0.1\n"
    "    checkpointing: bool = False\n"
)
SETTINGS = "lr: 1\nepochs: 2\nbatch: 3\nnotch_hz: 50\n"

UNREAD = (
    pair(
        repository(
            config_py=_CONFIG,
            train_py="def run(cfg):\n    return cfg.lr\n",
            tests__test_a_py="def test(cfg):\n    assert not cfg.checkpointing\n",
        ),
        repository(config_py=_CONFIG, train_py="def run(cfg):\n    return cfg.lr if cfg.checkpointing else 0\n"),
    ),
    pair(
        repository(
            config_py=_CONFIG, train_py="from config import TrainConfig\nTrainConfig(checkpointing=True, lr=lr).lr\n"
        ),
        repository(config_py=_CONFIG, train_py="def run(cfg):\n    return cfg.lr, getattr(cfg, 'checkpointing')\n"),
    ),
    pair(
        repository(
            config_py=_CONFIG,
            train_py="import json, dataclasses\ndef save(cfg, file):\n"
            "    json.dump(dataclasses.asdict(cfg), file)\n    cfg.lr\n",
        ),
        repository(
            config_py=_CONFIG,
            train_py="import dataclasses\ndef run(cfg):\n    return build(**dataclasses.asdict(cfg))\n"
            "# TrainConfig\nTrainConfig\n",
        ),
    ),
    pair(
        repository(
            config_py=_CONFIG + "@dataclass\nclass ModelConfig:\n    checkpointing: bool = False\n",
            a_py="from config import ModelConfig\ndef f(cfg):\n    cfg.lr\n"
            "    return ModelConfig(checkpointing=cfg.checkpointing)\n",
        ),
        repository(
            config_py=_CONFIG + "@dataclass\nclass ModelConfig:\n    checkpointing: bool = False\n",
            a_py="from config import ModelConfig\ndef f(cfg):\n    cfg.lr\n    return ModelConfig(cfg.checkpointing)\n",
        ),
    ),
    pair(
        repository(
            config_py="from pydantic import BaseModel\nclass DataConfig(BaseModel):\n    max_hours: int = 1\n",
            a_py="class Loader:\n    def f(self):\n        return self.max_hours\n",
        ),
        repository(
            config_py="from pydantic import BaseModel\nclass DataConfig(BaseModel):\n    max_hours: int = 1\n"
            "    def seconds(self):\n        return self.max_hours * 3600\n",
        ),
    ),
    pair(
        repository(
            config_py="import attrs\n@attrs.define\nclass RunSettings:\n    folder: str\n    notch: int = 50\n"
            "    def path(self):\n        return self.folder\n"
        ),
        repository(
            config_py="import attrs\n@attrs.define\nclass RunSettings:\n    folder: str\n    notch: int = 50\n"
            "    def path(self):\n        return vars(self).items()\n"
            "def show(self):\n    for name, value in attrs.fields(RunSettings):\n        name\n",
        ),
    ),
    pair(
        repository(
            configs__train_yaml=SETTINGS,
            a_py="import yaml\nc = yaml.safe_load(text)\nc['lr'], c.epochs, c.get('batch')\n",
        ),
        repository(
            configs__train_yaml=f"defaults: [a]\n{SETTINGS}",
            a_py="import yaml\nc = yaml.safe_load(text)\nc['lr'], c.epochs, c.batch\n",
        ),
    ),
    pair(
        repository(
            configs__train_yaml=SETTINGS,
            a_py="from omegaconf import OmegaConf\nc = OmegaConf.load(path)\nc.lr, c.epochs, c.batch\n",
        ),
        repository(
            configs__train_yaml=SETTINGS,
            configs__other_yaml="hz: ${train.notch_hz}\n",
            a_py="from omegaconf import OmegaConf\nc = OmegaConf.load(path)\nc.lr, c.epochs, c.batch, c.hz\n",
        ),
    ),
    pair(
        repository(
            configs__train_yaml=SETTINGS, a_py="import yaml\nc = yaml.load(text)\nc['lr'], c['epochs'], c['batch']\n"
        ),
        repository(  # a library reads it, perhaps every key of it
            configs__train_yaml=SETTINGS, a_py="c = get_cfg()\nc.merge_from_file(path)\nc.lr, c.epochs, c.batch\n"
        ),
    ),
    pair(
        repository(configs__train_yaml=SETTINGS, a_py="import yaml\nc = yaml.load(text)\nc.lr, c.epochs, c.batch\n"),
        repository(
            configs__train_yaml=f"{SETTINGS}model: !new:Net {{lr: !ref <notch_hz>}}\n",
            a_py="import yaml\nc = yaml.load(text)\nc.lr, c.epochs, c.batch, c.model\n",
        ),
    ),
    pair(  # a field of a class whose base, of the same name, is a library's
        code("@dataclass\nclass TrainArgs:\n    lr: float\n    optim: str\ndef f(a):\n    return a.lr\n"),
        code(
            "import library\n@dataclass\nclass TrainArgs(library.TrainArgs):\n    lr: float\n    optim: str\n"
            "def f(a):\n    return a.lr\n"
        ),
    ),
    pair(  # handed whole to somebody who may read any field; shown is not read
        code(
            "@dataclass\nclass PartArgs:\n    lr: float\n    decay: float\n"
            "def f():\n    part = PartArgs()\n    print(asdict(part))\n    return part.lr\n"
        ),
        code(
            "@dataclass\nclass PartArgs:\n    lr: float\n    decay: float\n"
            "def f():\n    part = PartArgs()\n    model = Model(args=asdict(part))\n    return part.lr\n"
        ),
    ),
    pair(  # what does not parse may read anything
        code("@dataclass\nclass PartArgs:\n    lr: float\n    decay: float\ndef f(a):\n    return a.lr\n"),
        repository(
            a_py="@dataclass\nclass PartArgs:\n    lr: float\n    decay: float\ndef f(a):\n    return a.lr\n",
            b_py="def g[T,,](a):\n    return a.decay\n",
        ),
    ),
    pair(  # by `is_…_config` and a literal of one value classes are told apart when they are read
        code("@dataclass\nclass ModelConfig:\n    lr: float\n    decay: float\ndef f(a):\n    return a.lr\n"),
        code(
            "@dataclass\nclass ModelConfig:\n    lr: float\n    is_model_config: bool = True\n"
            "    kind: Literal['model'] = 'model'\ndef f(a):\n    return a.lr\n"
        ),
    ),
)

CASES = {
    "config.unread": UNREAD,
    "source.call_drift": CALL_DRIFT,
    "source.claims": CLAIMS,
    "source.env_at_import": ENV,
    "source.eval_growth": EVAL_GROWTH,
    "source.swallow": SWALLOW,
    "source.tempfiles": TEMPFILES,
    "source.uncounted_sanitiser": SANITISER,
}
