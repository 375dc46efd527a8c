"""Measure how training scales: every point is a job of its own, and becomes a row for jobs/report.py.

python jobs/scale.py --workers 1,2 --out scaling                      weak and strong scaling on this machine
python jobs/scale.py --workers 1,2,4,8 -H node1:4,node2:4 --out DIR   on several hosts
python jobs/scale.py network --workers 1,2 --out scaling              the allreduce alone, from 1 KiB on
python jobs/scale.py --workers 1,2 --out scaling --to-perplexity 99   how much text each batch size needs, and how long
python jobs/scale.py --workers 1,2 --out DIR -- --hidden-size 512     what is behind -- goes to jobs/train.py

The same command goes on where it was interrupted. In weak scaling every worker has the --streams that one has alone, in
strong scaling all have them together. The text grows with the streams, so that every epoch has --steps.
"""

import contextlib
import shlex
import sys
from typing import Any, Dict, Iterator, List, Sequence, Union

from tqdm import tqdm

from lstm_dist.errors import UserError
from lstm_dist.experiments.subprocess_job import Outcome
from lstm_dist.files import claim
from lstm_dist.scaling import records
from lstm_dist.scaling.allreduce_runs import Network, Probe
from lstm_dist.scaling.plan import Request, parse
from lstm_dist.scaling.point import plan
from lstm_dist.scaling.runner import Experiment, Folder, Target, base_text, model_facts
from lstm_dist.scaling.slurm_array import Array
from lstm_dist.scaling.train_runs import Training

Measured = Union[Training, Network]


def describe(request: Request, text: str) -> Experiment:
    """What all points have in common."""
    given = vars(request.options)
    own = {name: given[name] for name in ("streams", "steps", "epochs", "warm_up", "time_every", "threads")}
    facts = model_facts(request.settings, len(set(text)))
    return Experiment(**own, **facts, flags=request.flags, launcher=request.launcher.words)


def choose(request: Request, experiment: Experiment, folder: Folder) -> Measured:
    """What is to be measured."""
    options, launcher = request.options, request.launcher
    if options.what == "network":
        paths = (f"horovod-{options.controller}", "mpi")
        probes = [Probe(path, number) for number in request.workers[1:] for path in paths]
        return Network(probes, folder, launcher, options.seconds, options.largest)
    if options.to_perplexity:
        folder.require_target(options.to_perplexity)
    modes = [*request.modes, *(["perplexity"] if options.to_perplexity else [])]
    points = plan(request.workers, modes, options.streams, options.repeat)
    return Training(points, experiment, folder, launcher, Target(options.to_perplexity, options.max_epochs))


def still_to_do(what: Measured, request: Request, folder: Folder) -> Dict[str, int]:
    """The jobs without a row, and those to be measured again: their numbers of workers, by name."""
    options, kind = request.options, what.folder.name
    if options.only and options.only not in what.workers:
        raise UserError(f"--only {options.only}: there is no such job here; --dry-run shows them all")
    again = ("failed",) if options.retry_failed else ()
    kept = [name for name, row in folder.rows(kind).items() if row["state"] not in again]
    names = [name for name in ([options.only] if options.only else what.workers) if name not in kept]
    if options.timeline and len(names) != 1:
        raise UserError(f"--timeline {options.timeline}: is of one job, and there are {len(names)} to run: add --only")
    return {name: what.workers[name] for name in names}


def commands(jobs: Dict[str, int], what: Measured, request: Request, array: Array, argv: Sequence[str]) -> List[str]:
    """What would be run."""
    shown = [word for word in argv if word != "--dry-run"]
    own = array.commands(jobs, shown) if request.is_array else [what.command(name) for name in jobs]
    return [shlex.join(command) for command in own]


def measure(
    jobs: Dict[str, int], what: Measured, request: Request, folder: Folder, array: Array, argv: Sequence[str]
) -> Iterator[Dict[str, Any]]:
    """Run the jobs, or have Slurm run them; their rows, as they come."""
    kind, timeline = what.folder.name, request.options.timeline
    if request.is_array:
        array.submit(jobs, argv)
        for name, lost in array.collect(list(jobs), kind):
            if lost:
                folder.keep(kind, what.row(name, Outcome(1, lost, 0.0)))
            yield folder.rows(kind)[name]
        return
    variables = {"HOROVOD_TIMELINE": str(timeline.resolve())} if timeline else {}
    for name in jobs:
        row = what.measure(name, variables)
        folder.keep(kind, row)
        yield row


def main(argv: Sequence[str]) -> int:
    """Measure what has no row yet; 1 if a job has failed."""
    request = parse(argv, __doc__ or "")
    options, folder = request.options, Folder(request.options.out)
    text = base_text(request.settings, options.streams, options.steps)
    experiment = describe(request, text)
    what = choose(request, experiment, folder)
    jobs = still_to_do(what, request, folder)
    array = Array(folder, options.per_node, options.sbatch)
    if options.dry_run:
        print("\n".join(commands(jobs, what, request, array, argv)) or "nothing is left to measure")
        return 0
    folder.open(experiment)
    folder.write_corpus(text, request.workers[-1])
    total, failed = len(what.workers), 0
    with contextlib.ExitStack() as stack:
        folder.forget(what.folder.name, list(jobs))
        if not options.only:  # of an array, several are measured at a time
            stack.enter_context(claim(options.out, "--out"))
        bar = stack.enter_context(tqdm(total=total, initial=total - len(jobs), desc="measuring", unit="job"))
        for row in measure(jobs, what, request, folder, array, argv):
            if row["state"] == "failed":
                failed += 1
                bar.write(f"{row['id']}: failed with {row['status']}: {row['message']}", file=sys.stderr)
            records.read(options.out, options.allow_mixed)  # refuses those of several programs or machines
            bar.update()
    again = ": --retry-failed measures those again" if failed else ""
    print(f"{len(jobs)} jobs measured, {failed} of them failed{again}; jobs/report.py makes their report")
    return int(failed > 0)
