"""A machine without Python packages: the set-up scripts with a fake Python, which keeps each run short."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from tests.support.programs import ROOT, run

TOOLS = (
    "awk bash basename cat chmod cp cut date df dirname env find flock g++ gcc c++ cc as ld grep head ln ls make mkdir "
    "mv nproc readlink rm sed sh sha256sum sleep tail timeout touch tty uname wc"
).split()
# What NVIDIA's packages install in the folder nvidia/, as far as launch/setup.sh uses it, and MXNet's library.
CUDA_FILES = (
    "cu13/bin/nvcc cu13/nvvm/bin/cicc cu13/include/crt/host_runtime.h cu13/include/fatbinary_section.h "
    "cu13/include/cuda_runtime.h cu13/lib/libcudadevrt.a cuda_runtime/include/cuda_runtime.h "
    "cuda_runtime/include/cuda_fp16.hpp cuda_runtime/include/__init__.py cuda_runtime/lib/libcudart.so.11.0 "
    "cublas/include/cublas_v2.h cublas/include/__init__.py curand/include/curand.h cusolver/include/cusolverDn.h "
    "nccl/include/nccl.h nccl/lib/libnccl.so.2 ../mxnet/libmxnet.so"
)
# A Python that prints its version, creates "environments" with itself, horovodrun and mpirun, records calls of pip, and
# installs CUDA_FILES in place of NVIDIA's packages.
FAKE_PYTHON = r"""#!/bin/sh
version={version}
case "$*" in
    *sys.version_info*) echo $version ;;
    *"import ensurepip, venv"*) exit {no_venv} ;;
    "-m venv "*)
        echo "venv $version" >>"$FAKE_CALLS"
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
        for tool in horovodrun mpirun; do
            printf '#!/bin/sh\necho "%s $*" >>"$FAKE_CALLS"\n' $tool >"$3/bin/$tool"
            printf 'case "%s $*" in *"${{FAKE_FAIL:-@never@}}"*) exit 1 ;; esac\n' $tool >>"$3/bin/$tool"
            chmod +x "$3/bin/$tool"
        done ;;
    "-m pip "*)
        echo "$*" >>"$FAKE_CALLS"
        [ -z "$HOROVOD_GPU_OPERATIONS" ] || echo "$HOROVOD_GPU_OPERATIONS by $(command -v nvcc)" >>"$FAKE_CALLS"
        [ ! -f "${{LD_LIBRARY_PATH%%:*}}/libcuda.so.1" ] || echo "with a stub of the driver" >>"$FAKE_CALLS"
        case "$*" in *"[gpu,nvcc]")
            for file in {cuda_files}; do
                file=$(dirname "$0")/nvidia/$file
                mkdir -p "$(dirname "$file")" && : >"$file" && chmod +x "$file"
            done ;;
        esac
        sleep "${{FAKE_SLEEP:-0}}"
        case "$*" in *"${{FAKE_FAIL:-@never@}}"*) echo "${{FAKE_SAYS:-ERROR: it went wrong}}"; exit 1 ;; esac ;;
    *sysconfig*) dirname "$0" ;;
    *find_spec*) case " $* " in *" ${{FAKE_LACKS:-@never@}} "*) exit 1 ;; esac ;;
    "- "*setup.py*) exit ${{FAKE_UNMET:-0}} ;;
    *libcuda*) exit ${{FAKE_NO_DRIVER:-0}} ;;
    *horovod.mxnet*) exit ${{FAKE_HOROVOD:-0}} ;;
    -) echo "mxnet and openmpi" ;;
esac
"""


class Machine:
    """A copy of the repository's set-up scripts, and a PATH with selected tools."""

    def __init__(self, root: Path) -> None:
        self.repo = root / "repo"
        self.bin = root / "bin"
        self.calls_file = root / "calls"
        self.bin.mkdir()
        self.calls_file.touch()
        (self.repo / "launch").mkdir(parents=True)
        for name in ("setup", "local", "cluster", "test"):
            shutil.copy(ROOT / "launch" / f"{name}.sh", self.repo / "launch")
        shutil.copy(ROOT / "setup.py", self.repo)
        for tool in TOOLS:
            found = shutil.which(tool)
            if found:
                (self.bin / tool).symlink_to(found)

    def tool(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, name: str, version: str, has_venv: bool = True) -> Path:
        return self.tool(name, FAKE_PYTHON.format(version=version, no_venv=int(not has_venv), cuda_files=CUDA_FILES))

    def run(self, *arguments: str, prefix: Sequence[str] = (), **env: str) -> "subprocess.CompletedProcess[str]":
        """Run launch/setup.sh."""
        return self.start("setup", *arguments, prefix=prefix, **env)

    def start(
        self, name: str, *arguments: str, prefix: Sequence[str] = (), cwd: Optional[Path] = None, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a script of the folder launch."""
        argv = [*prefix, str(self.repo / "launch" / f"{name}.sh"), *arguments]
        return run(argv, cwd=cwd, env=self.variables(**env), timeout=60)

    def variables(self, **env: str) -> Dict[str, Optional[str]]:
        fixed = {"PATH": str(self.bin), "FAKE_CALLS": str(self.calls_file), "PYTHON": None, "CXX": None}
        return {**fixed, **env}

    def contents(self) -> Dict[Path, Tuple[int, int]]:
        """Return size and time of modification of every file and folder of the repository."""
        found = {path: path.lstat() for path in self.repo.rglob("*")}
        return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}

    def calls(self) -> List[str]:
        """Return the recorded calls since the previous call of this method."""
        lines = self.calls_file.read_text().splitlines()
        self.calls_file.write_text("")
        return lines


def one_line(result: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    """Check that a run failed with one line on stderr that contains all parts."""
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stdout
    for part in ("setup.sh: ", *parts):
        assert part in lines[0]


def compiled(calls: Sequence[str]) -> bool:
    return any("[horovod]" in call for call in calls)


def extras(calls: Sequence[str]) -> List[str]:
    return [match[1] for call in calls for match in [re.search(r"\[(.*)\]$", call)] if match]
