"""Run brainbrr's own Mamba2 with `backend="mamba_ssm"` on golden vectors and report how far it is off.

For the environment of ``make_environment.sh`` (Triton's interpreter) or a machine with CUDA and mamba-ssm, with the
repository on PYTHONPATH. Prints one JSON object: for each case the deviation of the output and of every gradient.
It also loads our state dict into the real ``mamba_ssm.Mamba2``, strictly.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.golden.comparison import FOLDER, case_names, deviations, read_golden
from tests.golden.generate import mamba2_class, prepare


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, default=FOLDER, help="folder with the vectors")
    parser.add_argument("--case", action="append", help="only this case; may be repeated")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu: Triton's interpreter")
    options = parser.parse_args()
    prepare(options.device)  # before anything imports Triton

    from brainbrr.models.mamba import Mamba2

    found = {}
    for name in options.case or case_names(options.golden):
        golden = read_golden(name, options.golden)
        layer = Mamba2(**golden.arguments, backend="mamba_ssm")
        forward, gradients = deviations(layer, golden, options.device)
        found[name] = {"forward": forward, "gradients": gradients}
        theirs = mamba2_class()(**golden.arguments, use_mem_eff_path=False)
        theirs.load_state_dict(layer.state_dict(), strict=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
