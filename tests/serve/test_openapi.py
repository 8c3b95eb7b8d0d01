"""The examples of the OpenAPI document are answers that the service has given, of the form that it gives today."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from detector_core.registry import starter
from detector_core.registry.predictor import Predictor
from serve_app import openapi
from serve_app.batch_schemas import BatchAnswer, BatchResults
from serve_app.model_schemas import ModelAnswer
from serve_app.schemas import DetectAnswer, VideoAnswer
from tests.support.http_service import make_app

STARTER = Path(openapi.__file__).parents[1] / "detector_core" / starter.NAME
SCHEMAS: dict[str, type[BaseModel]] = {
    "/v1/detect": DetectAnswer,
    "/v1/detect/video": VideoAnswer,
    "/v1/batches": BatchAnswer,
    "/v1/batches/{id}": BatchAnswer,
    "/v1/batches/{id}/results": BatchResults,
    "/v1/model": ModelAnswer,
}


@pytest.mark.parametrize("path", SCHEMAS)
def test_an_example_has_every_field_of_an_answer_and_no_other(path: str) -> None:
    example = openapi.examples()[path]
    assert SCHEMAS[path].model_validate(example).model_dump(mode="json") == example


def test_the_examples_are_answers_of_the_starter_model_as_it_is() -> None:
    """If this fails: python -m serve_app.openapi_examples."""
    weights = json.loads((STARTER / "artifact.json").read_text())["weights_sha256"]
    assert openapi.examples()["/v1/model"]["sha256"] == weights


def test_the_document_has_an_example_for_each_answer(predictor: Predictor, tmp_path: Path) -> None:
    client = TestClient(make_app(predictor, batches_folder=str(tmp_path)))
    paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status in ("200", "202") and path in SCHEMAS:
                    content = response["content"]["application/json"]
                    assert content["example"] == openapi.examples()[path]
                    assert content["schema"]["$ref"].endswith(SCHEMAS[path].__name__)
    assert SCHEMAS.keys() <= paths.keys()
