"""Which code runs: the digest of the source that decides a training run, and what git says of its folder."""

import hashlib
import os
import subprocess
import time
from pathlib import Path
from typing import Dict, Optional

from lstm_dist.cluster.isolation import ROOT

# Packages that start runs, measure them and report on them.
_ABOVE_TRAINING = ("experiments", "scaling", "sweep", "bench", "diagnosis", "programs")

_UNTRACKED_SOURCES = ("*.py", "*.cu", "*.sh", "*.sbatch", "*.env", "*.toml")
_GIT_LIMIT = 5.0  # seconds for all questions to git together, and for reading untracked sources


def code_digest(program: Path) -> str:
    """Return the SHA-256 of the source that decides a training run; a report's caption does not change it.

    Args:
        program: the file that was started, such as jobs/train.py.
    """
    package = Path(__file__).resolve().parents[1]
    modules = [path for kind in ("*.py", "*.cu") for path in package.glob(f"**/{kind}")]
    library = [path for path in modules if path.relative_to(package).parts[0] not in _ABOVE_TRAINING]
    sources = [*sorted(library), package / "programs" / program.name, program]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources if path.is_file())).hexdigest()


def git_facts(root: Path = ROOT, limit: float = _GIT_LIMIT) -> Dict[str, Optional[str]]:
    """Return the commit of a repository, and the digest of what is not committed.

    Args:
        root: of the repository.
        limit: seconds, after which facts that are not known yet stay unknown.

    Returns:
        `git_commit`, the full hash, with "-dirty" after it if tracked files were changed, and `git_uncommitted`, the
        SHA-256 of `git diff HEAD` followed by the names and contents of untracked sources; it is empty if there is
        neither. What is unknown is None: both without git, or if the folder is no repository.
    """
    deadline = time.monotonic() + limit
    head = _git(root, deadline, "rev-parse", "--verify", "HEAD")
    diff = _git(root, deadline, "diff", "HEAD", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color")
    untracked = _git(root, deadline, "ls-files", "-z", "--others", "--exclude-standard", "--", *_UNTRACKED_SOURCES)
    commit = head.decode().strip() + ("-dirty" if diff else "") if head else None
    if diff is None or untracked is None:
        return {"git_commit": commit, "git_uncommitted": None}
    names = sorted(filter(None, untracked.split(b"\0")))
    digest = hashlib.sha256(diff)
    for name in names:
        if time.monotonic() > deadline:  # many files, such as an environment that git does not ignore
            return {"git_commit": commit, "git_uncommitted": None}
        digest.update(b"\0" + name + b"\0" + _content(root / os.fsdecode(name)))
    return {"git_commit": commit, "git_uncommitted": digest.hexdigest() if diff or names else ""}


def _git(root: Path, deadline: float, *words: str) -> Optional[bytes]:
    """Return the output of a question to git; None if it fails, or does not answer until the deadline."""
    if not (root / ".git").exists():  # an installed package may be in a folder of another repository
        return None
    # Variables of a git that has started this program, as a hook, name its repository.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=max(0.0, deadline - time.monotonic()),
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # deleted since, or unreadable
        return b""
