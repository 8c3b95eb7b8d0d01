"""jobs.predict: files and folders get the scores of the service, broken images are named, no chunk is repeated."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from detector_core.images.preprocess import decode
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor
from jobs.predict import main
from jobs.scoring import single
from jobs.scoring.results import STORE
from jobs.scoring.tables import FACES, LEFT_OUT, SHEET, SUMMARY, TABLE, face_table, not_a_formula
from tests.conftest import image_bytes
from tests.support.clips import make_clip
from tests.support.images import encode
from tests.support.models import save_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    versions.promote(save_model(folder / "model"), folder / "models")
    return folder / "models"


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """300 images in three folders, more than one chunk; one is truncated, one has no suffix, and one is named like a
    formula. There are a text, a hidden file and a link in a circle, too."""
    folder = tmp_path / "uploads"
    for number in range(300):
        path = folder / f"batch {number % 3}" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number, "fake" if number % 2 else "real"))
    (folder / "batch 1" / "001.jpg").write_bytes(image_bytes(1, "fake")[:300])
    (folder / "notes.txt").write_text("no image")
    (folder / "batch 2" / "002.jpg").rename(folder / "batch 2" / "002")
    (folder / "batch 0" / "000.jpg").rename(folder / "=1+1.jpg")
    (folder / ".hidden").touch()
    (folder / "batch 0" / "loop").symlink_to(folder)
    return folder


@pytest.fixture
def predict(run_job: Any, shared_ray: str) -> Any:  # noqa: ARG001
    """Runs the job on the shared Ray cluster."""
    return functools.partial(run_job, "predict")


def test_a_second_call_scores_what_is_new_and_every_image_gets_the_verdict_of_the_service(
    models: Path, uploads: Path, tmp_path: Path, predict: Any
) -> None:
    live, out = versions.live(models), tmp_path / "out"
    arguments = (uploads, "--models", models, "--out", out, "--per-face", "--sheet", 2)
    code, result, err = predict(*arguments)
    assert code == 0, err
    assert (result["images"], result["scored"], result["unreadable"], result["left_out"]) == (300, 300, 1, 3)
    assert result["model"] == live.name
    assert sum(result["verdicts"].values()) == 299
    table = pd.read_csv(result["predictions"])
    assert table["path"].nunique() == 300
    assert all((uploads / path).is_file() for path in table["path"])
    assert "./=1+1.jpg" in set(table["path"])
    assert table["p_fake"].dropna().is_monotonic_decreasing
    assert (table["copies"] == 1).all()
    (broken,) = table[table["error"].notna()]["path"]
    assert broken == "batch 1/001.jpg"
    assert table[table["error"].notna()]["verdict"].isna().all()
    path = table["path"].iloc[150]
    (expected,) = Predictor(live).predict([decode((uploads / path).read_bytes())])
    assert table["p_fake"].iloc[150] == pytest.approx(expected.p_fake, abs=1e-3)
    assert table["verdict"].iloc[150] == expected.verdict
    parquet = pd.read_parquet(out / "predictions.parquet")
    assert parquet["path"].tolist() == [name.removeprefix("./") for name in table["path"]]
    assert {path.name for path in out.iterdir()} == {
        TABLE,
        "predictions.parquet",
        FACES,
        LEFT_OUT,
        SUMMARY,
        SHEET,
        STORE,
    }
    assert (out / SHEET).read_text().count("data:image/jpeg") == 2
    left_out = pd.read_csv(out / LEFT_OUT)
    assert left_out["path"].tolist() == [".hidden", "batch 0/loop", "notes.txt"]
    assert "left out (1 a link to a folder that is listed already, 1 hidden, 1 not an image)" in err
    summary = json.loads((out / SUMMARY).read_text())
    assert summary["left_out"]["count"] == 3
    assert summary["test"][0]["fakes_passed_rate"] is not None
    assert "of 100 flags are right" in err or not result["verdicts"]["fake"]

    # one new file, a copy of one, a near-duplicate of another, and one that is gone
    original = (uploads / "batch 0" / "003.jpg").read_bytes()
    (uploads / "copy").write_bytes(original)
    (uploads / "near.png").write_bytes(encode(Image.open(io.BytesIO(original))))
    (uploads / "batch 2" / "005.jpg").unlink()
    code, result, err = predict(*arguments[:-3])
    assert code == 0, err
    assert (result["images"], result["scored"]) == (301, 1)
    again = pd.read_csv(result["predictions"]).set_index("path")
    assert again.loc[["copy", "batch 0/003.jpg"], "copies"].tolist() == [2, 2]
    assert again.loc["near.png", "copies"] == 1
    assert again.loc["near.png", "group"] == again.loc["copy", "group"] == again.loc["batch 0/003.jpg", "group"]
    kept = table.set_index("path")["p_fake"].drop("batch 2/005.jpg")
    assert (again.loc[kept.index, "p_fake"].dropna() == kept.dropna()).all()
    assert FACES not in {path.name for path in out.iterdir()}, "a table of an earlier call was left"


def test_faces_have_a_table_of_their_own() -> None:
    face = {
        "box": [1, 2, 3, 4],
        "crop_box": [0, 1, 5, 6],
        "score": 0.75,
        "p_fake": 0.5,
        "verdict": "fake",
        "quality": ["small", "dark"],
    }
    rows = pd.DataFrame(
        {"path": ["b", "c"], "scored_faces": [json.dumps([face, {"p_fake": 0.25, "score": 0.5}]), "[]"]}
    )
    table = face_table(rows).fillna("")
    assert table.columns.tolist() == ["path", *face]
    assert table.to_numpy().tolist() == [
        ["b", "1 2 3 4", "0 1 5 6", 0.75, 0.5, "fake", "small dark"],
        ["b", "", "", 0.5, 0.25, "", ""],
    ]


@pytest.mark.parametrize("first", list("=+-@\t\r\n\uff1d"))
def test_a_path_is_no_formula(first: str) -> None:
    assert not_a_formula(f"{first}1+1.jpg") == f"./{first}1+1.jpg"
    assert not_a_formula(f"a{first}1.jpg") == f"a{first}1.jpg"


def test_what_cannot_work_is_one_line(models: Path, uploads: Path, tmp_path: Path, predict: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no image")
    for arguments, words in (
        ((tmp_path / "texts", "--models", models), "has no images in it: notes.txt is not an image: known formats are"),
        ((tmp_path / "empty", "--models", models), "has no images in it"),
        ((tmp_path / "nowhere", "--models", models), "does not exist"),
        ((uploads, "--models", tmp_path / "none"), "has no live model"),
        ((uploads, "--models", models, "--version", "other"), f"--version other: {models} has "),
    ):
        code, result, err = predict(*arguments, "--out", tmp_path / "out")
        assert (code, result) == (1, {})
        assert words in err.splitlines()[-1]
    assert not (tmp_path / "out" / TABLE).exists()


def test_single_files_are_answered_without_ray(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers come one line each, and no file stops the others, whatever is wrong with it or its heat map."""
    written = {
        "real.jpg": image_bytes(0, "real"),
        "notes.txt": b"no image",
        "fake": image_bytes(1, "fake"),
        "bad\udcffname\n.jpg": image_bytes(2, "fake"),  # not UTF-8
        "no heat map.jpg": image_bytes(3, "real"),
        "clip.mp4": make_clip(2),
        "empty.jpg": b"",
    }
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
    files = [*(str(tmp_path / name) for name in written), str(tmp_path / "gone.jpg"), "/dev/zero"]
    (tmp_path / "no heat map.jpg.heatmap.png").mkdir()
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("started Ray"))
    monkeypatch.setattr(single, "MAX_STREAM_BYTES", 2**20)
    with pytest.raises(SystemExit) as exited:
        main([*files, "--models", str(models), "--explain"])
    out, err = capfd.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert exited.value.code == 1
    assert err.splitlines()[-2:] == [
        f"{files[5]} is a clip: --explain writes heat maps of images only",
        f"error: 4 of 9 files could not be scored: {files[1]}, {files[6]}, {files[7]}, /dev/zero; "
        f"1 of 9 heat maps could not be written: {files[4]}",
    ]
    assert [answer["path"] for answer in answers] == files
    errors = [answer.get("error", "") for answer in answers]
    assert "nor a clip" in errors[1]
    assert errors[6] == "the file is empty"
    assert errors[7] == f"there is no such file or folder ({files[7]}): check the path"
    assert errors[8] == (
        "more than the 1 MiB that are read of stdin, a pipe or a device: save it as a file, and name that"
    )
    for file, answer in ((files[n], answers[n]) for n in (0, 2, 3, 4)):
        (expected,) = Predictor(versions.live(models)).predict([decode(Path(file).read_bytes())])
        assert (answer["verdict"], answer["p_fake"]) == (expected.verdict, pytest.approx(expected.p_fake, abs=1e-3))
        if file != files[4]:
            assert answer["heatmap"]["file"] == f"{file}.heatmap.png"
            with Image.open(answer["heatmap"]["file"]) as shown:
                assert shown.size == (32, 32)
    folder = f"{files[4]}.heatmap.png"
    assert answers[4]["heatmap"] == {
        "error": f"a folder is where a file should be ({folder}): move it away, or choose another path"
    }
    assert answers[5]["frames"]


def test_stdin_and_a_model_that_was_never_promoted(models: Path, run_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(image_bytes(0, "real"))))
    code, result, err = run_job("predict", "-", "--model", models.parent / "model")
    assert code == 0, err
    assert result["path"] == "-"
    assert result["model"]["version"] == versions.version_name(models.parent / "model"), "not that of every run"
    (expected,) = Predictor(models.parent / "model").predict([decode(image_bytes(0, "real"))])
    assert result["p_fake"] == pytest.approx(expected.p_fake, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("FOLDER/a.jpg", ""), "number 2 of the IMAGES is empty: name a file, or leave the empty argument out"),
        (("FOLDER",), "is a folder: add --out OUT, which receives a table of its images"),
        (("FOLDER", "FOLDER", "--out", "FOLDER"), "--out needs one folder, but there are 2 IMAGES"),
        (("FOLDER", "--out", "FOLDER", "--explain"), "--explain is for single files"),
        (("FOLDER/a.jpg", "--per-face"), "--per-face is for a folder with --out"),
        (("FOLDER/a.jpg", "--version", "v"), "--version is a version in MODELS: add --models MODELS"),
        (("FOLDER/a.jpg", "--model", "s3://runs/first"), "--model s3://runs/first: a run in an object store"),
        (("FOLDER/a.jpg", "--model", "FOLDER"), "has no artifact.json"),
    ],
)
def test_flags_that_do_not_fit_are_named(
    models: Path, tmp_path: Path, run_job: Any, arguments: tuple[str, ...], words: str
) -> None:
    places = {"FOLDER": str(tmp_path), "MODELS": str(models)}
    filled = [
        argument.replace("FOLDER", places["FOLDER"]).replace("MODELS", places["MODELS"]) for argument in arguments
    ]
    code, result, err = run_job("predict", *filled)
    assert (code, result) == (1, {})
    assert words in err.splitlines()[-1]
