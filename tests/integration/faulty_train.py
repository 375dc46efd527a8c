"""jobs/train.py with a fault on one rank at one step: `faulty_train.py KIND:RANK:STEP:FILE [train flags]`.

FILE gets the moment of the fault, so that a test can tell how long the others took to notice.
"""

import os
import runpy
import signal
import sys
import time
from pathlib import Path

from lstm_dist import launcher, trainer

KIND, RANK, STEP, FILE = sys.argv.pop(1).split(":")
steps = 0


def train_step(*args, original=trainer.train_step):
    global steps
    steps += 1
    if steps == int(STEP) and launcher.detect().rank == int(RANK):
        Path(FILE).write_text(str(time.time()))
        if KIND == "raise":
            raise RuntimeError("the cat sat on the keyboard")
        if KIND == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if KIND == "leave":
            os._exit(0)
        if KIND == "nan":
            args[0].parameters.views["b_y"][:] = float("nan")
    return original(*args)


trainer.train_step = train_step
sys.argv[0] = str(Path(__file__).parents[2] / "jobs" / "train.py")
runpy.run_path(sys.argv[0], run_name="__main__")
