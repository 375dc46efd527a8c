"""What all ranks of a job have to have in common."""

from types import SimpleNamespace
from typing import Dict

import mxnet as mx
import pytest

from lstm_dist.config import parse_config
from lstm_dist.corpus import Vocabulary
from lstm_dist.job import Job, require_agreement


@pytest.mark.parametrize(("ctx", "compared"), [(mx.cpu(), True), (mx.gpu(0), False)], ids=["cpu", "gpu"])
def test_threads_have_to_be_equal_where_they_compute(ctx: mx.Context, compared: bool):
    told: Dict[str, str] = {}
    world = SimpleNamespace(require_equal=lambda facts, _: told.update(facts))
    text = SimpleNamespace(digest=lambda: "digest", vocabulary=Vocabulary("天地人和"))
    require_agreement(Job(parse_config([]), text, None, SimpleNamespace(ctx=ctx), []), world, {})
    assert ("OMP_NUM_THREADS" in told) == compared
    assert {"corpus", "vocabulary", "code", "seed"} <= set(told)
