"""jobs/train.py with a fault on one rank at one step: `faulty_train.py KIND:RANK:STEP:FILE [train flags]`.

The time of the fault is written to FILE, so that a test can measure how long the other ranks took to notice it. If FILE
exists already, there is no fault, so that a restarted job finishes. If LSTM_DIST_TEST_STEPS names a file, rank 0
appends the times at which steps begin to it.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from lstm_dist.cluster import launch_env
from lstm_dist.cluster.bootstrap import prepare_process
from lstm_dist.cluster.startup import Startup
from lstm_dist.errors import one_line_errors

KIND, RANK, STEP, FILE = sys.argv.pop(1).split(":")
STEPS = os.environ.get("LSTM_DIST_TEST_STEPS")
steps = 0


def fail(model):  # noqa: ARG001 - one interface
    raise RuntimeError("the cat sat on the keyboard")


def poison(model):
    model.parameters.views["b_y"][:] = float("nan")


def drift(model):
    model.parameters.views["b_y"][:1] += 1e-3


def many_signals(model):  # noqa: ARG001
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)


FAULTS = {
    "raise": fail,
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda _: ctypes.string_at(0),
    "leave": lambda _: os._exit(0),
    "hang": lambda _: time.sleep(600),
    "freeze": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "lock": lambda _: ctypes.PyDLL(None).sleep(600),  # the GIL stays held
    "nan": poison,
    "drift": drift,
    "signal": lambda _: os.kill(os.getpid(), signal.SIGUSR1),
    "signals": many_signals,
    "slow": lambda _: time.sleep(2),
    "noise": lambda _: os.write(1, b"\xff\xfe not UTF-8\n"),
}


def with_fault(train_step):
    def run(*args):
        global steps
        steps += 1
        if STEPS and launch_env.detect().rank == 0:
            with open(STEPS, "a") as file:
                file.write(f"{time.time()}\n")
        if steps == int(STEP) and launch_env.detect().rank == int(RANK) and not Path(FILE).exists():
            Path(FILE).write_text(str(time.time()))
            FAULTS[KIND](args[0])
        return train_step(*args)

    return run


sys.argv[0] = str(Path(__file__).parents[2] / "jobs" / "train.py")
with one_line_errors():  # as in jobs/train.py, where MXNet is loaded last
    startup = Startup.begin(os.environ)
    affinity = prepare_process()
    from lstm_dist.train import trainer

    trainer.train_step = with_fault(trainer.train_step)
    from lstm_dist.programs.train import main

    main(startup, affinity)
