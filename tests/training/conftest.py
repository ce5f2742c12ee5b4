"""What the tests of methods try things on."""

from tests.methods.conftest import backbone as backbone
from tests.methods.conftest import data as data
