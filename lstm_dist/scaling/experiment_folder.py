"""The folder of a scaling experiment: its settings, the corpus of its timed jobs, and one row per job."""

import json
from pathlib import Path
from typing import Any, Dict, Sequence

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.folder import create_or_continue, write_json
from lstm_dist.experiments.records import read_json
from lstm_dist.files import replace_text
from lstm_dist.scaling.records import CORPUS, Experiment
from lstm_dist.train.config import RunConfig


class ExperimentFolder:
    """An experiment on disk: experiment.json, corpus.txt, and a row and a run for every measured job.

    Jobs are of two kinds, each with a subfolder of that name: points (training) and network (allreduces alone).
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def max_chars(self, settings: RunConfig) -> int:
        """Return how many characters of the corpus the jobs of mode perplexity use; 0 means all.

        Folders with training jobs from before this was stored go on with the default of that time, 20,000 of any text
        that is not prepared, so that all of their jobs train on the same.
        """
        try:
            is_stored = "max_chars" in json.loads((self.path / "experiment.json").read_bytes())
        except (OSError, ValueError, TypeError):
            is_stored = True  # `open` creates the file, or refuses it
        is_folder = bool(settings.corpus and settings.corpus[0].is_dir())
        if is_stored or is_folder or settings.max_chars is not None or not (self.path / "points").exists():
            return settings.kept_chars
        return 20_000

    def open(self, experiment: Experiment, kind: str) -> None:
        """Create or continue this experiment, with jobs of this kind.

        Jobs of kind network depend on the launcher alone. They take over all other settings of a folder that exists,
        and training in a folder without training jobs replaces them. The number of bytes follows from the others, and
        from the number of control flags, of which earlier versions had fewer.

        Raises:
            UserError: if the folder holds another experiment or other files.
        """
        file, settings = self.path / "experiment.json", experiment.model_dump()
        is_trained = (self.path / "points").exists()
        needed = [key for key in settings if key != "bytes"] if kind == "points" and is_trained else ["launcher"]
        defaults = {"layers": 1, "max_chars": experiment.max_chars}  # for folders without these settings
        create_or_continue(file, settings, "another experiment,", defaults, needed)
        if kind == "points" and not is_trained:
            write_json(file, settings)
            (self.path / "points").mkdir(exist_ok=True)

    def rows(self, kind: str) -> Dict[str, Dict[str, Any]]:
        """Return the rows of one kind by job name.

        Raises:
            UserError: if a row is not JSON.
        """
        files = sorted(self.path.glob(f"{kind}/*/row.json"))
        return {file.parent.name: read_json(file) for file in files}

    def write_row(self, kind: str, row: Dict[str, Any]) -> None:
        """Store a row."""
        folder = self.path / kind / row["id"]
        folder.mkdir(parents=True, exist_ok=True)  # a job that failed to start has no folder
        write_json(folder / "row.json", row)

    def delete_rows(self, kind: str, names: Sequence[str]) -> None:
        """Delete the rows of jobs that will be measured again."""
        for name in names:
            file = self.path / kind / name / "row.json"
            if file.exists():
                file.unlink()

    def require_target(self, perplexity: float) -> None:
        """Raise UserError if the folder has training jobs with another target perplexity."""
        for row in self.rows("points").values():
            if row.get("target", perplexity) != perplexity:
                raise UserError(
                    f"--to-perplexity {perplexity:g}: the target of {row['id']} was {row['target']:g}: give another "
                    "--out folder"
                )

    def write_corpus(self, text: str) -> None:
        """Write the text of the timed jobs, or extend it for more workers.

        What exists is kept, so that all jobs of a number of workers read the same. In folders from before the text of
        several workers was a longer part of the corpus, it is one worker's text, repeated.

        Raises:
            UserError: if what exists is not UTF-8.
        """
        file = self.path / CORPUS
        try:
            kept = file.read_bytes().decode() if file.exists() else ""
        except UnicodeDecodeError:
            raise UserError(
                f"--out {self.path}: {CORPUS} is damaged: remove it, and it is written again", ExitStatus.BAD_DATA
            ) from None
        if len(kept) < len(text):
            replace_text(file, kept + text[len(kept) :])
