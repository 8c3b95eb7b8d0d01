"""The Dockerfile as ``python -m reliability.image`` reads it, which carries its instructions out."""

from pathlib import Path

import pytest

from reliability.image.dockerfile import Instruction, parse

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def test_every_instruction_of_the_dockerfile_is_understood() -> None:
    uv, environment, image = parse(DOCKERFILE.read_text())
    assert (uv.name, environment.name, image.name) == ("uv", "environment", "")
    (copied,) = [step for step in image.steps if step.flags.get("from") == "environment"]
    assert copied.words() == ["/opt/venv", "/opt/venv"]
    synced = environment.last("RUN")
    assert synced.flags["mount"] == "type=cache,target=/root/.cache/uv"
    assert synced.words()[:2] == ["uv", "sync"]
    assert image.last("CMD").words()[:3] == ["python", "-m", "jobs.serve"]
    assert image.last("USER").text != "root"


def test_lines_are_joined_and_comments_left_out() -> None:
    (stage,) = parse(
        "FROM a:1 AS b\n# c\nRUN --mount=type=cache,target=/c one \\\n    # d\n    && two\nENV A=1 \\\n B=2\n"
    )
    assert (stage.image, stage.name) == ("a:1", "b")
    assert stage.steps == [
        Instruction("RUN", {"mount": "type=cache,target=/c"}, "one && two"),
        Instruction("ENV", {}, "A=1 B=2"),
    ]


def test_an_unknown_instruction_is_refused() -> None:
    with pytest.raises(ValueError, match="ADD is not one of"):
        parse("FROM a:1\nADD x y\n")
