import subprocess
import sys

import pytest

from apd_bench.core.errors import UnknownName, UsageError
from apd_bench.core.registry import DATASETS
from apd_bench.data.cards import cards
from apd_bench.data.catalog import benchmark_spec, builtin


def test_groups_and_order():
    groups = [spec.group for spec in builtin()]
    assert groups == sorted(groups, key=["embedded", "benchmark"].index)
    assert [spec.name for spec in builtin() if spec.group == "benchmark"] == list(cards())


@pytest.mark.parametrize(
    ("asked", "name"),
    [("pets", "oxford_pets"), ("OxfordPets", "oxford_pets"), ("ImageNet-A", "imagenet_a"), ("DTD", "dtd")],
)
def test_the_names_that_people_use(asked, name):
    assert DATASETS.get(asked).name == name


def test_another_split_shows_in_the_name_and_unknown_ones_list_the_known():
    assert benchmark_spec(cards()["dtd"]).options == {}
    spec = DATASETS.get("pets@derived")
    assert (spec.name, spec.title) == ("oxford_pets@derived", "OxfordPets (derived split)")
    assert spec.options["split"] == "derived"
    assert DATASETS.get("oxford_pets(problems='exclude')").options == {"card": "oxford_pets", "problems": "exclude"}
    with pytest.raises(UsageError, match="official, publisher, derived"):
        DATASETS.get("dtd@mine")
    with pytest.raises(UnknownName, match="Did you mean 'split'"):
        DATASETS.get("dtd(splt='derived')")
    with pytest.raises(UnknownName, match="Unknown dataset"):
        DATASETS.get("nothing@derived")


def test_specs_identities_and_checks_need_no_torch():
    code = (
        "import sys; from apd_bench.core.identity import counted; from apd_bench.core.registry import DATASETS;"
        "specs = [DATASETS.get(name) for name in DATASETS.names()]; [counted(spec) for spec in specs];"
        "assert not {'torch', 'scipy', 'PIL'} & set(sys.modules), 'heavy';"
        "from apd_bench.data.check import check_set, what_is_missing; import apd_bench.data.prepare;"
        "[(what_is_missing(spec), check_set(spec, ())) for spec in specs];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
