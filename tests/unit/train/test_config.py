"""Run configuration: flags override the file, which overrides defaults; errors name the flag or the key."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from lstm_dist.errors import UserError
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import FIELDS, RunConfig
from lstm_dist.train.interval import NEVER, Interval, Intervals
from lstm_dist.train.same_run import require_same_run

FLAGS = ["--" + name.replace("_", "-") for name in FIELDS]


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return f"--config={path}"


def test_defaults_are_the_hyperparameters_of_the_d2l_chapter():
    settings = parse_config([])
    assert settings == RunConfig()
    assert settings.to_json() == {
        "corpus": None,
        "encoding": None,
        "keep_newlines": False,
        "max_chars": None,
        "valid_fraction": 0.0,
        "max_corpus_bytes": 2**28,
        "sampling": "consecutive",
        "state_reset": None,
        "seq_len": 35,
        "global_batch_size": None,
        "batch_size_per_worker": None,
        "hidden_size": 256,
        "layers": 1,
        "init": None,
        "epochs": 200,
        "learning_rate": 0.1,
        "learning_rate_schedule": "constant",
        "warm_up_steps": 0,
        "decay_epochs": None,
        "decay_factor": 0.1,
        "max_norm": 5.0,
        "reference_batch_size": 32,
        "seed": 0,
        "device": "auto",
        "recurrence": "auto",
        "run_dir": None,
        "wire_dtype": "float32",
        "overwrite": False,
        "resume": False,
        "auto_resume": False,
        "dry_run": False,
        "checkpoint_every": "60s",
        "time_limit": None,
        "until_perplexity": None,
        "time_every": 0,
        "tensorboard": False,
        "eval_every": "1epoch",
        "stall_timeout": 300.0,
        "log_every": "20epochs",
        "prefix": None,
        "sample_length": 100,
    }
    assert settings.streams(1) == settings.streams(4) == 32
    assert settings.kept_chars == 20_000
    assert parse_config(["--corpus=my.txt"]).kept_chars == 0
    assert parse_config(["--corpus=my.txt", "--max-chars=20000"]).kept_chars == 20_000


def test_flags_override_the_file_and_the_file_overrides_defaults(tmp_path: Path):
    file = toml(tmp_path, 'epochs = 7\nhidden_size = 64\nprefix = ["天"]\ncorpus = "歌.txt"\nlearning_rate = 1')
    settings = parse_config(["--epochs=9", file, "--prefix", "地", "--prefix=人和", "--max-chars", "0"])
    assert (settings.epochs, settings.hidden_size, settings.max_chars, settings.seq_len) == (9, 64, 0, 35)
    assert settings.prefix == ["地", "人和"]
    assert settings.corpus == [Path("歌.txt")]
    assert settings.learning_rate == 1.0
    assert parse_config([file]).prefix == ["天"]


def test_corpus_is_one_text_or_several(tmp_path: Path):
    several = parse_config(["--corpus", "a", "--corpus=b"])
    assert several.corpus == [Path("a"), Path("b")]
    assert several == parse_config([toml(tmp_path, 'corpus = ["a", "b"]')])
    assert several.to_json()["corpus"] == ["a", "b"]
    assert several.resolved(1, [])["corpus"] == [str(Path("a").resolve()), str(Path("b").resolve())]
    assert parse_config([], several.resolved(1, [])).corpus == [Path("a").resolve(), Path("b").resolve()]
    assert parse_config([], parse_config(["--corpus=a"]).resolved(1, [])).corpus == [Path("a").resolve()]
    assert parse_config(["--corpus=c"], several.resolved(1, [])).corpus == [Path("c")]


EVERY_FIELD: Dict[str, Any] = {
    "corpus": "a.txt",
    "encoding": "gb18030",
    "keep_newlines": True,
    "max_chars": 1,
    "valid_fraction": 0.5,
    "max_corpus_bytes": 2,
    "sampling": "random",
    "state_reset": "window",
    "seq_len": 3,
    "global_batch_size": 4,
    "batch_size_per_worker": 5,
    "hidden_size": 6,
    "layers": 2,
    "init": "b.safetensors",
    "epochs": 7,
    "learning_rate": 0.25,
    "learning_rate_schedule": "cosine",
    "warm_up_steps": 13,
    "decay_epochs": 14,
    "decay_factor": 0.75,
    "max_norm": 8.5,
    "reference_batch_size": 9,
    "seed": 10,
    "device": "cpu",
    "recurrence": "loop",
    "wire_dtype": "float16",
    "run_dir": "c",
    "overwrite": True,
    "dry_run": True,
    "checkpoint_every": "5m",
    "time_limit": "2h",
    "until_perplexity": 50.0,
    "time_every": 25,
    "tensorboard": True,
    "eval_every": "15steps",
    "stall_timeout": 7.5,
    "log_every": "11s",
    "prefix": ["天"],
    "sample_length": 12,
}


NEEDED = {  # flags without which a field has no effect
    "decay_epochs": ["--learning-rate-schedule=cosine"],
    "decay_factor": ["--learning-rate-schedule=cosine"],
    "eval_every": ["--valid-fraction=0.1"],
}


@pytest.mark.parametrize("name", [name for name in FIELDS if "resume" not in name])  # those need a second flag
def test_every_field_is_a_flag_and_a_key_of_the_file(tmp_path: Path, name: str):
    value = EVERY_FIELD[name]
    assert value != RunConfig().to_json()[name]
    flag = "--" + name.replace("_", "-")
    argv = [flag] if value is True else [flag, str(value[0] if name == "prefix" else value)]
    needed = NEEDED.get(name, [])
    without = parse_config(needed)
    from_flag = parse_config([*needed, *argv])
    from_file = parse_config([*needed, toml(tmp_path, f"{name} = {json.dumps(value, ensure_ascii=False)}")])
    assert from_flag == from_file
    assert from_flag.to_json() == {**without.to_json(), name: value}
    assert json.loads(json.dumps(from_flag.to_json())) == from_flag.to_json()
    differing = {k for k, v in from_flag.facts().items() if v != without.facts()[k]}
    assert differing == {name}
    assert from_flag.facts() == from_file.facts()


def test_resume_needs_a_run_dir_and_excludes_init_and_overwrite(tmp_path: Path):
    assert parse_config(["--resume", "--run-dir=a"]).resume
    for flags, words in (
        (["--resume"], "name the run to resume with --run-dir"),
        (["--resume", "--run-dir=a", "--overwrite"], "give this or --overwrite, not both"),
        (["--resume", "--run-dir=a", f"--init={tmp_path}/a"], "give this or --init, not both"),
    ):
        with pytest.raises(UserError, match=f"--resume: {words}"):
            parse_config(flags)


def test_auto_resume_ignores_init_and_overwrite_when_it_resumes(tmp_path: Path):
    flags = ["--auto-resume", "--run-dir=a", f"--init={tmp_path}/a", "--overwrite", "--epochs=9"]
    begins = parse_config(flags)
    assert (begins.resume, begins.overwrite, begins.init) == (False, True, tmp_path / "a")
    goes_on = parse_config(flags, {"epochs": 5, "hidden_size": 7})
    assert (goes_on.resume, goes_on.overwrite, goes_on.init) == (True, False, None)
    assert (goes_on.epochs, goes_on.hidden_size) == (9, 7)
    file = tmp_path / "a.toml"
    file.write_text('auto_resume = true\nrun_dir = "a"\ninit = "b"\n')
    assert parse_config([f"--config={file}"], {}).init is None
    with pytest.raises(UserError, match="--auto-resume: name the run to start or resume with --run-dir"):
        parse_config(["--auto-resume"])


def test_intervals_are_epochs_steps_or_times():
    flags = ["--valid-fraction=0.1", "--log-every=30s", "--eval-every=500steps", "--checkpoint-every=10epochs"]
    every = Intervals(Interval(seconds=30.0), Interval(steps=500), Interval(epochs=10))
    assert parse_config(flags).every == every
    assert parse_config(flags[1:2]).every.evaluation == NEVER, "there is no validation set"
    assert parse_config([]).every == Intervals(Interval(epochs=20), NEVER, Interval(seconds=60.0))


@pytest.mark.parametrize("name", ["log_every", "eval_every"])
def test_plain_number_counts_epochs_of_logs_and_evaluations(tmp_path: Path, name: str):
    """As in all earlier versions, whose config.json has numbers."""
    number = parse_config([toml(tmp_path, f"{name} = 7\nvalid_fraction = 0.1")])
    text = parse_config([f"--{name.replace('_', '-')}=7", "--valid-fraction=0.1"])
    assert getattr(number, name) == getattr(text, name) == "7epochs"
    assert number == text


def test_checkpoints_have_no_plain_number():
    assert refusal(["--checkpoint-every=60"]) == (
        "--checkpoint-every 60: should have a unit, such as 60s, 60steps or 60epochs"
    )


@pytest.mark.parametrize("text", ["", "0s", "-1s", "1e3s", "0epochs", "0steps", "epoch", "5 m", "nan", "1d", "٣s"])
def test_invalid_times_are_refused(text: str):
    for flag in ("--checkpoint-every", "--log-every", "--eval-every"):
        with pytest.raises(UserError, match=f"{flag} .*: should be a whole number of epochs or steps, at least 1, or "):
            parse_config([f"{flag}={text}", "--valid-fraction=0.1"])
    with pytest.raises(UserError, match="--time-limit .*: should be a time, such as 90s, 55m or 23.5h"):
        parse_config([f"--time-limit={text}"])


def test_a_time_limit_leaves_time_to_stop():
    assert parse_config(["--time-limit=100s"]).deadline(1000.0) == 1090.0
    assert parse_config(["--time-limit=10h"]).deadline(0.0) == 36000 - 30
    assert parse_config([]).deadline(5.0) == float("inf")


def test_settings_that_decide_the_result_are_fixed_on_resume():
    then = parse_config(["--learning-rate=0.5"]).resolved(2, ["天"])
    free = [
        "--epochs=900",
        "--log-every=3",
        "--prefix=地",
        "--checkpoint-every=1epoch",
        "--device=cpu",
        "--recurrence=loop",
        "--corpus=b",
    ]
    require_same_run(then, parse_config(free, then).resolved(3, ["地"]))
    with pytest.raises(UserError) as caught:
        require_same_run(then, parse_config(["--hidden-size=9", "--batch-size-per-worker=32"]).resolved(2, []))
    assert str(caught.value) == (
        "--resume: --global-batch-size was 32 and is 64, --hidden-size was 256 and is 9, --learning-rate was 0.5 and "
        "is 0.1: leave them as in that run, or start another"
    )


def test_line_ends_of_the_text_are_fixed_on_resume():
    then = parse_config(["--keep-newlines"]).resolved(1, [])
    assert parse_config([], then).keep_newlines
    with pytest.raises(UserError, match="^--resume: --keep-newlines was true and is false: leave it as in that run"):
        require_same_run(then, parse_config([]).resolved(1, []))


def test_run_of_a_version_with_fewer_settings_can_be_resumed():
    now = parse_config([]).resolved(1, [])
    newer = ("valid_fraction", "learning_rate_schedule", "warm_up_steps", "decay_factor")
    then = {key: value for key, value in now.items() if key not in newer}
    require_same_run(then, now)
    with pytest.raises(UserError, match="--warm-up-steps was 0 and is 9: leave it as in that run"):
        require_same_run(then, parse_config(["--warm-up-steps=9"]).resolved(1, []))


def test_settings_that_are_not_given_keep_the_values_of_the_run(tmp_path: Path):
    base = parse_config(["--learning-rate=0.5", "--batch-size-per-worker=4"]).resolved(2, ["天"])
    again = parse_config([toml(tmp_path, "epochs = 7")], base)
    assert (again.learning_rate, again.streams(3), again.epochs, again.prefix) == (0.5, 8, 7, ["天"])
    assert parse_config(["--batch-size-per-worker=4"], base).streams(3) == 12


def test_config_of_a_run_gives_its_settings_to_another(tmp_path: Path):
    then = parse_config([
        "--batch-size-per-worker=4", "--hidden-size=64", "--eval-every=3", "--valid-fraction=0.2", "--run-dir=a",
        "--overwrite", "--time-limit=5m", "--init=w.safetensors",
    ])  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**then.resolved(2, ["天"]), "corpus_sha256": "0" * 64}, indent=2), encoding="utf-8")
    again = parse_config([f"--config={path}", "--epochs=7"])
    assert (again.streams(5), again.hidden_size, again.eval_every, again.prefix) == (8, 64, "3epochs", ["天"])
    assert (again.epochs, again.init) == (7, Path("w.safetensors").resolve())
    assert (again.run_dir, again.overwrite, again.time_limit) == (None, False, None)
    assert parse_config([f"--config={path}", "--batch-size-per-worker=9"]).streams(2) == 18
    assert parse_config([f"--config={path}", "--valid-fraction=0"]).eval_every == "3epochs"  # it was not asked for here
    resumed = parse_config([f"--config={path}", "--resume", "--run-dir=b"], {"seed": 8})
    assert (resumed.seed, resumed.init, resumed.run_dir) == (0, None, Path("b"))


def test_settings_without_effect_are_refused(tmp_path: Path):
    schedule = "has no effect without --learning-rate-schedule step or cosine: add that, or leave it out"
    assert refusal(["--decay-epochs=9"]) == f"--decay-epochs 9: {schedule}"
    assert refusal(["--decay-factor=0.5", "--warm-up-steps=5"]) == f"--decay-factor 0.5: {schedule}"
    assert refusal([toml(tmp_path, "eval_every = 4")]) == (
        "--eval-every 4epochs: has no effect without --valid-fraction: add that, or leave it out"
    )
    assert refusal(["--learning-rate-schedule=step", "--decay-epochs=200"]) == (
        "--learning-rate-schedule step: has no effect without --decay-epochs below --epochs: add that, or leave it out"
    )
    assert refusal(["--eval-every=9", "--valid-fraction=0.1", "--epochs=8"]) == (
        "--eval-every 9epochs: has no effect without as many --epochs: add that, or leave it out"
    )
    assert refusal(["--eval-every=4"]) == refusal([toml(tmp_path, "eval_every = 4")])
    assert "has no effect" in refusal(["--eval-every=4"], {"valid_fraction": 0.0})


@pytest.mark.parametrize("ineffective", ["--eval-every=4", "--decay-factor=0.5"])
@pytest.mark.parametrize("how", ["--resume", "--auto-resume"])
def test_settings_without_effect_do_not_end_a_run_when_it_is_resumed(how: str, ineffective: str):
    flags = [ineffective, how, "--run-dir=a"]
    parse_config(flags)  # the start of a scheduler's job, or before the settings of the run are known
    assert parse_config(flags, {"valid_fraction": 0.0}).resume
    parse_config([how, "--run-dir=a"], {"eval_every": 4})  # an old run


def test_a_path_may_begin_with_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = parse_config(["--run-dir=~/runs/a", toml(tmp_path, 'corpus = "~/b.txt"')])
    assert (settings.run_dir, settings.corpus) == (tmp_path / "runs/a", [tmp_path / "b.txt"])
    assert parse_config(["--run-dir=a/~/b"]).run_dir == Path("a/~/b")


def test_help_lists_every_field_with_its_help(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as caught:
        parse_config(["--help"])
    assert caught.value.code == 0
    shown = re.sub(r"\s+", "", capsys.readouterr().out)
    for flag, field in zip(FLAGS, FIELDS.values()):
        assert len(str(field.description)) > 10
        described = re.sub(r"\s+", "", str(field.description))
        start = shown.index("--configFILEread")
        at = shown.index(described, start)
        assert at - shown.rindex(flag, start, at) < 80, flag  # next to its own flag
        if field.default is not None and field.default is not False:
            assert shown.startswith(f"(default{field.default})", at + len(described)), flag


def test_state_reset_follows_the_sampling_unless_given():
    cases = {
        (): False,
        ("--sampling=consecutive",): False,
        ("--sampling=random",): True,
        ("--sampling=random", "--state-reset=epoch"): False,
        ("--sampling=random", "--state-reset=window"): True,
        ("--state-reset=window",): True,
        ("--state-reset=epoch",): False,
    }
    for argv, expected in cases.items():
        assert parse_config(argv).resets_every_window is expected, argv


def test_streams_are_given_per_job_or_per_worker():
    assert parse_config(["--global-batch-size=6"]).streams(4) == 6
    assert parse_config(["--batch-size-per-worker=6"]).streams(4) == 24


@pytest.mark.parametrize(
    "flag",
    ["--max-chars=0", "--seq-len=1", "--seq-len=10000", "--global-batch-size=1", "--hidden-size=1", "--epochs=1",
     "--learning-rate=1e-300", "--max-norm=1e300", "--seed=0", f"--seed={2**63 - 1}",
     "--log-every=1steps", "--log-every=1000000epochs", "--sample-length=1", "--max-corpus-bytes=1",
     f"--max-corpus-bytes={10**30}",
     f"--max-chars={10**30}", "--prefix= "],
)  # fmt: skip
def test_limits_of_the_ranges_are_accepted(flag: str):
    name, value = flag[2:].split("=")
    taken = getattr(parse_config([flag]), name.replace("-", "_"))
    assert taken == ([value] if name == "prefix" else type(taken)(value))


def test_configuration_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse_config([]).epochs = 3  # type: ignore[misc]


# Invalid input

# Command lines: the arguments, the beginning of the message, and a part of it; | separates alternatives.
BAD_FLAGS = [
    ("--max-chars=-1", "--max-chars -1", "greater than or equal to 0"),
    ("--max-chars=2e4", "--max-chars 2e4", "valid integer"),
    ("--max-chars=", "--max-chars ", "valid integer"),
    ("--encoding=utf-9", "--encoding utf-9", "should be an encoding of text that Python knows, such as gb18030"),
    ("--encoding=", "--encoding ''", "should be an encoding"),
    ("--max-corpus-bytes=0", "--max-corpus-bytes 0", "greater than or equal to 1"),
    ("--max-corpus-bytes=1.5", "--max-corpus-bytes 1.5", "valid integer"),
    ("--sampling=sequential", "--sampling sequential", "'consecutive' or 'random'"),
    ("--sampling=", "--sampling ", "'consecutive' or 'random'"),
    ("--sampling=Random", "--sampling Random", "'consecutive' or 'random'"),
    ("--state-reset=never", "--state-reset never", "'epoch' or 'window'"),
    ("--seq-len=0", "--seq-len 0", "greater than or equal to 1"),
    ("--seq-len=10001", "--seq-len 10001", "less than or equal to 10000"),
    ("--seq-len=nan", "--seq-len nan", "valid integer"),
    ("--global-batch-size=0", "--global-batch-size 0", "greater than or equal to 1"),
    ("--global-batch-size=-4", "--global-batch-size -4", "greater than or equal to 1"),
    ("--global-batch-size=1048577", "--global-batch-size 1048577", "less than or equal to 1048576"),
    ("--batch-size-per-worker=0", "--batch-size-per-worker 0", "greater than or equal to 1"),
    ("--global-batch-size=4 --batch-size-per-worker=4", "--batch-size-per-worker 4", "--global-batch-size, not both"),
    ("--hidden-size=0", "--hidden-size 0", "greater than or equal to 1"),
    ("--hidden-size=16385", "--hidden-size 16385", "less than or equal to 16384"),
    ("--hidden-size=big", "--hidden-size big", "valid integer"),
    ("--hidden-size=True", "--hidden-size True", "valid integer"),
    ("--epochs=0", "--epochs 0", "greater than or equal to 1"),
    ("--epochs=-1", "--epochs -1", "greater than or equal to 1"),
    ("--epochs -1", "--epochs -1", "greater than or equal to 1"),
    ("--epochs=1000000001", "--epochs 1000000001", "less than or equal to 1000000000"),
    (f"--epochs={10**400}", "--epochs 1000", "less than or equal to 1000000000"),
    (f"--epochs=1{'0' * 5000}", "--epochs 1000", "valid integer|integer as a string|maximum size"),
    ("--epochs=three", "--epochs three", "valid integer"),
    ("--epochs", "--epochs", "expected one argument"),
    ("--learning-rate=0", "--learning-rate 0", "greater than 0"),
    ("--learning-rate=-0.1", "--learning-rate -0.1", "greater than 0"),
    ("--learning-rate=nan", "--learning-rate nan", "finite number|greater than 0"),
    ("--learning-rate=inf", "--learning-rate inf", "finite number"),
    ("--learning-rate=-inf", "--learning-rate -inf", "finite number|greater than 0"),
    ("--learning-rate=1e400", "--learning-rate 1e400", "finite number"),
    ("--learning-rate=0,1", "--learning-rate 0,1", "valid number"),
    ("--learning-rate=true", "--learning-rate true", "valid number"),
    ("--max-norm=0", "--max-norm 0", "greater than 0"),
    ("--max-norm=NaN", "--max-norm NaN", "finite number|greater than 0"),
    ("--max-norm=infinity", "--max-norm infinity", "finite number"),
    ("--reference-batch-size=0", "--reference-batch-size 0", "greater than or equal to 1"),
    ("--seed=-1", "--seed -1", "greater than or equal to 0"),
    ("--seed=9223372036854775808", "--seed 9223372036854775808", "less than 9223372036854775808"),
    ("--seed=0x10", "--seed 0x10", "valid integer"),
    ("--device=cuda", "--device cuda", "'auto', 'cpu' or 'gpu'"),
    ("--recurrence=steps", "--recurrence steps", "'auto', 'persistent' or 'loop'"),
    ("--log-every=0", "--log-every 0", "at least 1, or a time, such as 20epochs, 500steps, 30s or 5m"),
    ("--log-every=1.5epochs", "--log-every 1.5epochs", "should be a whole number of epochs or steps"),
    ("--eval-every=5steps2", "--eval-every 5steps2", "should be a whole number of epochs or steps"),
    ("--prefix=", "--prefix", "at least one character"),
    ("--prefix=天 --prefix=", "--prefix", "at least one character"),
    ("--sample-length=0", "--sample-length 0", "greater than or equal to 1"),
    ("--sample-length=100001", "--sample-length 100001", "less than or equal to 100000"),
    ("--run-dir=", "--run-dir '': ", "should not be empty"),
    ("--corpus=", "--corpus '': ", "should not be empty"),
    (f"--run-dir=runs/{'a' * 256}", "--run-dir runs/aaa", "should have names of at most 255 bytes, one has 256"),
    (f"--init={'分' * 86}.zip", "--init 分", "should have names of at most 255 bytes, one has 262"),
    (f"--corpus={'a/' * 2500}", "--corpus a/a", "should have at most 4,000 bytes with the folders above, it has 5,"),
    (f"--config={'a' * 300}", "--config", "should have names of at most 255 bytes, one has 300"),
    ("--config=", "--config", "should not be empty"),
    ("--overwrite=yes", "--overwrite", "ignored explicit argument 'yes'"),
    ("--config=nowhere.toml", "--config nowhere.toml", "cannot be read (No such file or directory)"),
    ("--config=.", "--config .", "cannot be read (Is a directory)"),
    ("--config", "--config", "expected one argument"),
    ("--hiden-size=8", "--hiden-size", "no such flag, did you mean --hidden-size?; --help lists them all"),
    ("--learning_rate=1", "--learning_rate", "did you mean --learning-rate?"),
    ("--epoch=3", "--epoch", "did you mean --epochs?"),
    ("--lr=3", "--lr", "no such flag"),
    ("--batch-size=3", "--batch-size", "no such flag, did you mean --"),
    ("-e3", "-e3", "no such flag"),
    ("runs/a", "runs/a", "no such flag"),
    ("--epochs=3 4", "4", "no such flag"),
    ("--sampling=a\x1b[2Jb", "--sampling a", "'consecutive' or 'random'"),
]

# Files: the content, the beginning of the message, and a part of it; {} stands for the path of the file.
BAD_FILES = [
    ("hiden_size = 8", "--config {}", "unknown key 'hiden_size', did you mean hidden_size?"),
    ("[run]\nepochs = 3", "--config {}", "unknown key 'run', did you mean run_dir?"),
    ("hidden-size = 8", "--config {}", "unknown key 'hidden-size', did you mean hidden_size?"),
    ('config = "b.toml"', "--config {}", "unknown key 'config'"),
    ("zzz = 1", "--config {}", "unknown key 'zzz'"),
    ("epochs = ", "--config {}", "is not TOML ("),
    ("prefix = " + "[" * 100_000, "--config {}", "is not TOML ("),
    ("epochs = 1 #" + "x" * 2**20, "--config {}", "has more than 1,048,576 bytes"),
    ("epochs = 1\nepochs = 2", "--config {}", "is not TOML ("),
    ('{"epochs": 3', "--config {}", "is not JSON ("),
    ('{"epoch": 3}', "--config {}", "unknown key 'epoch', did you mean epochs?"),
    ('{"epochs": true}', "--epochs true", "should not be a boolean (in {})"),
    ("epochs = true", "--epochs true", "should not be a boolean (in {})"),
    ("hidden_size = false", "--hidden-size false", "should not be a boolean (in {})"),
    ("learning_rate = true", "--learning-rate true", "should not be a boolean (in {})"),
    ("seed = false", "--seed false", "should not be a boolean (in {})"),
    ("max_chars = true", "--max-chars true", "should not be a boolean (in {})"),
    ("prefix = true", "--prefix true", "should not be a boolean (in {})"),
    ("sampling = true", "--sampling true", "should not be a boolean (in {})"),
    ("corpus = true", "--corpus true", "should not be a boolean (in {})"),
    ("learning_rate = nan", "--learning-rate NaN", "(in {})"),
    ("max_norm = -inf", "--max-norm -Infinity", "(in {})"),
    ("epochs = 2.5", "--epochs 2.5", "valid integer"),
    ("epochs = [3]", "--epochs [3]", "valid integer (in {})"),
    ("epochs = 1979-05-27", '--epochs "1979-05-27"', "valid integer (in {})"),
    ('prefix = "分开"', "--prefix 分开", "valid list (in {})"),
    ("prefix = [1]", "--prefix [1]", "valid string (in {})"),
    ('prefix = ["天", ""]', '--prefix ["天", ""]', "at least one character (in {})"),
    ("corpus = []", "--corpus []", "should name a file or a folder (in {})"),
    ('corpus = ["a", 5]', '--corpus ["a", 5]', "valid path"),
    ("corpus = 5", "--corpus 5", "valid path"),
    ('corpus = "a\\u0000b"', "--corpus a", "control character (in {})"),
    ('init = "a\\u0000b"', "--init a", "control character (in {})"),
    ('run_dir = ""', "--run-dir ''", "should not be empty (in {})"),
    ('run_dir = "a\\u0000b"', "--run-dir a", "control character (in {})"),
    ('run_dir = "a\\u001bb"', "--run-dir a", "control character (in {})"),
    ("overwrite = 7", "--overwrite 7", "valid boolean"),
    ("log_every = true", "--log-every true", "should not be a boolean (in {})"),
    ("log_every = 1.5", "--log-every 1.5", "at least 1, or a time"),
    ("eval_every = [3]", "--eval-every [3]", "valid string (in {})"),
    ("checkpoint_every = 60", "--checkpoint-every 60", "should have a unit, such as 60s, 60steps or 60epochs (in {})"),
    ("global_batch_size = 4\nbatch_size_per_worker = 4", "--batch-size-per-worker 4", "--global-batch-size, not both"),
]


def refusal(argv: List[str], base: Optional[Dict[str, Any]] = None) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(argv, base)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def says(message: str, parts: str) -> bool:
    return any(part in message for part in parts.split("|"))


@pytest.mark.parametrize(("given", "start", "part"), BAD_FLAGS, ids=[given[:40] for given, _, _ in BAD_FLAGS])
def test_invalid_argument_is_reported_by_its_flag(given: str, start: str, part: str):
    message = refusal(given.split(" "))
    assert message.startswith(start)
    assert says(message, part), message


@pytest.mark.parametrize(("text", "start", "part"), BAD_FILES, ids=[text[:40] for text, _, _ in BAD_FILES])
def test_invalid_config_file_is_reported_by_key_and_path(tmp_path: Path, text: str, start: str, part: str):
    argv = toml(tmp_path, text)
    path = argv[len("--config=") :]
    message = refusal([argv])
    assert message.startswith(start.replace("{}", path))
    assert says(message, part.replace("{}", path)), message


def test_a_file_that_is_not_utf_8_is_not_toml(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_bytes('prefix = ["分"]'.encode("gb18030"))
    assert refusal([f"--config={path}"]).startswith(f"--config {path}: is not TOML (")


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_of_a_config_file_is_skipped(tmp_path: Path, codec: str):
    path = tmp_path / "run.toml"
    path.write_bytes('prefix = ["分"]\r\nseed = 3\r\n'.encode(codec))
    settings = parse_config([f"--config={path}"])
    assert (settings.prefix, settings.seed) == (["分"], 3)


def test_invalid_flag_is_not_attributed_to_the_file(tmp_path: Path):
    argv = [toml(tmp_path, "epochs = 0\nseed = 1"), "--epochs=-5"]
    assert refusal(argv).startswith("--epochs -5: ")
    assert "(in " not in refusal(argv)
    assert parse_config([argv[0], "--epochs=5"]).epochs == 5


@pytest.mark.parametrize("flag", FLAGS)
def test_abbreviated_flag_is_refused_with_a_suggestion(flag: str):
    shortened = flag[:-1]
    message = refusal([f"{shortened}=1"])
    assert message.startswith(f"{shortened}: no such flag, did you mean {flag}?")


@pytest.mark.parametrize("flag", ["global_batch_size", "batch_size_per_worker"])
@pytest.mark.parametrize("key", ["global_batch_size", "batch_size_per_worker"])
def test_batch_size_flag_overrides_either_key_of_the_file(tmp_path: Path, flag: str, key: str):
    file = tmp_path / "run.toml"
    file.write_text(f"{key} = 4\n")
    settings = parse_config([f"--config={file}", f"--{flag.replace('_', '-')}=6"])
    assert settings.streams(3) == (6 if flag == "global_batch_size" else 18)
