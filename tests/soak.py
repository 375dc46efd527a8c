"""Inject failures by the thousand and count wrong outcomes; run by hand.

    .venv/bin/python -m tests.soak                             all experiments, an hour and a half on two cores
    .venv/bin/python -m tests.soak --only=damage --share=0.1   one experiment, a tenth of its trials

The failures are killed processes, damaged checkpoints, invalid settings and failing disks. Each line reports the number
of trials and of wrong outcomes; the exit status is 1 if any outcome is wrong. A control repeats an experiment without
the protection under test. If a control has no wrong outcome, the experiment detects nothing, which counts as wrong.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence

import pytest
from tqdm import tqdm

from lstm_dist.errors import UserError
from lstm_dist.run import checkpoint, checkpoint_dir
from lstm_dist.run.checkpoint import DamagedError, unpack
from lstm_dist.run.checkpoint_dir import CheckpointDir, step_of
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import FIELDS
from lstm_dist.train.setup import set_up
from tests.support import programs
from tests.support.elastic_job import ElasticJob
from tests.support.failing_disk import FAULTS, commit_with_fault, newest_step, with_three
from tests.support.fake_world import FakeWorld, SilentStartup
from tests.support.kill_and_resume import kill_and_resume
from tests.support.launchers import ENVIRONMENT, LAUNCHERS, mpirun
from tests.support.network import Network
from tests.support.outcomes import rows, same_bits
from tests.support.programs import ROOT, TINY, TRAIN, faulty, newest
from tests.support.verses import verses

SUPERVISE = ("python", str(ROOT / "launch" / "supervise.py"))
FLAGS = (*TINY, "--epochs=1000000", "--sample-length=20")
GONE_WITHIN = 12.0  # seconds from a fault to the end of every process


class Trial(NamedTuple):
    """The inputs of an experiment: an empty folder, a corpus, the share of the trials to run, and a random seed."""

    folder: Path
    corpus: Path
    share: float
    seed: int

    def times(self, count: int) -> int:
        """Return the share of `count`, at least 2."""
        return max(2, round(count * self.share))

    def luck(self) -> random.Random:
        """Return a random generator with the seed of this trial."""
        return random.Random(self.seed)  # noqa: S311 - chooses failures, not a secret


class Result(NamedTuple):
    """One line of the report."""

    text: str
    wrong: int


class Started:
    """A running program, and the processes that it starts."""

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        env = {**programs.environment(ENVIRONMENT), programs.MARK: self.mark}
        command = [sys.executable if word == "python" else word for word in argv]
        with (folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, start_new_session=True, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output,
            )  # fmt: skip

    def kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def others(self) -> List[int]:
        """Return the living processes that it has started."""
        return [pid for pid in programs.started_by(self.mark) if pid != self.process.pid]

    def left(self) -> int:
        """Return the number of processes that are still alive after GONE_WITHIN seconds, and kill them."""
        left = programs.wait_for_end(self.mark, GONE_WITHIN)
        for pid in left:
            self.kill(pid)
        self.process.wait()
        return len(left)


class Chain:
    """One run that is killed and resumed repeatedly, and has to end bit-identical to an uninterrupted run."""

    def __init__(self, folder: Path, command: Sequence[str], flags: Sequence[str], luck: random.Random) -> None:
        folder.mkdir()
        self.folder, self.run_dir = folder, folder / "run"
        self.command, self.flags = command, flags
        self.luck = luck
        self.lives = self.lost = self.left = 0

    def start(self) -> Started:
        """Start the run, or resume it if it has a checkpoint."""
        self.lives += 1
        how = ["--resume"] if CheckpointDir(self.run_dir / "checkpoints").paths() else [*self.flags, "--overwrite"]
        return Started([*self.command, *how, f"--run-dir={self.run_dir}"], self.folder)

    def committed(self) -> List[int]:
        """Return the steps whose commit the log reports."""
        with contextlib.suppress(OSError):
            return [int(step) for step in re.findall(r"committed step-(\d+)", (self.run_dir / "log.txt").read_text())]
        return []

    def judge(self) -> None:
        """Count a lost commit unless the newest checkpoint is intact and not older than the last commit in the log."""
        said, paths = self.committed(), CheckpointDir(self.run_dir / "checkpoints").paths()
        if not said and not paths:
            return
        try:
            unpack(paths[0].read_bytes(), paths[0].name)
            self.lost += bool(said) and step_of(paths[0]) < said[-1]
        except (IndexError, DamagedError):
            self.lost += 1

    def ends_as_if_nothing_had_been(self) -> bool:
        """Train this and an uninterrupted run to the end of the epoch; return whether they are bit-identical."""
        facts = unpack(newest(self.run_dir).read_bytes(), "")
        end = f"--epochs={facts.facts['progress']['epoch'] + 1}"
        whole = self.folder / "whole"
        for how in (["--resume", f"--run-dir={self.run_dir}"], [*self.flags, f"--run-dir={whole}"]):
            Started([*self.command, *how, end], self.folder).process.wait()
        try:
            same_bits(whole, self.run_dir)
            assert rows(whole) == rows(self.run_dir)
        except AssertionError as error:
            print(error, file=sys.stderr)
            return False
        return True

    def result(self, text: str, well: bool) -> Result:
        """Return the line of the report that begins with `text`, and the number of wrong outcomes."""
        end = f"the end {'' if well else 'NOT '}bit-identical to the uninterrupted run"
        return Result(f"{text}, {self.left} processes left, {end}", self.lost + self.left + (not well))


def kill_once(chain: Chain) -> None:
    """Start the run, and kill one of its processes while it starts, trains or saves."""
    known, job = len(chain.committed()), chain.start()
    if chain.luck.random() < 0.1:
        time.sleep(chain.luck.uniform(0, 2))
    else:
        while len(chain.committed()) <= known and job.process.poll() is None:
            time.sleep(0.01)
        time.sleep(chain.luck.uniform(0, 0.3))
    job.kill(chain.luck.choice([job.process.pid, *job.others()]))
    chain.left += job.left()
    chain.judge()


def kills(trial: Trial) -> Iterator[Result]:
    """Send kill -9 to a run that trains and saves continuously, with one worker and with two."""
    flags = [*FLAGS, "--checkpoint-every=0.01s", f"--corpus={trial.corpus}"]
    commands = {"alone": TRAIN, "two": [*mpirun(2), *TRAIN]}
    chains = [Chain(trial.folder / name, command, flags, trial.luck()) for name, command in commands.items()]
    counts = [trial.times(700), trial.times(300)]
    with tqdm(total=sum(counts), desc="kills", unit="kill") as bar, ThreadPoolExecutor() as threads:

        def live(chain: Chain, count: int) -> bool:
            for _ in range(count):
                kill_once(chain)
                bar.update()
            return chain.ends_as_if_nothing_had_been()

        same = list(threads.map(live, chains, counts))
    for name, chain, well in zip(("one worker", "two workers, any of them or mpirun"), chains, same):
        text = f"{chain.lives} kill -9 of {name}: {chain.lost} of {len(chain.committed())} commits lost"
        yield chain.result(text, well)


def punish(chain: Chain, seconds: float, tell: Callable[[float], None]) -> Dict[str, int]:
    """Kill a random process of a supervised job every few seconds, and start the job again whenever it has ended."""
    counts = {"kills": 0, "starts": 0, "launchers": 0, "gave up": 0}
    deadline, job = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        if job is None:
            job = chain.start()
            counts["starts"] += 1
        pause = chain.luck.uniform(4, 12)
        time.sleep(pause)
        tell(pause)
        over = job.process.poll() is not None
        counts["gave up"] += over
        if not over:
            victim = job.process.pid if chain.luck.random() < 0.1 else chain.luck.choice(job.others())
            job.kill(victim)
            over = victim == job.process.pid
            counts["kills"] += 1
            counts["launchers"] += over
        if over:
            chain.left += job.left()
            chain.judge()
            job = None
    if job is not None:
        (chain.run_dir / "STOP").touch()
        job.process.wait(timeout=120)
        chain.left += job.left()
    return counts


def punishment(trial: Trial) -> Iterator[Result]:
    """Kill ranks and launchers for half an hour under launch/supervise.py --max-restarts, over both controllers."""
    flags = [*FLAGS, "--checkpoint-every=0.5s", "--stall-timeout=30", f"--corpus={trial.corpus}"]
    seconds = trial.times(1800)
    chains = [
        Chain(trial.folder / name, [*SUPERVISE, f"--{name}", "--max-restarts=1000"], flags, trial.luck())
        for name in ("gloo", "mpi")
    ]
    with tqdm(total=2 * seconds, desc="punishment", unit="s") as bar, ThreadPoolExecutor() as threads:
        counts = list(threads.map(lambda chain: punish(chain, seconds, lambda s: bar.update(round(s))), chains))
        same = list(threads.map(Chain.ends_as_if_nothing_had_been, chains))
    for chain, count, well in zip(chains, counts, same):
        text = (
            f"{seconds / 60:.0f} minutes over {chain.folder.name}: {count['kills']} kills, {count['launchers']} "
            f"of them of the launcher; given up {count['gave up']} times, {chain.lost} commits lost"
        )
        chain.lost += count["gave up"]
        yield chain.result(text, well)


def lose_hosts(job: ElasticJob, network: Network, seconds: float, luck: random.Random) -> "tuple[int, int]":
    """Cut off one host, or all but one, every 20 to 60 s, for 20 to 60 s; return how often, and how often the first.

    The first loss is that of rank 0's host, the second of two hosts, and all others are random.
    """
    losses = firsts = 0
    deadline = time.monotonic() + seconds
    with tqdm(total=round(seconds), desc="elastic", unit="s") as bar:
        while time.monotonic() < deadline:
            lost = [1] if losses == 0 else luck.sample([1, 2, 3], 2 if losses == 1 or luck.random() < 0.2 else 1)
            losses, firsts = losses + 1, firsts + (1 in lost)
            for state in ("down", "up"):
                for number in lost:
                    network.set_link(number, state)
                pause = luck.uniform(20, 60)
                time.sleep(pause)
                bar.update(round(pause))
                if job.process.poll() is not None:
                    return losses, firsts
    return losses, firsts


def elastic(trial: Trial) -> Iterator[Result]:
    """Let hosts disappear and return at random for twenty minutes, under six workers on three hosts (as root)."""
    seconds = trial.times(1200)
    flags = ["-H", "node1:2,node2:2,node3:2", "--min-workers=2", "--max-restarts=1000", "--discover-every=2s"]
    folder = trial.folder / "network"
    folder.mkdir()
    with contextlib.closing(Network(folder, 4)) as network:  # the supervisor is on the fourth
        flags += ["--grow-every=5s", f"--corpus={trial.corpus}"]
        with ElasticJob(network.hosts[3], trial.folder, *flags, commit_every="2s") as job:
            losses, firsts = lose_hosts(job, network, seconds, trial.luck())
            gave_up = job.process.poll() is not None
            status = job.stop()
            said, measured = job.goodputs()
            left = len(job.left(GONE_WITHIN))
            commits, lost, difference = len(job.committed()), job.has_lost_a_commit(), job.difference()
            lines = job.output()
    backs = len(re.findall(r"^node.* back: continuing", lines, re.MULTILINE))
    if gave_up or status != 75:
        print(lines, file=sys.stderr)
    text = (
        f"{seconds / 60:.0f} minutes, {losses} losses of hosts, {firsts} of them of that of rank 0, taken back {backs} "
        f"times: {commits} commits, {int(lost)} lost, {left} processes left, weights within {difference:.1g} of the "
        f"undisturbed run; goodput {said:.1%}, {measured:.1%} by a clock outside"
    )
    differs = (difference >= 1e-4) + (abs(said - measured) > 0.02)
    yield Result(text, gave_up + (status != 75) + lost + left + differs + (not backs))


def a_checkpoint(trial: Trial) -> bytes:
    """Return the bytes of a checkpoint that jobs/train.py wrote."""
    run_dir = trial.folder / "run"
    done = programs.run([*TRAIN, *TINY, f"--corpus={trial.corpus}", f"--run-dir={run_dir}"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return newest(run_dir).read_bytes()


def noise(rng: random.Random, length: int) -> bytes:
    """Return `length` random bytes, as random.Random.randbytes does, which Python 3.8 lacks."""
    return rng.getrandbits(8 * length).to_bytes(length, "little")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the data with one kind of damage that disks, networks or users cause."""
    at, length = rng.randrange(len(data)), rng.choice([1, 4, 512, 4096])
    return rng.choice(
        [
            lambda: data[:at],
            lambda: data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
            lambda: data[:at] + noise(rng, length) + data[at + length :],
            lambda: data[:at] + bytes(min(length, len(data) - at)) + data[at + length :],
            lambda: data[:at] + noise(rng, length) + data[at:],
            lambda: data[:at] + data[at + length :],
            lambda: data + data[at : at + length],
            lambda: data[at:] + data[:at],
            lambda: data.replace(b'"dtype":"F32"', b'"dtype":"I32"', 1),
        ]
    )()


def accepted(data: bytes, count: int, rng: random.Random) -> int:
    """Return how many of `count` damaged checkpoints are accepted as intact."""
    taken = 0
    for _ in tqdm(range(count), desc="damage", unit="file"):
        broken = damaged(data, rng)
        with contextlib.suppress(UserError):
            unpack(broken, "damaged")
            taken += broken != data
    return taken


def damage(trial: Trial) -> Iterator[Result]:
    """Read damaged checkpoints, of which none may be accepted."""
    data, count = a_checkpoint(trial), trial.times(10_000)
    wrong = accepted(data, count, trial.luck())
    yield Result(f"{count:,} damaged checkpoints: {wrong} accepted", wrong)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_verify", lambda *_: None)
        control = accepted(data, count, trial.luck())
    yield Result(f"  control, without the hash: {control:,} accepted", not control)


WORDS = (
    *("", "0", "-1", "1e400", "nan", "inf", "1.5", "x", "\x00", "天", "\udcff", "a" * 5000, "true", "[]", "../..", "="),
    *("60s", "1epoch", "99999999999999999999", "random", "/dev/null", "{}", "é\n", "0x10", "0.1", "1", "2", "8", "--"),
)


def nonsense(rng: random.Random, folder: Path) -> List[str]:
    """Return a random command line, with plausible and implausible values, and in half of the cases a TOML file."""
    argv = []
    for name in rng.sample(sorted(FIELDS), rng.randrange(1, 4)):
        flag = "--" + name.replace("_", rng.choice("--_"))
        word = rng.choice([rng.choice(WORDS), str(FIELDS[name].default)])
        argv += rng.choice([[f"{flag}={word}"], [f"{flag}={word}"], [flag, word], [flag], [flag[:-1]]])
    if rng.random() < 0.5:
        values = [*(json.dumps(word) for word in WORDS), *WORDS, "2026-01-01", "[1, 2]", "{a = 1}", "'''", "[" * 2000]
        lines = [f"{rng.choice([*FIELDS, 'epoch', '[run]', 'a.b', ''])} = {rng.choice(values)}" for _ in range(3)]
        path = folder / "nonsense.toml"
        path.write_text("\n".join(lines[: rng.randrange(1, 4)]), encoding="utf-8", errors="surrogatepass")
        argv.append(f"--config={path}")
    return argv


def fares(argv: Sequence[str]) -> str:
    """Return the outcome of a command line: accepted, refused, or the exception that the user would see."""
    try:
        settings = parse_config(argv)
        settings.facts(), settings.resolved(2, ["x"]), settings.deadline(0.0), settings.every
        if settings.hidden_size <= 64 and settings.streams(2) <= 64:
            set_up(settings, FakeWorld(), SilentStartup())
    except UserError:
        return "refused"
    except SystemExit as error:
        return "refused" if error.code == 0 else f"SystemExit: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def configs(trial: Trial) -> Iterator[Result]:
    """Parse and set up random command lines and configuration files, up to the first weights."""
    rng, count, ends = trial.luck(), trial.times(10_000), []
    usual = ["--hidden-size=8", "--global-batch-size=4", "--seq-len=5", "--max-chars=600", f"--corpus={trial.corpus}"]
    for _ in tqdm(range(count), desc="configs", unit="command"):
        argv = [*rng.choice([[], usual]), *nonsense(rng, trial.folder)]
        ends.append(fares(argv))
        if ends[-1] not in ("accepted", "refused"):
            print(argv, ends[-1], file=sys.stderr)
    wrong = count - ends.count("accepted") - ends.count("refused")
    yield Result(
        f"{count:,} fuzzed configurations: {wrong} tracebacks, {ends.count('refused'):,} refused in one line", wrong
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "UserError", DamagedError)
        control = sum(fares([f"--epochs={word}"]) not in ("accepted", "refused") for word in WORDS)
    yield Result(f"  control, invalid input as exceptions: {control} of {len(WORDS)} seen", not control)


def unrecoverable(folder: Path) -> "tuple[int, int]":
    """Return the number of faults tried at the file operations of a save, and of those that lost the newest step."""
    tried = wrong = 0
    for error, after in itertools.product(FAULTS, (False, True)):
        for number in range(len(commit_with_fault(with_three(folder / uuid.uuid4().hex), -1, error, after, step=3))):
            trial = with_three(folder / uuid.uuid4().hex)
            commit_with_fault(trial, number, error, after, step=3)
            tried += 1
            try:
                wrong += newest_step(trial) < 3
            except UserError:
                wrong += 1
    return tried, wrong


def disk(trial: Trial) -> Iterator[Result]:
    """Inject a crash or an error before and after every file operation of a save."""
    tried, wrong = unrecoverable(trial.folder)
    yield Result(f"{tried} faults at every file operation of a save: {wrong} unrecoverable states", wrong)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_dir, "partial_of", lambda path: path)
        tried, control = unrecoverable(trial.folder)
    yield Result(f"  control, written in place: {control} of {tried} unrecoverable", not control)


def dead(trial: Trial) -> Iterator[Result]:
    """Measure the time from the kill of a rank to the end of its job, under every launcher."""
    seconds = []
    for number in tqdm(range(trial.times(50)), desc="dead", unit="job"):
        launcher, file = list(LAUNCHERS.values())[number % len(LAUNCHERS)], trial.folder / f"fault{number}"
        argv = [*launcher(2), *faulty("kill", number // 3 % 2, 40, file), *FLAGS, f"--corpus={trial.corpus}"]
        programs.run([*argv, f"--run-dir={trial.folder / str(number)}"], env=ENVIRONMENT)
        seconds.append(time.time() - float(file.read_text()))
    wrong = sum(s > 3 for s in seconds)
    spread = f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"
    yield Result(f"{len(seconds)} ranks killed: {len(seconds) - wrong} jobs over within 3 s ({spread})", wrong)


def signals(trial: Trial) -> Iterator[Result]:
    """Measure the delay from SIGTERM to the commit, and each commit, at the D2L chapter's sizes with two workers."""
    luck, seconds, saves, ends = trial.luck(), [], [], []
    for number in tqdm(range(trial.times(20)), desc="signals", unit="job"):
        run_dir = trial.folder / str(number)
        job = Started([*mpirun(2), *TRAIN, f"--run-dir={run_dir}", "--checkpoint-every=1h"], trial.folder)
        while not (run_dir / "checkpoints" / "step-000000000.safetensors").exists():
            time.sleep(0.05)
        time.sleep(luck.uniform(1, 3))
        asked = time.time()
        os.kill(luck.choice([pid for pid in job.others() if is_worker(pid)]), signal.SIGTERM)
        ends.append(job.process.wait(timeout=60))
        seconds.append(newest(run_dir).stat().st_mtime - asked)
        saves += [int(ms) for ms in re.findall(r"committed \S+ in (\d+) ms", (run_dir / "log.txt").read_text())]
    wrong = sum(not 0 < s <= 0.8 for s in seconds) + sum(ms > 250 for ms in saves) + sum(end != 75 for end in ends)
    commit = f"the commit {statistics.median(seconds):.2f} s after the signal, at most {max(seconds):.2f} s"
    cost = f"it takes {statistics.median(saves):.0f} ms, at most {max(saves)} ms"
    yield Result(f"{len(seconds)} stops at the D2L chapter's sizes: {commit}; {cost}", wrong)


def resume(trial: Trial) -> Iterator[Result]:
    """Kill runs at a random step and resume them, for one to three workers, both controllers and both samplings."""
    random.seed(trial.seed)
    places = [([], 1), *((launcher(size), size) for launcher in LAUNCHERS.values() for size in (2, 3))]
    ways = list(itertools.product(places, ("consecutive", "random")))
    count, wrong = trial.times(42), 0
    for number in tqdm(range(count), desc="resume", unit="run"):
        (launcher, size), sampling = ways[number % len(ways)]
        folder = trial.folder / str(number)
        folder.mkdir()
        try:
            kill_and_resume(launcher, folder, size, f"--corpus={trial.corpus}", f"--sampling={sampling}")
        except AssertionError as error:
            wrong += 1
            print(launcher, sampling, error, file=sys.stderr)
    yield Result(f"{count} runs killed at a random step and resumed, 1 to 3 workers: {wrong} end on other bits", wrong)


def is_worker(pid: int) -> bool:
    """Return whether a process is one of the ranks."""
    with contextlib.suppress(OSError):
        return b"jobs/train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


EXPERIMENTS = (dead, signals, disk, damage, configs, resume, kills, punishment, elastic)


def main() -> int:
    """Run the selected experiments; return 1 if any outcome was wrong, else 0."""
    names = {function.__name__: function for function in EXPERIMENTS}
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    help_text = " ".join(f"{name}: {function.__doc__}" for name, function in names.items())
    parser.add_argument("--only", action="append", choices=list(names), help=f"only this; repeatable. {help_text}")
    parser.add_argument("--share", type=float, default=1.0, help="how much of each (default 1.0)")
    parser.add_argument("--seed", type=int, default=0, help="of the random failures (default 0)")
    given = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="soak") as place:
        corpus = Path(place) / "song.txt"
        corpus.write_text("\n".join(verses()) + "\n", encoding="utf-8")
        for name in given.only or names:
            folder = Path(place) / name
            folder.mkdir()
            for result in names[name](Trial(folder, corpus, given.share, given.seed)):
                tqdm.write(f"{'WRONG: ' if result.wrong else ''}{result.text}")
                sys.stdout.flush()
                wrong += result.wrong
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
