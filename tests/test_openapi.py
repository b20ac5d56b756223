"""Whatever the OpenAPI allows, and what it does not, is answered as it says: no failure, nothing undocumented."""

from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fedrec.recsys.recommender import Recommender
from fedrec.serving.http.app import create_app
from fedrec.serving.settings import Settings
from tests.support.endpoint import ready

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ADMIN = "a-key-to-change-9876543210"


@pytest.fixture(scope="module")
def described(run: Path):
    """The schema of an endpoint that runs, behind a real port."""
    recommender = Recommender.load(run)
    app: FastAPI = create_app(
        lambda: recommender, Settings.model_validate({"admin_keys": [ADMIN], "token_secret": "s" * 32})
    )
    with ready(app, ADMIN) as client:
        yield schemathesis.openapi.from_url(str(client.base_url.join("/openapi.json")))


@pytest.mark.timeout(290)
def test_every_answer_is_documented(described: schemathesis.BaseSchema) -> None:
    operations = [found.ok() for found in described.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == 17
    for operation in operations:
        for mode in schemathesis.GenerationMode:

            @given(operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=15,
                deadline=None,
                derandomize=True,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            )
            def asked(case: schemathesis.Case) -> None:
                case.call_and_validate(headers={"x-api-key": ADMIN}, checks=CHECKS)

            try:
                asked()
            except Unsatisfiable:  # where any text will do, nothing is wrong
                assert mode is schemathesis.GenerationMode.NEGATIVE
                assert not operation.body
