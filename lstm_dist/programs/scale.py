"""Measure how training scales: every measurement is a job of its own, and becomes a row for jobs/report.py.

python jobs/scale.py --workers 1,2 --out scaling                      weak and strong scaling on this machine
python jobs/scale.py --workers 1,2,4,8 -H node1:4,node2:4 --out DIR   on several hosts
python jobs/scale.py network --workers 1,2 --out scaling              the allreduce alone, from 1 KiB on
python jobs/scale.py --workers 1,2 --out scaling --to-perplexity 99   also measure the time to perplexity 99
python jobs/scale.py --workers 1,2 --out DIR -- --hidden-size 512     the flags after -- go to jobs/train.py
python jobs/scale.py --workers 4,8 --controller mpi,gloo --out DIR    with both controllers, relative to 4 workers

The same command resumes an interrupted measurement. In weak scaling, every worker has --streams streams; in strong
scaling, all workers share them. The text is the beginning of the corpus, repeated if it is too short; it grows with
the streams, so that every epoch has --steps steps.
"""

import contextlib
import shlex
import sys
from typing import Any, Dict, Iterator, List, Sequence, Union

from tqdm import tqdm

from lstm_dist.errors import UserError, print_warning
from lstm_dist.experiments.report.formatters import counted
from lstm_dist.experiments.subprocess_job import JobOutcome
from lstm_dist.files import claim, missing_guarantees
from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.parameters import number_of_parameters
from lstm_dist.scaling import records
from lstm_dist.scaling.allreduce_runs import AllreduceJob, AllreduceRuns
from lstm_dist.scaling.experiment_folder import ExperimentFolder
from lstm_dist.scaling.experiment_text import experiment_text, text_length
from lstm_dist.scaling.job_energy import with_accounted_energy
from lstm_dist.scaling.plan import ScalingOptions, parse
from lstm_dist.scaling.point import plan_points
from lstm_dist.scaling.slurm_array import Request, SlurmArray
from lstm_dist.scaling.train_runs import Target, TrainRuns
from lstm_dist.scaling.variation import ITEM_SIZES

Runs = Union[TrainRuns, AllreduceRuns]


def describe_experiment(options: ScalingOptions, text: str, max_chars: int) -> records.Experiment:
    """Return the settings common to all jobs; `text` is that of one worker, `max_chars` is for mode perplexity."""
    flags, config, vocab_size = options.flags, options.train_config, len(set(text))
    parameters = number_of_parameters(vocab_size, config.hidden_size, config.layers)
    return records.Experiment(
        streams=flags.streams,
        seq_len=config.seq_len,
        hidden_size=config.hidden_size,
        layers=config.layers,
        vocab_size=vocab_size,
        parameters=parameters,
        bytes=ITEM_SIZES[options.factors.wire_dtype[0]] * (parameters + FLAGS),
        steps=flags.steps,
        epochs=flags.epochs,
        warm_up=flags.warm_up,
        time_every=flags.time_every,
        **options.factors.own,
        flags=tuple(options.train_flags),
        max_chars=max_chars,
        launcher=options.launcher.description,
    )


def plan_runs(options: ScalingOptions, experiment: records.Experiment, folder: ExperimentFolder) -> Runs:
    """Return all jobs of this command line, measured or not."""
    flags, launcher = options.flags, options.launcher
    if flags.what == "network":
        paths = (*(f"horovod-{controller}" for controller in options.factors.controller), "mpi")
        jobs = [AllreduceJob(path, number) for number in options.workers if number > 1 for path in paths]
        return AllreduceRuns(jobs, folder, launcher, flags.seconds, flags.largest)
    if flags.to_perplexity:
        folder.require_target(flags.to_perplexity)
    modes = [*options.modes, *(["perplexity"] if flags.to_perplexity else [])]
    points = plan_points(options.crews, modes, flags.streams, flags.repeat)
    return TrainRuns(points, experiment, folder, launcher, Target(flags.to_perplexity, flags.max_epochs))


def missing_jobs(runs: Runs, options: ScalingOptions, folder: ExperimentFolder) -> Dict[str, int]:
    """Return the numbers of workers, by name, of the jobs without a row, and of those to be rerun.

    Raises:
        UserError: if --only names no job, or --timeline is given for several.
    """
    flags = options.flags
    if flags.only and flags.only not in runs.workers:
        raise UserError(f"--only {flags.only}: no such job in this experiment; --dry-run lists all")
    rerun = ("failed",) if flags.retry_failed else ()
    kept = [name for name, row in folder.rows(runs.folder.name).items() if row["state"] not in rerun]
    names = [name for name in ([flags.only] if flags.only else runs.workers) if name not in kept]
    if flags.timeline and len(names) != 1:
        reason = f"records a single job, but {len(names)} remain: add --only"
        raise UserError(f"--timeline {flags.timeline}: {reason}")
    return {name: runs.workers[name] for name in names}


def describe_plan(jobs: Dict[str, int], runs: Runs, options: ScalingOptions) -> str:
    """Return how many jobs there are and why, how many remain, and what has no room on the hosts."""
    values: Dict[str, Sequence[Any]] = {"--workers": options.workers, "--controller": options.factors.controller}
    if isinstance(runs, TrainRuns):
        factors = {f"--{name.replace('_', '-')}": chosen for name, chosen in options.factors._asdict().items()}
        kinds = {"--mode": options.modes}
        if options.flags.to_perplexity:
            kinds = {"kinds of job": [*options.modes, "perplexity"]}
        values.update({**kinds, **factors, "--repeat": range(options.flags.repeat)})
    else:
        values = {"--workers": [n for n in options.workers if n > 1], "paths": runs.paths}
    product = " x ".join(f"{len(chosen)} {flag}" for flag, chosen in values.items() if len(chosen) > 1)
    text = counted(len(runs.workers), "job") + (f" ({product})" if product else "")
    if len(jobs) < len(runs.workers):
        text += f", of which {len(jobs)} remain"
    combinations = [(n, varied) for varied in options.factors.variations for n in options.workers]
    own = options.factors.workers_per_node[0]
    no_room = [(n, varied.workers_per_node or own) for n, varied in combinations if (n, varied) not in options.crews]
    unique = dict.fromkeys(f"{n} workers with {per_node} per node" for n, per_node in no_room)
    return text + (f"; left out, as the hosts have no room: {', '.join(unique)}" if unique else "")


def slurm_requests(jobs: Dict[str, int], runs: Runs, own: records.Experiment) -> Dict[str, Request]:
    """Return what each job needs; `own` are the settings of the experiment."""
    if isinstance(runs, AllreduceRuns):
        return {name: Request(number, own.workers_per_node or 1, 1) for name, number in jobs.items()}
    settings = {name: runs.settings(name) for name in jobs}
    return {name: Request(jobs[name], job.workers_per_node or 1, job.threads) for name, job in settings.items()}


def commands(
    jobs: Dict[str, int], runs: Runs, options: ScalingOptions, array: SlurmArray, argv: Sequence[str]
) -> List[str]:
    """Return the commands that --dry-run prints."""
    if options.is_array:
        flags = [word for word in argv if word != "--dry-run"]
        return [shlex.join(command) for command in array.commands(flags)]
    threads = {name: runs.settings(name).threads if isinstance(runs, TrainRuns) else 1 for name in jobs}
    return [f"OMP_NUM_THREADS={threads[name]} " * (threads[name] > 1) + shlex.join(runs.command(name)) for name in jobs]


def measure(
    jobs: Dict[str, int],
    runs: Runs,
    options: ScalingOptions,
    folder: ExperimentFolder,
    array: SlurmArray,
    argv: Sequence[str],
) -> Iterator[Dict[str, Any]]:
    """Run the jobs, or submit them to Slurm, and yield the row of each that has ended."""
    kind, timeline = runs.folder.name, options.flags.timeline
    if options.is_array:
        array.submit(argv)
        for name, error in array.collect(list(jobs), kind):
            if error:
                folder.write_row(kind, runs.row(name, JobOutcome(1, error, 0.0)))
            else:
                folder.write_row(kind, with_accounted_energy(folder.rows(kind)[name], array.jobs[name]))
            yield folder.rows(kind)[name]
        return
    variables = {"HOROVOD_TIMELINE": str(timeline.resolve())} if timeline else {}
    for name in jobs:
        row = runs.measure(name, variables)
        folder.write_row(kind, row)
        yield row


def main(argv: Sequence[str]) -> int:
    """Measure the jobs that have no row yet; return 1 if a job has failed, else 0."""
    options = parse(argv, __doc__ or "")
    flags, folder = options.flags, ExperimentFolder(options.flags.out)
    chars = text_length(flags.streams, flags.steps, options.train_config.seq_len)
    largest = options.workers[-1] if flags.what == "training" else 1
    text = experiment_text(options.train_config, chars, largest)
    experiment = describe_experiment(options, text[:chars], folder.max_chars(options.train_config))
    runs = plan_runs(options, experiment, folder)
    jobs = missing_jobs(runs, options, folder)
    array = SlurmArray(folder, slurm_requests(jobs, runs, experiment), flags.sbatch)
    plan = describe_plan(jobs, runs, options)
    if flags.dry_run:
        print("\n".join([f"# {plan}", *commands(jobs, runs, options, array, argv)]))
        return 0
    if jobs:
        options.launcher.require_usable()
    kind, total, failed = runs.folder.name, len(runs.workers), 0
    folder.open(experiment, kind)
    if kind == "points":
        folder.write_corpus(text)
    with contextlib.ExitStack() as stack:
        if not flags.only:  # jobs of an array run at the same time
            stack.enter_context(claim(flags.out, "--out"))
            for warning in missing_guarantees(flags.out):
                print_warning(warning)
            print(plan, flush=True)
        folder.delete_rows(kind, list(jobs))
        bar = stack.enter_context(tqdm(total=total, initial=total - len(jobs), desc="measuring", unit="job"))
        for row in measure(jobs, runs, options, folder, array, argv):
            if row["state"] == "failed":
                failed += 1
                bar.write(f"{row['id']}: failed with status {row['status']}: {row['message']}", file=sys.stderr)
            records.read_rows(flags.out, flags.allow_mixed)  # raises UserError for rows of several programs or machines
            bar.update()
    hint = "; rerun them with --retry-failed" if failed else ""
    print(f"{len(jobs)} jobs measured, {failed} of them failed{hint}; jobs/report.py writes the report")
    return int(failed > 0)
