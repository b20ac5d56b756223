"""Laws as test classes to inherit: what every scorer and every federated method must satisfy."""

import pytest

pytest.register_assert_rewrite("tests.laws.method_laws", "tests.laws.scorer_laws", "tests.laws.statistics_laws")
