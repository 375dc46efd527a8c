#!/usr/bin/env bash
# Trains on this machine with a few workers; makes the environment first where there is none.
set -euo pipefail

launch=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
repo=${launch%/*}

usage() {
    cat <<'END'
usage: launch/local.sh [-n N] [--gloo | --mpi] [flags of jobs/train.py]

Trains on this machine with N workers, 2 unless -n says otherwise, started by horovodrun. The first time it sets up
.venv, see launch/setup.sh --help. File names are relative to where you are.

  -n N     the number of workers
  --gloo   they talk over Gloo (the default)
  --mpi    they talk over MPI

All else goes to jobs/train.py unchanged: `jobs/train.py --help` (.venv/bin/python jobs/train.py --help) lists its flags.

  launch/local.sh
  launch/local.sh -n 4 --epochs 20 --corpus my.txt
END
}

die() {
    echo "local.sh: $*" >&2
    exit 2
}

workers=2 controller=gloo arguments=()
while (($#)); do
    case $1 in
        -n)
            (($# > 1)) || die "-n: give the number of workers, for example -n 2"
            workers=$2
            shift
            ;;
        -n?*) workers=${1#-n} && workers=${workers#=} ;;
        --gloo | --mpi) controller=${1#--} ;;
        -h | --help)
            usage
            exit
            ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
[[ $workers =~ ^[1-9][0-9]{0,3}$ ]] || die "-n '$workers': the number of workers is a whole number from 1 on"

"$launch/setup.sh" --quiet >&2

export PATH=$repo/.venv/bin:$PATH
export PYTHONUTF8=1 # horovodrun stops reading the workers at the first byte that is not UTF-8, and the job hangs
if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
# horovodrun reads the workers' output through pipes; rank 0 shows its lines and its progress bar on the terminal behind
# them, unless they are to go to a file.
unset LSTM_DIST_TERMINAL
if [[ -t 1 && -t 2 ]]; then
    LSTM_DIST_TERMINAL=$(tty <&2)
    export LSTM_DIST_TERMINAL
fi

# What the workers say, as horovodrun passes it on, on its way to the reader. They end with horovodrun, not with Ctrl-C.
# Rank 0 speaks for the job, so its lines need not say whose they are.
own_prefix='^\[(1,)?0\]<std(out|err)>:'

of_stdout() {
    trap '' INT
    exec sed -uE "s/$own_prefix//"
}

# horovodrun ends a failed job with a traceback of its own, under which the workers' message would be lost to view.
of_stderr() {
    trap '' INT
    local line held='' holding=false
    while IFS= read -r line || [[ $line ]]; do
        if [[ $line == 'Traceback (most recent call last):' ]]; then holding=true; fi
        if [[ $line =~ $own_prefix ]]; then line=${line#"${BASH_REMATCH[0]}"}; fi
        if $holding; then held+=$line$'\n'; else printf '%s\n' "$line"; fi
    done
    if [[ $held != *'RuntimeError: Horovod detected that one or more processes exited'* ]]; then printf '%s' "$held"; fi
}

# Without --disable-cache, horovodrun believes for an hour what it found out about a machine.
exec horovodrun --disable-cache "--$controller" -np "$workers" \
    "$repo/.venv/bin/python" "$repo/jobs/train.py" ${arguments[@]+"${arguments[@]}"} > >(of_stdout) 2> >(of_stderr >&2)
