"""Discovery of hosts by a program of the user, which prints one host a line, as Horovod's --host-discovery-script."""

import contextlib
import os
import signal
import subprocess
from typing import List, Optional

from lstm_dist.cluster.hosts import Host, distinct, parse_host
from lstm_dist.errors import UserError, print_warning

LIMIT = 10.0  # seconds for the program to print the hosts


class Discovery:
    """A program that prints the hosts that a job may use, such as `node1:4`, each on a line of its own."""

    def __init__(self, program: str, limit: float = LIMIT) -> None:
        """Make it.

        Args:
            program: the file to run, without arguments.
            limit: seconds after which it is killed.
        """
        self._program, self._limit = program, limit
        self._problem = ""

    def hosts(self) -> List[Host]:
        """Run the program, and return the hosts that it has printed.

        Raises:
            UserError: if it cannot be started, fails, hangs, or prints something else or nothing.
        """
        where = f"--discover-hosts {self._program}"
        lines = [line.strip() for line in self._output(where).splitlines()]
        hosts = [parse_host(line, where) for line in lines if line]
        if not hosts:
            raise UserError(f"{where}: has printed no host: it should print lines such as node1:4")
        return distinct(hosts, where)

    def look(self) -> Optional[List[Host]]:
        """Return the hosts that the program has printed; None if there is a problem, which is reported once."""
        try:
            hosts = self.hosts()
        except UserError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                print_warning(f"warning: {self._problem}; the job goes on with the hosts that it has")
            return None
        self._problem = ""
        return hosts

    def _output(self, where: str) -> str:
        """Return what the program prints; it and what it has started are killed if it hangs."""
        try:
            process = subprocess.Popen(
                [self._program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                encoding="utf-8", errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"{where}: cannot be started ({error.strerror})") from None
        with process:
            try:
                stdout, stderr = process.communicate(timeout=self._limit)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise UserError(f"{where}: has not ended within {self._limit:.0f} s") from None
        if process.returncode:
            said = (stderr.strip().splitlines() or ["no message"])[-1].strip()
            raise UserError(f"{where}: has failed with status {process.returncode} ({said})")
        return stdout
