"""The commands of all READMEs succeed; each runs with additional flags for a small, quick model."""

import re
import shlex
import shutil
from pathlib import Path
from typing import List

import pytest

from lstm_dist.programs import bench
from tests.support.launchers import ENVIRONMENT
from tests.support.programs import ROOT, TINY, newest, run
from tests.support.scaling_results import everything, save
from tests.support.trained import Trained

pytestmark = pytest.mark.slow

PROGRAM = re.compile(
    r"(\$ )?(((\./)?launch/\S+\.sh|(\.venv/bin/)?python \S+\.py|(horovodrun|mpirun) -[^#]* python \S+\.py)( [^#]*)?)"
)
RUN_DIR = re.compile(r"runs/[\w-]+")
# Benchmarks that tests/integration/test_bench.py covers.
BENCHMARK = re.compile(r".*jobs/bench\.py( --(workers|profile|guards|large).*)?")


def commands() -> List[str]:
    """Return the commands in code blocks and inline code that start a program, without duplicates."""
    readmes = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in readmes)
    blocks = re.split(r"^```.*$", text, flags=re.MULTILINE)
    candidates = [line for block in blocks[1::2] for line in block.splitlines()]
    candidates += [code for text in blocks[0::2] for code in re.findall(r"`([^`\n]+)`", text)]
    matches = [PROGRAM.fullmatch(re.sub(r"\s+#.*", "", line)) for line in candidates]
    found = (match[2].strip() for match in matches if match)
    return list({command[2:] if command.startswith("./") else command: command for command in found}.values())


def with_two_workers(command: str) -> List[str]:
    """Return the words of the command, for two workers where it is for more; they cover the same code."""
    words = shlex.split(command)
    for flag in ("-n", "-np"):
        if flag in words and "test.sh" not in command:
            words[words.index(flag) + 1] = "2"
    return words


def quick(command: str, song_file: Path, trained: Trained, tmp_path: Path) -> List[str]:
    """Return the command with a small model, the corpus of the tests and a temporary run directory."""
    words = with_two_workers(command.replace(".venv/bin/python", "python").replace("my.txt", str(song_file)))
    run_dir = tmp_path / "run"
    if "--resume" in words:  # train one more epoch of a copy
        shutil.copytree(trained.run_dir, run_dir)
        return [*words, "--epochs=4", f"--run-dir={run_dir}"]
    if "report.py" in command and any(map(RUN_DIR.fullmatch, words)):  # it writes into the folder
        shutil.copytree(trained.run_dir, run_dir)
        shutil.copy(ROOT / "tests" / "data" / "run_of_292ec5e" / "times.jsonl", run_dir)
        return [str(run_dir) if RUN_DIR.fullmatch(word) else word for word in words]
    words = [str(trained.run_dir) if RUN_DIR.fullmatch(word) else word for word in words]
    words = [str(song_file) if word == "corpus" and "train.py" in command else word for word in words]
    if "--prefix" in words:
        words[words.index("--prefix") + 1] = "分开"  # a prefix that occurs in the corpus of the tests
    if "cluster.sh" in command:
        return [*words, "--print"]
    if "--gpu" in words:  # tests/integration/test_gpu_wheel.py runs it, if enabled
        return [*words, "--help"]
    if re.search(r"(scale|report|experiment|prepare|evaluate)\.py", command):
        return measured(words, song_file, trained, tmp_path)
    if "setup.sh" in command or "--help" in words or "doctor.py" in command or "sample.py" in command:
        return words
    if "bench.py" in command:
        words = [str(tmp_path / word) if word.endswith(".png") else word for word in words]
        words = ["2" if word == "1000" else word for word in words]  # megabytes
        small = ["--streams=4", "--seq-len=5", "--hidden-size=16", "--vocab-size=50", "--only=ours"]
        return [*words, *(() if "--prepare" in words else small), "--turns=1"]
    if "test.sh" in command:
        named = "kernels" in words or any(word.startswith("tests/") for word in words)
        return [*words, *(["--collect-only", "-q"] if named else ["tests/unit/test_rng.py"])]
    assert "local.sh" in command or "train.py" in command, f"no rule for running this command: {command}"
    return [*words, *TINY, f"--run-dir={run_dir}"]


def measured(words: List[str], song_file: Path, trained: Trained, tmp_path: Path) -> List[str]:
    """Return the command on the tests' own texts and results; measuring jobs get --dry-run, as other tests run them."""
    if any(program in word for word in words for program in ("scale.py", "experiment.py")):
        return [*(word for word in words if word != "--report"), f"--out={tmp_path}/out", "--dry-run"]
    if any("report.py" in word for word in words):
        save(tmp_path, *everything())
        for job in tmp_path.glob("points/*"):  # --export also reads the runs
            shutil.copytree(trained.run_dir, job / "run")
        return [str(tmp_path) if word == "scaling" else word for word in words]
    if "--corpus" in words:
        return [*words[: words.index("--corpus")], f"--corpus={song_file}"]
    if "--check" in words:
        prepare = ["python", "jobs/prepare.py", str(song_file), f"--out={tmp_path}/out"]
        assert run(prepare, cwd=ROOT, env=ENVIRONMENT).returncode == 0
        return [*words[: words.index("--check")], f"--check={tmp_path}/out"]
    given = words[: words.index("--out")]
    return [*(str(song_file) if word.endswith(".txt") else word for word in given), f"--out={tmp_path}/out"]


def test_commands_are_found():
    found = commands()
    for program in ("launch/local.sh", "launch/test.sh", "doctor.py", "sample.py", "horovodrun", "mpirun", "train.py"):
        assert any(program in command for command in found), program


@pytest.mark.parametrize("command", [command for command in commands() if not BENCHMARK.fullmatch(command)])
def test_command_of_the_readmes_succeeds(command: str, real: Path, song_file: Path, trained: Trained, tmp_path: Path):
    assert real.exists()
    words = quick(command, song_file, trained, tmp_path)
    done = run(words, cwd=ROOT, env={**ENVIRONMENT, "PYTHON": None})
    assert done.returncode == 0, done.stdout + done.stderr
    if words[-1].startswith("--run-dir"):
        assert newest(tmp_path / "run").exists()
        assert (tmp_path / "run" / "perplexity.png").stat().st_size > 0


@pytest.mark.parametrize("command", filter(BENCHMARK.fullmatch, commands()))
def test_benchmark_of_the_readmes_has_valid_flags(command: str):
    bench.parse(shlex.split(command)[2:])
