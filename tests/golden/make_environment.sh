#!/usr/bin/env bash
# Builds the environment in which tests/golden/generate.py runs the real mamba_ssm.Mamba2 on a CPU.
#
#     tests/golden/make_environment.sh FOLDER [PYTHON]
#
# It is an environment of its own because Triton's interpreter breaks on numpy 2.4 and because mamba-ssm's metadata asks
# for packages that only a GPU uses (hence --no-deps). A FOLDER that a previous call finished is left as it is; an
# unfinished one is started again. Packages come from wherever pip is set up to take them. Two minutes, 2 GB.
# Exit status: 0 ready, 69 a package could not be had, others an error.
set -euo pipefail

folder=${1:?"usage: make_environment.sh FOLDER [PYTHON]: FOLDER is where the environment goes"}
python=${2:-python3}
mamba=2.3.2.post1
finished="$folder/finished-mamba_ssm-$mamba"

mkdir -p "$(dirname "$folder")"
if command -v flock >/dev/null; then # two test processes may want it at the same time
  exec 9>"$folder.lock"
  flock 9
fi
if [ -e "$finished" ]; then exit 0; fi
if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ]; then
  echo "make_environment.sh: $folder is there and is no Python environment; expected a new folder, name another" >&2
  exit 2
fi
rm -rf "$folder"
"$python" -m venv "$folder"

install() {
  if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; then
    echo "make_environment.sh: pip could not install: $*" >&2
    exit 69
  fi
}
install "numpy<2.4" "torch==2.13.0" einops packaging ninja setuptools wheel
# A CUDA build of torch has brought its own Triton along, which then satisfies this line.
install --no-deps "triton>=3.5"
# SKIP: no compiler is called, the Triton kernels are plain Python. FORCE: without it the build looks for a prebuilt
# wheel by torch's CUDA version, which a CPU build of torch does not have.
export MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE
install --no-build-isolation --no-deps "mamba-ssm==$mamba"
touch "$finished"
