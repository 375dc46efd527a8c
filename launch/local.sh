#!/usr/bin/env bash
# Trains on this machine with a few workers; creates the environment first if there is none.
set -euo pipefail

script=$(readlink -f -- "${BASH_SOURCE[0]}")
launch=${script%/*} repo=${script%/*/*}

usage() {
    cat <<'END'
usage: launch/local.sh [-n N] [--gloo | --mpi] [--max-restarts K] [flags of jobs/train.py]

Trains on this machine with N workers, which horovodrun starts if there are several. The first run sets up .venv, see
launch/setup.sh --help; later runs use it as it is. File names are relative to the current directory.

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
"$launch/setup.sh" --keep --quiet >&2
venv=$(readlink -f "$repo/.venv") # so that the job stays in this environment if launch/setup.sh replaces it
unset "${!PYTHON@}"               # set for other Pythons
export PYTHONPATH=$repo
exec "$venv/bin/python" "$launch/supervise.py" "$@"
