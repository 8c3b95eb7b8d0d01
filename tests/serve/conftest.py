"""One tiny model and its client for all tests of the HTTP service."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from detector_core.registry.predictor import Predictor
from tests.support.http_service import make_app
from tests.support.models import save_model


@pytest.fixture(scope="session")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(save_model(tmp_path_factory.mktemp("http") / "tiny-v1"))


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with TestClient(make_app(predictor)) as client:
        yield client
