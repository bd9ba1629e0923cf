#!/usr/bin/env bash
# Makes the golden vectors of mamba_ssm.Mamba2 again: builds the environment where it is missing, then runs every case.
# About four minutes the first time. BRAINBRR_GOLDEN_ENVIRONMENT names another folder for the environment.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
environment=${BRAINBRR_GOLDEN_ENVIRONMENT:-$here/../../build/golden-environment}
"$here/make_environment.sh" "$environment" "${PYTHON:-python3.11}"
exec "$environment/bin/python" "$here/generate.py" "$@"
