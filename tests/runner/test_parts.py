"""A plan in parts: every cell once, no fit twice where it can be, and the README's sbatch file does it."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fakes import make_plan

from apd_bench.core.errors import UsageError
from apd_bench.core.options import RunOptions, options_from_python
from apd_bench.core.specs import MethodRecipe
from apd_bench.records.store import Store
from apd_bench.runner.parts import deal
from apd_bench.runner.session import plan_of

README = Path(__file__).parents[2] / "README.md"
TRAINED = RunOptions(methods=("advtp", "apd", "zero_shot"), datasets=("fashion", "food"), seeds=(1, 2))


def trained(part):
    return {fit.id for fit in part.fits.values() if fit.method.trains}


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_every_cell_is_in_one_part_and_no_fit_is_trained_in_two(parts):
    whole = plan_of(TRAINED)
    dealt = [deal(whole, part + 1, parts) for part in range(parts)]
    assert Counter(cell.id for part in dealt for cell in part.cells) == Counter(cell.id for cell in whole.cells)
    assert sum(len(trained(part)) for part in dealt) == len(trained(whole)) == 8
    assert all(part.cells for part in dealt)
    assert deal(whole, parts, parts) == deal(plan_of(TRAINED), parts, parts)  # wherever it is dealt


def test_cells_of_one_adversary_stay_together_and_more_parts_than_fits_split_the_costliest():
    options = RunOptions(
        methods=("advtp", "apd"), datasets=("fashion", "food"), seeds=(1,), no_reference=True,
        settings=("transfer_source=coop", "knowledge=transfer"),
    )  # fmt: skip
    dealt = [deal(plan_of(options), part, 2) for part in (1, 2)]
    assert [{cell.dataset.name for cell in part.cells} for part in dealt] in (
        [{"fashion"}, {"food"}], [{"food"}, {"fashion"}],
    )  # fmt: skip
    whole = make_plan(methods=("one",), datasets=("a",), attacks=("pgd", "cw"))
    assert MethodRecipe(name="one", learner="none", objective="none").trains is whole.cells[0].fit.method.trains
    sizes = [len(deal(whole, part, 3).cells) for part in (1, 2, 3)]
    assert sorted(sizes) == [0, 1, 1]


@pytest.mark.parametrize("written", ["0/8", "9/8", "3", "a/b", "-1/2", "3/8/9"])
def test_what_is_no_part_is_one_sentence(written):
    with pytest.raises(UsageError, match=r'part takes a part of a whole.*part="3/8"'):
        options_from_python({"part": written})


def test_the_readmes_sbatch_file_under_a_shell_that_plays_slurm(tmp_path):
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert re.search(r"#SBATCH --array=1-(\d+)", script) and len(script.splitlines()) == 10
    (tmp_path / "parts.sh").write_text(script)
    command = tmp_path / "bin" / "apd-bench"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m apd_bench "$@"\n')
    command.chmod(0o755)
    grid = {"methods": ("zero_shot",), "datasets": ("fashion", "food"), "attacks": ("none",), "limit": 4}
    words = [f"--{name}={value if isinstance(value, int) else ','.join(value)}" for name, value in grid.items()]
    outside = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
    outside["PYTHONPATH"] = str(README.parent)
    for part in ("1", "2"):
        slurm = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "2"}
        subprocess.run(
            ["bash", "parts.sh", *words, "--device=cpu", "-q"], cwd=tmp_path, env=outside | slurm, check=True
        )
    stores = [Store(tmp_path / "parts" / name) for name in ("1-of-2", "2-of-2")]
    done = Counter(record.id for store in stores for record in store.records() if record.done)
    assert done == Counter(cell.id for cell in plan_of(RunOptions(**grid)).cells)
    assert all(store.statuses() for store in stores) and not (tmp_path / "leaderboards").exists()
    join = ["bash", "-c", "apd-bench report parts/*"]
    joined = subprocess.run(join, cwd=tmp_path, env=outside, check=True, capture_output=True, text=True).stdout
    assert "fashion" in joined and "food" in joined
