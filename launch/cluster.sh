#!/usr/bin/env bash
# Trains on several hosts without a scheduler: horovodrun starts the workers over ssh.
set -euo pipefail

script=$(readlink -f -- "${BASH_SOURCE[0]}")
launch=${script%/*} repo=${script%/*/*}

usage() {
    cat <<'END'
usage: launch/cluster.sh (-H HOST:N,... | --hostfile FILE | --discover-hosts PROGRAM) [--interface IF] [--gloo | --mpi]
                         [--min-workers M] [--wait-for-workers T] [--max-restarts K] [--discover-every T]
                         [--grow-every T] [--print] [flags of jobs/train.py]

Trains on several hosts, on which horovodrun starts the workers over ssh. Every host needs this folder at the same path
(set up there by launch/setup.sh, or on a shared file system), a login over ssh without a password, and an ssh key that
is known on this host. These are checked first, and the first host that fails is named.

  -H HOST:N,...     hosts and their numbers of workers, such as node1:4,node2:4; rank 0, which writes the results, runs
                    on the first
  --hostfile FILE   the same, one host per line, as node1:4 or node1 slots=4; blank lines and # comments are skipped
  --interface IF    network interface for communication, such as eth0 or ib0, with this name on every host. By default,
                    horovodrun searches for interfaces that reach every host, which takes a while
  --gloo            communicate over Gloo (the default)
  --mpi             communicate over MPI
  --max-restarts K  restart from the last checkpoint if a worker is lost, stuck or stopped by a signal, at most K times
                    in a row without a new checkpoint (default 0; with --min-workers or --discover-hosts 3)
  --print           print the command instead of running it

Hosts that are lost and return, if restarts are allowed; times are such as 30s, 10m or 2h:

  --min-workers M       continue on the hosts that answer, if they have at least M workers (default: all that were
                        started); the job takes lost hosts back when they answer again
  --wait-for-workers T  below M, wait so long for hosts before giving up with status 76 (default 10m)
  --discover-hosts PROGRAM
                        take the hosts from a program instead of -H, and again during the job: it prints one host per
                        line, as node1:4, within 10 s (what Horovod calls a host discovery script)
  --discover-every T    ask the program, and the hosts that are missing, so often (default 30s)
  --grow-every T        stop the job to continue on more workers at most so often (default 2m)

All other flags are passed to jobs/train.py: .venv/bin/python jobs/train.py --help documents them. Give a --run-dir that
all hosts share, so that every worker can record why it ended. Only the environment variables that a worker needs are
passed on. Ctrl-C stops the job with a checkpoint; the last line of output says how to resume it.

  launch/cluster.sh -H node1:4,node2:4 --interface ib0 --run-dir /shared/runs/first
  launch/cluster.sh --hostfile hosts.txt --resume --run-dir /shared/runs/first
  launch/cluster.sh --hostfile hosts.txt --min-workers 4 --run-dir /shared/runs/second   # needs nobody at night
END
}

for word; do
    case $word in -h | --help) usage && exit ;; esac
done
for word; do
    case $word in
        -H* | --hostfile | --hostfile=* | --discover-hosts | --discover-hosts=*)
            "$launch/setup.sh" --keep --quiet >&2
            unset "${!PYTHON@}" # set for other Pythons
            export PYTHONPATH=$repo
            exec "$repo/.venv/bin/python" "$launch/supervise.py" "$@" # this path exists on every host
            ;;
    esac
done
cat >&2 <<'END'
error: -H, --hostfile or --discover-hosts: give the hosts, such as -H node1:4,node2:4; launch/local.sh trains on this machine
END
exit 2
