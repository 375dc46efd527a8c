"""A virtual environment for a test, with packages and code that precede those of the tests' own environment."""

import sys
import sysconfig
from pathlib import Path

from tests.support.programs import ROOT


class LayeredEnvironment:
    """A virtual environment without packages, which finds those of the tests' environment behind its own; not its MPI.

    Attributes:
        bin: the folder of its programs.
        python: its interpreter.
        packages: the folder of its packages.
    """

    def __init__(self, root: Path) -> None:
        base, real = Path(sys.executable).resolve(), Path(sysconfig.get_path("purelib"))
        self.bin = root / "bin"
        self.python = self.bin / "python"
        self.packages = root / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        self.bin.mkdir(parents=True)
        self.packages.mkdir(parents=True)
        self.python.symlink_to(base)
        (root / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
        self._start = self.packages / "layered.pth"
        self._start.write_text(f"{ROOT}\n{real}\n")

    def package(self, name: str, text: str) -> None:
        """Create a package that hides the one of the same name in the tests' environment."""
        (self.packages / name).mkdir()
        (self.packages / name / "__init__.py").write_text(text)

    def at_start(self, text: str) -> None:
        """Execute this code whenever the interpreter starts."""
        (self.packages / "code_at_start.py").write_text(text)
        with self._start.open("a") as file:
            file.write("import code_at_start\n")
