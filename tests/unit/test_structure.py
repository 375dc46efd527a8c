"""What the files may import and hold: read from their syntax trees, none is run."""

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "lstm_dist").glob("**/*.py"))
PROGRAMS = sorted((ROOT / "jobs").glob("*.py"))
LAUNCHERS = [ROOT / "launch" / "supervise.py"]
CONTEST = sorted((ROOT / "jobs" / "contest").glob("*.py"))
LABORATORY = sorted((ROOT / "jobs" / "laboratory").glob("*.py"))
TREES: Dict[Path, ast.Module] = {
    p: ast.parse(p.read_text(encoding="utf-8"), str(p))
    for p in [*LIBRARY, *PROGRAMS, *CONTEST, *LABORATORY, *LAUNCHERS]
}
PURE = (
    "batches", "lstm", "parameters", "optim", "corpus", "launcher", "randomness", "evaluation", "scaling", "link",
    "prediction", "textfiles", "learning_rate", "prepared",
)  # fmt: skip
COMMUNICATION = {"horovod", "mpi4py", "lstm_dist.exchange", "lstm_dist.mpi"}


def imports(path: Path) -> Set[str]:
    """Full names of all that a file imports, wherever in it: `from a import b` is both a and a.b."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and name_of(node.func).rsplit(".")[-1] in ("__import__", "import_module"):
            raise AssertionError(f"{path.name}:{node.lineno}: imports by a name that cannot be read here")
    return found


def name_of(node: ast.AST) -> str:
    """The dotted name that an expression is, if it is one."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls() -> Iterator[Tuple[Path, ast.Call]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield path, node


def depends_on(names: Set[str], module: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in names)


def test_the_files_are_found():
    assert {p.stem for p in LIBRARY} >= {*PURE, "exchange", "trainer", "model", "runlog", "config"}
    assert {p.name for p in PROGRAMS} == {
        "train.py", "sample.py", "evaluate.py", "prepare.py", "bench.py", "scale.py", "report.py", "experiment.py",
    }  # fmt: skip
    assert {p.stem for p in LABORATORY} >= {"training", "network", "rows", "findings", "page"}
    assert depends_on(imports(ROOT / "lstm_dist" / "exchange.py"), "horovod")
    assert depends_on(imports(ROOT / "lstm_dist" / "exchange.py"), "mpi4py")


@pytest.mark.parametrize("path", TREES, ids=lambda path: path.name)
def test_only_the_exchange_talks_to_horovod_and_mpi(path: Path):
    if path.name != "exchange.py":
        assert not depends_on(imports(path), "horovod")
        assert path.name == "mpi.py" or not depends_on(imports(path), "mpi4py")


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_cannot_reach_the_exchange(name: str):
    reached, todo = set(), [f"lstm_dist.{name}"]
    while todo:
        module = todo.pop()
        reached.add(module)
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        if path in TREES:
            todo += [other for other in imports(path) if other not in reached]
    assert not reached & COMMUNICATION
    assert not depends_on(reached, "horovod")
    assert not depends_on(reached, "mpi4py")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.name)
def test_the_library_knows_no_program(path: Path):
    for module in ("jobs", "launch", "tests"):
        assert not depends_on(imports(path), module)


def test_no_import_goes_round_in_a_circle():
    graph = {
        path.stem: [p.stem for p in LIBRARY if f"lstm_dist.{p.stem}" in imports(path)]
        for path in LIBRARY
        if path.stem != "__init__"
    }
    done: List[str] = []

    def visit(name: str, above: Tuple[str, ...]) -> None:
        assert name not in above, f"circle: {' -> '.join((*above, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*above, name))
            done.append(name)

    for name in graph:
        visit(name, ())
    assert done.index("errors") < done.index("corpus") < done.index("checkpoint")


def test_nothing_executes_data():
    for path in TREES:
        for module in ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"):
            assert not depends_on(imports(path), module), path.name
    for path, call in calls():
        where = f"{path.name}:{call.lineno}"
        name = name_of(call.func)
        assert name not in ("eval", "exec", "compile", "os.system", "os.popen"), where
        assert name not in ("np.load", "numpy.load", "mx.nd.load", "nd.load"), where
        for keyword in call.keywords:
            assert keyword.arg not in ("shell", "allow_pickle"), where


def test_the_broadcast_that_can_crash_is_not_used():
    """Horovod 0.28 reads the operation's name after it may be freed; see World.broadcast_."""
    used = {name_of(call.func) for path, call in calls() if path.name == "exchange.py"}
    assert {"self._hvd.allreduce_", "self._hvd.allgather"} <= used
    assert not [name for name in used if name.startswith(("self._hvd.broadcast", "self._hvd.alltoall"))]


def test_nothing_fails_in_silence():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path.name}:{node.lineno}: bare except"
                if name_of(node.type) in ("Exception", "BaseException"):
                    assert any(isinstance(n, ast.Raise) for n in ast.walk(node)), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_are_wiring(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 155
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ClassDef):
            assert [name_of(base) for base in node.bases] == ["NamedTuple"], node.name
            assert not any(isinstance(member, ast.FunctionDef) for member in node.body), node.name
        assert not isinstance(node, (ast.While, ast.MatMult, ast.Lambda)) or _defers(node), ast.dump(node)[:80]


def _defers(node: ast.AST) -> bool:
    """Whether a lambda only postpones one call of a function, as settle(lambda: prepare(argv), ...) does."""
    return isinstance(node, ast.Lambda) and isinstance(node.body, ast.Call) and not node.args.args
