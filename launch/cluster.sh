#!/usr/bin/env bash
# Trains on several hosts without a scheduler: horovodrun starts the workers over ssh.
set -euo pipefail

launch=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
    cat <<'END'
usage: launch/cluster.sh (-H HOST:N,... | --hostfile FILE) [--interface IF] [--gloo | --mpi] [--max-restarts K] [--print]
                         [flags of jobs/train.py]

Trains on the named hosts, started over ssh by horovodrun. Every host has this folder at the same path, set up by
launch/setup.sh there or on a file system that all of them share, lets you in over ssh without a password, and is known
by its key. That is looked at first, and the first host with which something is wrong is named.

  -H HOST:N,...     the hosts and the workers of each, as node1:4,node2:4; rank 0, which writes, is on the first
  --hostfile FILE   the same, one a line, as node1:4 or node1 slots=4; blank lines and # comments are skipped
  --interface IF    the network interface through which the workers talk, as eth0 or ib0; it has this name on every
                    host. Without it, horovodrun looks for those that reach every host, which takes a while
  --gloo            they talk over Gloo (the default)
  --mpi             they talk over MPI
  --max-restarts K  when a worker is lost, stuck or told to end, and its host still answers, start again from the last
                    checkpoint, at most K times in a row without a new checkpoint (default 0)
  --print           show the command, and run nothing

All else goes to jobs/train.py unchanged: `jobs/train.py --help` (.venv/bin/python jobs/train.py --help) lists its flags.
Give it a --run-dir that all hosts share: then any of them can say why it ended. Of your environment only what a worker
needs goes along. Ctrl-C stops the job with a checkpoint; its last line says how to go on.

  launch/cluster.sh -H node1:4,node2:4 --interface ib0 --run-dir /shared/runs/first
  launch/cluster.sh --hostfile hosts.txt --resume --run-dir /shared/runs/first
END
}

for word; do
    case $word in -h | --help) usage && exit ;; esac
done
for word; do
    case $word in
        -H* | --hostfile | --hostfile=*)
            "$launch/setup.sh" --quiet >&2
            exec "${launch%/*}/.venv/bin/python" "$launch/supervise.py" "$@"
            ;;
    esac
done
echo "error: -H or --hostfile: name the hosts, as -H node1:4,node2:4; launch/local.sh trains on this machine alone" >&2
exit 2
