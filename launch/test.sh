#!/usr/bin/env bash
# Runs the tests; makes the environment with the developers' tools first where there is none. Arguments are pytest's:
#   launch/test.sh -m "not slow"
set -euo pipefail

launch=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
"$launch/setup.sh" --dev --quiet >&2
cd -- "${launch%/*}"
export PATH=$PWD/.venv/bin:$PATH
# Two at a time, as most of a test is waiting for the programs that it has started; -n 0 is one after the other, in the open.
exec python -m pytest -n 2 --dist loadgroup "$@"
