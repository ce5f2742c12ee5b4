"""A fact about measurements is declared in one line: evaluation, shard files, merged shards and records follow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import apd_bench
from apd_bench.records.measured import Measured
from apd_bench.records.outcomes import Outcomes

PACKAGE = Path(apd_bench.__file__).parent
LAST = "    environment: Environment = field(default_factory=Environment)\n"
MORE = "    weather: tuple[str, ...] = ()\n"
SCRIPT = """
import json
from pathlib import Path
from test_record import make_outcomes, make_record
from apd_bench.records.measured import Measured
from apd_bench.records.record import Record, sealed
from apd_bench.runner.shards import load_shard, save_shard

parts = [Measured(outcomes=make_outcomes(2, offset=2 * place), weather=("rain",)) for place in range(2)]
for place, part in enumerate(parts):
    save_shard(Path("shards"), (place, 2), part)
assert '"weather": ["rain"]' in Path("shards/shard-0000-of-0002.json").read_text()
whole = Measured.merge([load_shard(Path("shards"), (place, 2)) for place in range(2)])
assert len(whole.outcomes) == 4 and whole.weather == ("rain",)
record = make_record(**whole.facts())
assert Record.from_json(record.to_json()) == record and record.weather == ("rain",)
older = {name: value for name, value in json.loads(record.to_json()).items() if name != "weather"}
assert Record.from_json(sealed(older)).weather == ()
"""


def test_a_new_field_is_one_line_and_is_in_record_shard_file_and_merge(tmp_path):
    package = tmp_path / "apd_bench"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("embedded", "__pycache__"))
    module = package / "records" / "measured.py"
    text = module.read_text("utf-8")
    assert text.count(LAST) == 1
    module.write_text(text.replace(LAST, LAST + MORE), "utf-8")
    here = Path(__file__).parent
    paths = (tmp_path, here, here.parent / "leaderboard")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    words = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("samples", [0, 4])
def test_one_function_makes_accuracies_of_outcomes(samples):
    rows = np.arange(samples)
    distance = np.array([0.0, 1.0, 2.0, np.inf])[:samples]
    outcomes = Outcomes(
        sample_id=rows, label=rows * 0, clean_prediction=rows == 0, adversarial_prediction=rows, broken=rows < 3,
        extra={"distance": distance},
    )  # fmt: skip
    parts = [Measured(outcomes=outcomes)]
    if samples:
        assert outcomes.metrics() == {
            "n": 4, "clean_accuracy": 0.75, "robust_accuracy": 0.25, "median_distance": 1.5, "found": 0.75,
        }  # fmt: skip
    else:
        assert outcomes.metrics() == {"n": 0, "clean_accuracy": 0.0, "robust_accuracy": 0.0}
        empty = Measured.merge(parts * 2)
        assert empty.metrics == outcomes.metrics()
