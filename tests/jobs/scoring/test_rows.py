"""A row for each file: for images the answer of the service, for others why there is none."""

import json
from pathlib import Path

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from detector_core.data import image_files
from detector_core.errors import BadData
from detector_core.evaluation.calibration import VERDICTS
from detector_core.images import faces as face_search
from detector_core.images.faces import Search
from detector_core.images.preprocess import decode
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor
from jobs.scoring.rows import BATCH, LIMITS, Task, predict_files
from serve_app.settings import Faces
from tests.conftest import image_bytes
from tests.support import provenance as support_provenance
from tests.support.clips import make_clip
from tests.support.faces import make_face
from tests.support.http_service import make_app
from tests.support.images import encode, noise, png_chunk
from tests.support.models import SIZE, save_model


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicting")
    versions.promote(save_model(folder / "model", generated=False), folder / "models")
    return versions.live(folder / "models")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few more than a batch, read only."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(BATCH + 3):
        (folder / f"{number:02}.jpg").write_bytes(image_bytes(number, "fake" if number % 2 else "real"))
    (folder / "damaged.jpg").write_bytes(image_bytes(0, "real")[:300])
    return folder


def task(version: Path, faces: Faces, root: Path) -> Task:
    return Task(version=str(version), device="cpu", faces=faces, root=str(root), signers=support_provenance.signers())


def test_each_image_gets_the_verdict_of_the_service_in_order(version: Path, images: Path) -> None:
    paths = sorted((path.name for path in images.glob("[0-9]*.jpg")), reverse=True)
    table = predict_files(task(version, "off", images), paths)
    expected = Predictor(version).predict([decode((images / path).read_bytes()) for path in paths])
    assert table["path"].tolist() == paths
    assert table["verdict"].tolist() == [prediction.verdict for prediction in expected]
    assert table["p_fake"].tolist() == pytest.approx([prediction.p_fake for prediction in expected], abs=1e-3)
    assert table["logit"].tolist() == pytest.approx([prediction.logit for prediction in expected], abs=1e-3)
    assert table["error"].isna().all()


def test_a_file_that_cannot_be_read_gets_an_error_and_the_rest_continues(version: Path, images: Path) -> None:
    table = predict_files(task(version, "off", images), ["damaged.jpg", "gone.jpg", "01.jpg"])
    damaged, missing, intact = table["error"]
    assert damaged.startswith("damaged image: ")
    assert missing.startswith("the file cannot be opened: ")
    assert missing.endswith("No such file or directory")
    assert intact != intact
    assert table["verdict"].notna().tolist() == table["p_fake"].notna().tolist() == [False] * 2 + [True]
    assert table["left_out"].isna().all()


def test_files_are_told_by_their_bytes(version: Path, images: Path, tmp_path: Path) -> None:
    portrait = (images / "00.jpg").read_bytes()
    unreadable = b"\0\0\0\x0cJXL \r\n\x87\n"
    files = {
        "IMG_0.JPG": portrait,
        "hash": portrait,
        "IMG_1.jxl": unreadable,
        "notes.jpg": b"no image",
        "clip.png": b"RIFF",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    table = predict_files(task(version, "off", tmp_path), list(files)).set_index("path")
    assert table["p_fake"].notna().to_dict() == {name: data is portrait for name, data in files.items()}
    assert table["error"].notna().to_dict() == {name: data is unreadable for name, data in files.items()}
    assert "JPEG XL images cannot be read" in table.loc["IMG_1.jxl", "error"]
    assert table["left_out"].dropna().to_dict().keys() == {"notes.jpg", "clip.png"}


def test_images_that_show_nothing_get_no_score(version: Path, tmp_path: Path) -> None:
    shapes = {
        "dot.png": Image.new("RGB", (1, 1)),
        "line.png": noise(size=(300, SIZE // 2 - 1)),
        "gray.jpg": Image.new("L", (99, 99), 80),
    }
    shapes |= {"transparent.png": Image.new("RGBA", (64, 64), (200, 30, 10, 0)), "sound.png": noise(size=(SIZE, SIZE))}
    for name, image in shapes.items():
        (tmp_path / name).write_bytes(encode(image, "JPEG" if name.endswith("jpg") else "PNG"))
    table = predict_files(task(version, "off", tmp_path), list(shapes)).set_index("path")
    assert table["warnings"].to_dict() == {
        "dot.png": "too_small",
        "line.png": "too_small",
        "gray.jpg": "blank",
        "transparent.png": "blank",
        "sound.png": "",
    }
    assert (table["verdict"] == "no_face").tolist() == table["p_fake"].isna().tolist() == [True] * 4 + [False]


def test_the_warnings_are_those_of_the_service(version: Path, tmp_path: Path) -> None:
    frames = [noise(size=(64, 48)), noise(size=(64, 48)).rotate(180)]
    files = {
        "coarse.jpg": encode(noise(size=(64, 48)), "JPEG", quality=20),
        "animated.png": encode(frames[0], save_all=True, append_images=frames[1:]),
        "texts.png": encode(noise(size=(64, 64)))[:-12]
        + png_chunk(b"tEXt", bytes(2**20 + 1))
        + png_chunk(b"IEND", b""),
        "square.png": encode(noise(size=(64, 64))),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    table = predict_files(task(version, "off", tmp_path), list(files))
    assert table["warnings"].tolist() == ["recompressed cropped", "animated cropped", "metadata_dropped", ""]
    assert table["verdict"].isin(VERDICTS).all()


def test_a_folder_gets_the_answers_of_the_service(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faces, a group of more faces than are scored, no face, nothing to see, warnings, damage: as over HTTP."""
    portrait = noise(size=(64, 64))
    faces = {64: [make_face(8, 8, 48)], 80: [make_face(10 * n, 4 * n, 30) for n in range(LIMITS.max_faces + 2)]}
    monkeypatch.setattr(face_search, "search", lambda image, _: Search(faces.get(image.shape[1], []), True))
    signed = support_provenance.signed(encode(portrait, "JPEG", quality=95), "image/jpeg")
    files = {
        "portrait.png": encode(portrait),
        "signed.jpg": signed,
        "clip.mp4": make_clip(5, size=(64, 48)),
        "half a clip.mp4": make_clip(5, size=(64, 48))[:1500],
        "group.jpg": encode(noise(size=(80, 60)), "JPEG", quality=30),
        "nobody.webp": encode(noise(size=(50, 60)), "WEBP"),
        "blank.png": encode(Image.new("RGB", (64, 64))),
        "damaged.jpg": image_bytes(0, "real")[:300],
        "empty": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    rows = predict_files(task(version, "auto", tmp_path), list(files)).set_index("path")
    predictor = Predictor(version)
    signers_file = tmp_path.parent / f"{tmp_path.name}.pem"
    signers_file.write_text(support_provenance.signers())
    with TestClient(make_app(predictor, limits=LIMITS, signers_file=str(signers_file))) as client:
        for name, data in files.items():
            row = rows.loc[name]
            is_clip = name.endswith(".mp4")
            where, media_type = ("/v1/detect/video", "video/mp4") if is_clip else ("/v1/detect", "image/png")
            answer = client.post(where, content=data, headers={"Content-Type": media_type})
            if answer.status_code != 200:
                assert answer.status_code == 400
                assert row["error"] == answer.json()["error"]["message"]
                continue
            result = answer.json() if is_clip else answer.json()["results"][0]
            assert (row["verdict"], row["warnings"].split()) == (result["verdict"], result["warnings"])
            claims = [f"{claim['kind']}:{claim['says']}:{claim['standing']}" for claim in result["provenance"]]
            assert row["provenance"].split() == claims
            if is_clip:
                assert row["p_fake"] == pytest.approx(result["p_fake"], abs=1e-3)
                continue
            assert row["faces"] == len(result["faces"])
            if result["verdict"] == "no_face":
                assert pd.isna(row["p_fake"])
                assert result["p_fake"] is None
            else:
                assert row["p_fake"] == pytest.approx(result["p_fake"], abs=1e-3)
                assert [int(side) for side in row["crop_box"].split()] == result["crop_box"]
                scored = json.loads(row["scored_faces"])
                assert len(scored) == len(result["faces"])
                for ours, theirs in zip(scored, result["faces"], strict=True):
                    assert ours | {"p_fake": 0} == theirs | {"p_fake": 0}
                    assert ours["p_fake"] == pytest.approx(theirs["p_fake"], abs=1e-3)
    assert rows["verdict"].notna().tolist() == [True] * 3 + [False] + [True] * 3 + [False] * 2
    assert rows.loc["signed.jpg", "provenance"] == "c2pa:generated:listed_signer"
    assert rows.loc["group.jpg", "faces"] == LIMITS.max_faces
    assert "faces_left_out" in rows.loc["group.jpg", "warnings"]


def test_a_failing_disk_stops_the_run_and_names_the_remedy(
    version: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: str, path: str, *, clips: bool) -> bytes:  # noqa: ARG001 -- of the interface
        raise BadData(f"{root}/{path} cannot be read: run the same command again to continue")

    monkeypatch.setattr(image_files, "read", fail)
    with pytest.raises(BadData, match=rf"^{images}/00\.jpg cannot be read: run the same command again to continue"):
        predict_files(task(version, "off", images), ["00.jpg"])
