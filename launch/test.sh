#!/usr/bin/env bash
# Runs the tests; creates the environment with the tools for developers first if there is none. Arguments are pytest's:
#   launch/test.sh -m "not slow"
set -euo pipefail

script=$(readlink -f -- "${BASH_SOURCE[0]}")
launch=${script%/*} repo=${script%/*/*}
"$launch/setup.sh" --keep --dev --quiet >&2
cd -- "$repo"
unset "${!PYTHON@}" # set for other Pythons
export PATH=$repo/.venv/bin:$PATH PYTHONPATH=$repo
# Two at a time, because most tests wait for programs that they have started; -n 0 runs them one by one.
exec python -m pytest -n 2 --dist loadgroup "$@"
