"""What the tests of attacks try things on."""

from tests.attacks.conftest import killed_after as killed_after
from tests.attacks.conftest import oracle as oracle
from tests.attacks.conftest import small_net as small_net
