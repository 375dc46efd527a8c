"""Which imports and calls the source files may contain, checked on their syntax trees without running them."""

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "lstm_dist").glob("**/*.py"))
PROGRAMS = [*sorted((ROOT / "jobs").glob("*.py")), *sorted((ROOT / "launch").glob("*.py"))]
TREES: Dict[Path, ast.Module] = {p: ast.parse(p.read_text(encoding="utf-8"), str(p)) for p in [*LIBRARY, *PROGRAMS]}
# Levels from lowest to highest. A package imports from itself and from lower levels; packages of one level do not
# import each other.
FLOORS = (
    {"errors", "attempt"}, {"encoding", "cli", "options", "files", "rng"}, {"cluster"}, {"cuda"}, {"comm"}, {"data"},
    {"model"}, {"run"}, {"train"}, {"experiments"}, {"scaling", "sweep", "bench", "diagnosis"}, {"programs"},
)  # fmt: skip
ALONE = {"errors", "attempt", "encoding", "cli", "options", "files", "rng"}  # modules outside the packages
PURE = (
    "data.archives", "data.batching", "data.corpus", "data.text_chunks", "data.token_dataset", "data.transcode",
    "encoding", "model.exchange_size", "model.lstm", "model.parameters", "rng",
    "model.optim", "train.lr_schedule", "train.metrics", "cluster.launch_env", "cluster.cpu_affinity",
    "cluster.core_monitor", "scaling.speedup_laws", "scaling.allreduce_model", "scaling.prediction",
    "experiments.stats",
)  # fmt: skip
# This module checks an environment in which anything may be broken, so it imports by name and catches every error.
CHECKS = ROOT / "lstm_dist" / "diagnosis" / "installation.py"
WITH_HOROVOD = {"horovod_group.py"}
WITH_MPI = {"horovod_group.py", "mpi_group.py", "mpi_file.py"}
COMMUNICATION = {"horovod", "mpi4py", "lstm_dist.comm.horovod_group", "lstm_dist.comm.mpi_group"}


def module(path: Path) -> str:
    """Return the dotted name of a file of the library."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def floor(name: str) -> int:
    """Return the level of a module of the library, given its dotted name."""
    part = name.split(".")[1]
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def imports(path: Path) -> Set[str]:
    """Return the full names of all imports anywhere in a file; `from a import b` gives both a and a.b."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and name_of(node.func).rsplit(".")[-1] in ("__import__", "import_module"):
            if path == CHECKS:
                continue
            raise AssertionError(f"{path.name}:{node.lineno}: imports by a name that cannot be read here")
    return found


def name_of(node: ast.AST) -> str:
    """Return the dotted name that an expression consists of; empty for any other expression."""
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
    assert {module(p).partition(".")[2] for p in LIBRARY} >= {*PURE, "comm.horovod_group", "train.trainer"}
    assert {p.name for p in PROGRAMS} == {
        "train.py", "sample.py", "evaluate.py", "prepare.py", "bench.py", "scale.py", "report.py", "experiment.py",
        "supervise.py", "doctor.py",
    }  # fmt: skip
    beside = {p.stem for p in (ROOT / "lstm_dist").glob("*.py")} - {"__init__"}
    assert beside == ALONE
    assert {p.name for p in (ROOT / "lstm_dist").iterdir() if (p / "__init__.py").exists()} == set().union(
        *FLOORS
    ) - ALONE
    assert depends_on(imports(ROOT / "lstm_dist" / "comm" / "horovod_group.py"), "horovod")
    assert depends_on(imports(ROOT / "lstm_dist" / "comm" / "horovod_group.py"), "mpi4py")


@pytest.mark.parametrize("path", LIBRARY, ids=module)
def test_packages_import_only_from_lower_levels(path: Path):
    """Packages import only from lower levels, so that there are no cycles between packages."""
    if path == ROOT / "lstm_dist" / "__init__.py":
        return
    mine = module(path).split(".")[1]
    for name in imports(path):
        if name.startswith("lstm_dist.") and name.split(".")[1] != mine:
            assert floor(name) < floor(module(path)), name


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.name == "__init__.py"], ids=module)
def test_package_init_files_are_empty(path: Path):
    """Importing a package loads nothing, because scale.py runs on login nodes where MXNet cannot be loaded."""
    if path.parent.name != "lstm_dist":
        assert path.read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("path", TREES, ids=lambda path: path.name)
def test_only_comm_modules_import_horovod_and_mpi(path: Path):
    if path.name not in WITH_HOROVOD:
        assert not depends_on(imports(path), "horovod")
    if path.name not in WITH_MPI:
        assert not depends_on(imports(path), "mpi4py")


@pytest.mark.parametrize("path", TREES, ids=lambda path: path.name)
def test_only_the_cuda_package_compiles_kernels(path: Path):
    names = {name_of(node) for node in ast.walk(TREES[path]) if isinstance(node, ast.Attribute)}
    uses = any(name.startswith(("mx.rtc", "mxnet.rtc")) for name in names) or depends_on(imports(path), "mxnet.rtc")
    assert uses == (path.parts[-2:] == ("cuda", "module.py"))


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_not_import_communication(name: str):
    reached, todo = set(), [f"lstm_dist.{name}"]
    while todo:
        current = todo.pop()
        reached.add(current)
        path = ROOT.joinpath(*current.split(".")).with_suffix(".py")
        if path in TREES:
            todo += [other for other in imports(path) if other not in reached]
    assert not reached & COMMUNICATION
    assert not depends_on(reached, "horovod")
    assert not depends_on(reached, "mpi4py")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.name)
def test_the_library_imports_no_program_or_test(path: Path):
    for folder in ("jobs", "launch", "tests"):
        assert not depends_on(imports(path), folder)


def test_imports_have_no_cycle():
    names = {module(path): path for path in LIBRARY if path.name != "__init__.py"}
    graph = {name: sorted(imports(path) & set(names)) for name, path in names.items()}
    done: List[str] = []

    def visit(name: str, above: Tuple[str, ...]) -> None:
        assert name not in above, f"import cycle: {' -> '.join((*above, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*above, name))
            done.append(name)

    for name in graph:
        visit(name, ())
    assert done.index("lstm_dist.errors") < done.index("lstm_dist.data.corpus") < done.index("lstm_dist.run.checkpoint")


def test_no_call_executes_data_as_code():
    for path in TREES:
        for library in ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"):
            assert not depends_on(imports(path), library), path.name
    for path, call in calls():
        where = f"{path.name}:{call.lineno}"
        name = name_of(call.func)
        assert name not in ("eval", "exec", "compile", "os.system", "os.popen"), where
        assert name not in ("np.load", "numpy.load", "mx.nd.load", "nd.load"), where
        for keyword in call.keywords:
            assert keyword.arg not in ("shell", "allow_pickle"), where


def test_broadcast_of_horovod_is_not_used():
    """Horovod 0.28's broadcast can crash: it may read its name after it was freed; see World.broadcast_."""
    used = {name_of(call.func) for path, call in calls() if path.name == "horovod_group.py"}
    assert {"self._hvd.allreduce_", "self._hvd.allgather"} <= used
    assert not [name for name in used if name.startswith(("self._hvd.broadcast", "self._hvd.alltoall"))]


def test_no_broad_except_clause_hides_an_error():
    broad = {"Exception", "BaseException"}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path.name}:{node.lineno}: bare except"
                caught = {name_of(kind) for kind in getattr(node.type, "elts", [node.type])}
                if path != CHECKS and caught & broad:
                    assert any(isinstance(n, ast.Raise) for n in ast.walk(node)), f"{path.name}:{node.lineno}"
            elif isinstance(node, ast.Call) and name_of(node.func).rsplit(".")[-1] == "suppress":
                assert not {name_of(kind) for kind in node.args} & broad, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_only_start_the_library(path: Path):
    """A program imports, prepares the process and calls the library's `main`; it decides nothing and parses nothing."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 20
    *_, start = TREES[path].body
    assert isinstance(start, ast.If)
    for node in [*TREES[path].body[1:-1], *ast.walk(start)]:
        assert not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Lambda)), node


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_leave_out_variables_of_other_pythons_before_they_import_packages(path: Path):
    *_, start = TREES[path].body
    assert isinstance(start, ast.If)
    (block,) = start.body
    assert isinstance(block, ast.With)
    first, tops = block.body[0], [node.module for node in TREES[path].body if isinstance(node, ast.ImportFrom)]
    assert isinstance(first, ast.Expr)
    assert isinstance(first.value, ast.Call)
    assert name_of(first.value.func) == "isolate"
    assert not any(str(name).startswith("lstm_dist.programs") for name in tops)


PINNED = ("jobs/train.py", "jobs/sample.py", "jobs/evaluate.py", "lstm_dist/scaling/allreduce_worker.py")


@pytest.mark.parametrize("name", PINNED)
def test_a_process_is_pinned_before_numpy_and_mxnet_start_threads(name: str):
    """No import at the top of the file, direct or indirect, loads a library that starts threads."""
    reached: Set[str] = set()
    todo, files = [ROOT / name, ROOT / "lstm_dist" / "__init__.py"], {module(path): path for path in LIBRARY}
    while todo:
        tops = [n for n in TREES[todo.pop()].body if isinstance(n, (ast.Import, ast.ImportFrom))]
        for top in tops:
            base = top.module if isinstance(top, ast.ImportFrom) else None
            for new in {f"{base}.{alias.name}" if base else alias.name for alias in top.names} | {str(base)}:
                if new not in reached and new in files:
                    todo.append(files[new])
                reached.add(new)
    assert "lstm_dist.cluster.cpu_affinity" in reached
    for library in ("numpy", "mxnet", "horovod", "mpi4py"):
        assert not depends_on(reached, library)


def test_files_that_are_no_modules_are_installed_with_their_package():
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    keywords = [node for node in ast.walk(setup) if isinstance(node, ast.keyword) and node.arg == "package_data"]
    (patterns,) = (ast.literal_eval(node.value) for node in keywords)
    folders = {ROOT.joinpath(*package.split(".")): names for package, names in patterns.items()}
    installed = {path for folder, names in folders.items() for name in names for path in folder.glob(name)}
    others = {".py", ".pyc", ".md"}
    files = {path for path in (ROOT / "lstm_dist").rglob("*") if path.is_file() and path.suffix not in others}
    assert installed == files
    assert {path.suffix for path in files} >= {".cu", ".j2"}


LONGEST = 300  # lines of a module, except for those listed below with the reason
LONGER = {
    "lstm_dist/train/config.py": 350,  # a list of fields, each with its flag and its line of help
}


@pytest.mark.parametrize("path", LIBRARY, ids=module)
def test_modules_do_not_exceed_the_line_limit(path: Path):
    limit = LONGER.get(str(path.relative_to(ROOT)), LONGEST)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


def test_tests_mirror_the_packages_and_share_helpers_through_support():
    tests = ROOT / "tests"
    packages = {path.parent.name for path in (ROOT / "lstm_dist").glob("*/__init__.py")}
    assert {path.parent.name for path in (tests / "unit").glob("*/__init__.py")} <= packages
    for path in tests.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                parts = str(node.module).split(".")
                assert not any(part.startswith("test_") or part == "conftest" for part in parts), (path, node.module)
