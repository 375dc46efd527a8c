"""Trials for the exercises of the D2L chapter: its settings, and variations of one setting at a time."""

from typing import Dict, List, NamedTuple, Sequence, Tuple

from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches
from lstm_dist.errors import UserError
from lstm_dist.train.config import RunConfig
from lstm_dist.train.text import load_text

# The varied settings and their default values, which include the D2L chapter's.
DEFAULT = {
    "max-chars": ("5000", "10000", "20000"),
    "seq-len": ("17", "35", "70"),
    "learning-rate": ("0.03", "0.1", "0.3"),
    "hidden-size": ("64", "128", "256"),
    "batches": ("consecutive/epoch", "consecutive/window", "random/window", "random/epoch"),
}
CHAPTER = {
    "max-chars": "20000",
    "seq-len": "35",
    "learning-rate": "0.1",
    "hidden-size": "256",
    "batches": "consecutive/epoch",
}
MEANING = {
    "max-chars": "characters of the corpus, including the validation set",
    "seq-len": "characters per window",
    "learning-rate": "learning rate of SGD",
    "hidden-size": "size of the LSTM's hidden state",
    "batches": "sampling of the windows / when the state is zeroed",
}

# Training settings that the trials determine, and what the error message suggests instead.
_DETERMINED = {
    "max_chars": "use --vary max-chars=",
    "seq_len": "use --vary seq-len=",
    "learning_rate": "use --vary learning-rate=",
    "hidden_size": "use --vary hidden-size=",
    "sampling": "use --vary batches=",
    "state_reset": "use --vary batches=",
    "seed": "use --seeds",
    "epochs": "use --epochs before the --",
    "valid_fraction": "use --valid-fraction before the --",
    "run_dir": "use --out",
    "log_every": "leave it out",
    "checkpoint_every": "leave it out",
    "eval_every": "leave it out",
    "until_perplexity": "leave it out",
    "dry_run": "use --dry-run before the --",
}


def refuse_determined(settings: RunConfig, defaults: RunConfig) -> None:
    """Refuse settings that the trials determine.

    Raises:
        UserError: if one is set; the message names the flag.
    """
    for name, instead in _DETERMINED.items():
        if getattr(settings, name) != getattr(defaults, name):
            raise UserError(f"--{name.replace('_', '-')} after --: the trials determine it: {instead}")


def require_long_enough(settings: RunConfig, workers: int) -> None:
    """Check, before the first trial starts, that the training text is long enough.

    Raises:
        UserError: if it is too short; the message names --corpus.
    """
    text = load_text(settings)
    kept = len(text.tokens) - int(settings.valid_fraction * len(text.tokens))
    batches = RandomBatches if settings.sampling == "random" else ConsecutiveBatches
    batches(text.tokens[:kept], settings.streams(workers), settings.seq_len)


class Trial(NamedTuple):
    """One run.

    Attributes:
        values: value of every factor.
        seed: seed of the initial weights.
    """

    values: Tuple[Tuple[str, str], ...]
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the trial's folder: its differences from the D2L chapter, and the seed."""
        differ = [f"{factor}-{value.replace('/', '-')}" for factor, value in self.values if value != CHAPTER[factor]]
        return f"{'-'.join(differ) or 'document'}-s{self.seed}"

    @property
    def flags(self) -> List[str]:
        """Return the flags of jobs/train.py."""
        flags = [f"--{factor}={value}" for factor, value in self.values if factor != "batches"]
        sampling, state_reset = dict(self.values)["batches"].split("/")
        return [*flags, f"--sampling={sampling}", f"--state-reset={state_reset}", f"--seed={self.seed}"]


def plan_trials(grid: Dict[str, Sequence[str]], seeds: int) -> List[Trial]:
    """Return all trials: at most one factor differs from the D2L chapter; each seed is complete before the next."""
    settings = [dict(CHAPTER)] + [{**CHAPTER, factor: value} for factor in grid for value in grid[factor]]
    distinct = list(dict.fromkeys(tuple(setting.items()) for setting in settings))
    return [Trial(values, seed) for seed in range(seeds) for values in distinct]


def parse_grid(given: Sequence[str]) -> Dict[str, Sequence[str]]:
    """Parse --vary, such as `seq-len=17,35`; return DEFAULT if nothing is given.

    Raises:
        UserError: for an unknown factor, or one without values.
    """
    grid: Dict[str, Sequence[str]] = {}
    for text in given:
        factor, _, values = text.partition("=")
        if factor not in DEFAULT:
            raise UserError(f"--vary {text}: should begin with one of {', '.join(DEFAULT)}, followed by =")
        grid[factor] = [value for value in values.split(",") if value]
        if not grid[factor]:
            raise UserError(f"--vary {text}: give at least one value, as in {factor}={','.join(DEFAULT[factor])}")
        wrong = [value for value in grid[factor] if factor == "batches" and value not in DEFAULT["batches"]]
        if wrong:
            raise UserError(f"--vary {text}: {wrong[0]!r} should be one of {', '.join(DEFAULT['batches'])}")
    return grid if grid else dict(DEFAULT)
