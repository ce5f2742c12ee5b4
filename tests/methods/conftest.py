"""The toy problem, built once."""

import pytest

from apd_bench.training.toy import toy_backbone, toy_dataset


@pytest.fixture(scope="session")
def backbone():
    return toy_backbone()


@pytest.fixture(scope="session")
def data():
    return toy_dataset()
