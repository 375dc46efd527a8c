"""What every test relies on: one thread a worker, a text that is ours, and a seed that a failure shows."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
