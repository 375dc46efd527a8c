#!/usr/bin/env bash
# Trains on this machine with a few workers; makes the environment first where there is none.
set -euo pipefail

launch=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
    cat <<'END'
usage: launch/local.sh [-n N] [--gloo | --mpi] [--max-restarts K] [flags of jobs/train.py]

Trains on this machine with N workers, 2 unless -n says otherwise, started by horovodrun. The first time it sets up
.venv, see launch/setup.sh --help. File names are relative to where you are.

  -n N              the number of workers
  --gloo            they talk over Gloo (the default)
  --mpi             they talk over MPI
  --max-restarts K  when a worker is lost, stuck or told to end, start again from the last checkpoint, at most K times
                    in a row without a new checkpoint (default 0)

All else goes to jobs/train.py unchanged: `jobs/train.py --help` (.venv/bin/python jobs/train.py --help) lists its flags.
Ctrl-C stops the job with a checkpoint; its last line says how to go on.

  launch/local.sh
  launch/local.sh -n 4 --epochs 20 --corpus my.txt
  launch/local.sh --resume --run-dir runs/NAME --epochs 400
END
}

for word; do
    case $word in -h | --help) usage && exit ;; esac
done
"$launch/setup.sh" --quiet >&2
exec "${launch%/*}/.venv/bin/python" "$launch/supervise.py" "$@"
