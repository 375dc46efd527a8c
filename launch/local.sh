#!/usr/bin/env bash
# Trains on this machine with a few workers; creates the environment first if there is none.
set -euo pipefail

launch=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
    cat <<'END'
usage: launch/local.sh [-n N] [--gloo | --mpi] [--max-restarts K] [flags of jobs/train.py]

Trains on this machine with N workers, which horovodrun starts. The first run sets up .venv, see launch/setup.sh --help.
File names are relative to the current directory.

  -n N              number of workers (default 2)
  --gloo            communicate over Gloo (the default)
  --mpi             communicate over MPI
  --max-restarts K  restart from the last checkpoint if a worker is lost, stuck or stopped by a signal, at most K times
                    in a row without a new checkpoint (default 0)

All other flags are passed to jobs/train.py: .venv/bin/python jobs/train.py --help documents them.
Ctrl-C stops the job with a checkpoint; the last line of output says how to resume it.

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
