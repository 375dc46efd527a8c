#!/usr/bin/env bash
# Runs the tests; makes the environment with the developers' tools first where there is none. Arguments are pytest's:
#   launch/test.sh -m "not slow"
set -euo pipefail

launch=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
"$launch/setup.sh" --dev --quiet >&2
cd -- "${launch%/*}"
export PATH=$PWD/.venv/bin:$PATH
exec python -m pytest "$@"
