"""Start of a program without the variables that another project has set for its own Python."""

import os
import re
import sys
from pathlib import Path
from typing import Dict, Mapping

ROOT = Path(__file__).resolve().parents[2]  # of the repository
IGNORED = "LSTM_DIST_IGNORED"  # environment variable with the names of those that were left out

# Python 3.8 to 3.11 read variables of this form; PYTHON_VERSION, which images of containers set, is not one.
_OF_PYTHON = re.compile(r"PYTHON[A-Z0-9]+")
_HARMLESS = frozenset(
    "PYTHONCOERCECLOCALE PYTHONDONTWRITEBYTECODE PYTHONFAULTHANDLER PYTHONHASHSEED PYTHONNOUSERSITE "
    "PYTHONPYCACHEPREFIX PYTHONSTARTUP PYTHONUNBUFFERED PYTHONUTF8".split()
)


def isolate() -> None:
    """Start this program again without variables of another project, if there are any; call it before other imports.

    PYTHONOPTIMIZE, PYTHONWARNINGS and the like take effect before the first line of a program, and PYTHONPATH also in
    every program that it starts. The process id and the launcher's variables stay the same.
    """
    environ = isolated(os.environ)
    if environ != dict(os.environ):
        arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")[1:-1]
        os.execve(sys.executable, [os.fsencode(sys.executable), *arguments], environ)  # noqa: S606 - a shell would change the pid


def isolated(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables without those that change how Python runs or what it imports.

    Of PYTHONPATH, the entry of this repository is kept. The names of what is left out are added, as IGNORED.
    """
    path = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if _is_ours(entry)]
    own = {"PYTHONPATH": os.pathsep.join(path)} if path else {}
    foreign = [
        name
        for name, value in environ.items()
        if _OF_PYTHON.fullmatch(name) and value and name not in _HARMLESS and own.get(name) != value
    ]
    if not foreign:
        return dict(environ)
    kept = {name: value for name, value in environ.items() if name not in foreign}
    return {**kept, **own, IGNORED: " ".join(sorted(foreign))}


def _is_ours(entry: str) -> bool:
    return Path(entry, "lstm_dist").resolve() == ROOT / "lstm_dist"
