# The nodes of an allocation: which of them answer, and which of them train. train.sbatch sources this file.
#
# When a node fails, a job with --no-kill keeps the others. Slurm marks the node as down SlurmdTimeout seconds (300 by
# default) after its last answer; only then does it end the steps on the node and remove it from the job.
# shellcheck shell=bash

mapfile -t alive < <(sinfo -h -a -N -n "$SLURM_JOB_NODELIST" -o %N | sort -uV) # the nodes not known to be lost
lost=()  # those that the last call of find_lost has found
nodes=() # of `alive`, those that train

# Joins words: join , node1 node2.
join() {
    local IFS=$1
    shift
    echo "$*"
}

patience=120 # seconds for all nodes to answer; less once they have done so, in train.sbatch

# Runs a command once on every node of the job; those that answer run it also if others do not.
everywhere() {
    local count
    count=$(squeue -h -j "$SLURM_JOB_ID" -o %D) # without those that Slurm has removed
    timeout -k 5 "$patience" srun --overlap --no-kill --nodes="$count" --ntasks="$count" --ntasks-per-node=1 -c 1 "$@"
}

# Moves nodes that do not answer from `alive` to `lost`. They are not used again in this start of the job.
find_lost() {
    local answers='' node still=() try
    lost=()
    for try in 1 2 3; do # Slurm refuses the step if it removes a node at this moment
        # shellcheck disable=SC2016 # expanded on the nodes
        answers=$(everywhere sh -c 'echo "$SLURMD_NODENAME"') || true
        [[ ! $answers ]] || break
        sleep "$try"
    done
    [[ $answers ]] || return 0 # Slurm itself does not answer
    for node in "${alive[@]}"; do
        if grep -qx -- "$node" <<<"$answers"; then still+=("$node"); else lost+=("$node"); fi
    done
    alive=("${still[@]}")
}

# Checks SPARE_NODES and MIN_NODES, whose default it sets, and sets `most`, the number of nodes that train at first.
check_numbers_of_nodes() {
    ((${#alive[@]})) || die 78 "sinfo lists none of this job's nodes, $SLURM_JOB_NODELIST: see sinfo -N"
    [[ $SPARE_NODES =~ ^[0-9]{1,6}$ ]] && ((10#$SPARE_NODES < SLURM_NNODES)) ||
        die 78 "SPARE_NODES=$SPARE_NODES: should be a whole number, smaller than that of the nodes, $SLURM_NNODES"
    SPARE_NODES=$((10#$SPARE_NODES)) most=$((SLURM_NNODES - 10#$SPARE_NODES))
    : "${MIN_NODES:=$most}"
    [[ $MIN_NODES =~ ^[0-9]{1,6}$ ]] && ((1 <= 10#$MIN_NODES && 10#$MIN_NODES <= most)) ||
        die 78 "MIN_NODES=$MIN_NODES: should be a whole number from 1 to that of the nodes that train, $most"
    MIN_NODES=$((10#$MIN_NODES))
}

# Chooses the nodes that train. Fails if there are fewer than MIN_NODES, or if that of this script is lost, without which
# Slurm does not learn how the job ends.
choose_nodes() {
    nodes=("${alive[@]:0:most}")
    ((${#nodes[@]} >= MIN_NODES)) && [[ " ${alive[*]} " == *" $SLURMD_NODENAME "* ]]
}

# Starts a step on up to three other nodes that requeues the job if the node of this script is lost. Slurm then only
# removes that node, and the job would keep the others, idle, until its time limit.
start_guard() {
    local others=() node watch
    for node in "${alive[@]}"; do [[ $node == "$SLURMD_NODENAME" ]] || others+=("$node"); done
    ((${#others[@]})) || return 0
    others=("${others[@]:0:3}")
    # shellcheck disable=SC2016 # expanded in the step
    watch='
        while sleep 20; do
            host=$(squeue -h -j "$1" -t RUNNING -o %B) || continue # Slurm does not answer
            [ "$host" = "$2" ] || exit # the job is over, or has started again elsewhere
            allocated=$(squeue -h -j "$1" -w "$2" -o %i) || continue
            [ -z "$allocated" ] || continue
            trap "" TERM # with which Slurm ends this step when it requeues the job
            if scontrol requeue "$1"; then # fails if this step has done it on another node
                echo "lost $2: it runs the batch script; requeued" >>"$3"
            elif [ "$((tries += 1))" -ge 5 ] && [ "$(squeue -h -j "$1" -t RUNNING -o %i)" ]; then
                echo "lost $2: it runs the batch script; cannot be requeued, so cancelled" >>"$3"
                scancel "$1"
            fi
        done'
    srun --overlap --no-kill --nodes="${#others[@]}" --ntasks="${#others[@]}" --ntasks-per-node=1 -c 1 \
        --nodelist="$(join , "${others[@]}")" bash -c "$watch" guard "$SLURM_JOB_ID" "$SLURMD_NODENAME" \
        "$(readlink /proc/$$/fd/1)" >/dev/null 2>&1 &
}
