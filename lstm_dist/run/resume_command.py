"""The command that resumes a run, as it can be pasted into the shell that started the run."""

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import List

from lstm_dist.attempt import ATTEMPT
from lstm_dist.cluster import launch_env
from lstm_dist.cluster.launcher_watch import parent_of
from lstm_dist.cluster.process_tree import command_line


def resume_flags(run_dir: Path) -> List[str]:
    """Return the flags of jobs/train.py that resume a run."""
    name = str(run_dir)
    return ["--resume", "--run-dir", f"./{name}" if name.startswith("-") else name]


def resume_command(run_dir: Path) -> str:
    """Return the command that resumes the run of this process, or only its flags if the launcher is not known.

    A program that starts training under ATTEMPT reports its own command.
    """
    words = [] if ATTEMPT in os.environ else _command(sys.argv[0])
    return shlex.join([*words, *resume_flags(run_dir)])


def _command(program: str) -> List[str]:
    """Return the command line of this process or, under a launcher, that of the launcher, up to the program's name.

    The launcher is the uppermost process above this one whose command line contains the program's name. It is not found
    if it runs on another host.
    """
    commands: List[List[str]] = []
    pid = os.getpid()
    with contextlib.suppress(OSError):  # a process has ended, or is another user's
        while pid > 1:
            words = [os.fsdecode(word) for word in command_line(pid)]
            if program in words:
                commands.append(words[: words.index(program) + 1])
            pid = parent_of(pid)
    is_known = len(commands) > (0 if launch_env.detect().name == "none" else 1)
    return commands[-1] if is_known else []
