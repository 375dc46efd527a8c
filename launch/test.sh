#!/usr/bin/env bash
# Runs the tests; creates the environment with the tools for developers first if there is none. Arguments are pytest's:
#   launch/test.sh -m "not slow"
set -euo pipefail

launch=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
"$launch/setup.sh" --dev --quiet >&2
cd -- "${launch%/*}"
export PATH=$PWD/.venv/bin:$PATH
# Two at a time, because most tests wait for programs that they have started; -n 0 runs them one by one.
exec python -m pytest -n 2 --dist loadgroup "$@"
