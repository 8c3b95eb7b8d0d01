"""Make a checked data set from a folder of real and fake faces.

  python -m jobs.prepare downloads/faces --out data/faces
  python -m jobs.prepare s3://bucket/faces --out s3://bucket/data/faces
  python -m jobs.prepare --download kaggle --out data/140k

SOURCE is a local folder or a URI (s3://, gs://, file://) with one of these layouts:

  the unpacked Kaggle archive "140k Real and Fake Faces" with its CSV files
  {train,valid,test}/{real,fake}/...
  {real,fake}/...    the job splits it by --seed and --ratio, and keeps near-duplicates in the same split

A test split may have one class only, such as the output of a new generator: put it in test/fake, or in fake alone.
Files are told by their bytes, not by their names; a folder is listed once, however many links lead to it.

An image may have a source (a generator or a camera set: jobs.evaluate reports metrics by source) and a group (a person,
a video, a seed: the job never divides one between splits, and warns if SOURCE does). Both come from CSVs with the
columns path and source or group (sources.csv, or train.csv, valid.csv and test.csv), from --source-folder and
--group-folder, and sources also from --source-of; a later one in this list overrules an earlier one.

DATASET, a folder or URI, receives

  manifest.parquet   one row per image: path, label, split, sha256, width, height, bytes, JPEG quality, perceptual hash,
                     source, group
  audit.json         counts, also by source, files that were left out and why, duplicates and groups within and across
                     splits, differences between CSV rows and files, and how well each property of the files (size,
                     dimensions, brightness, JPEG tables, ...) alone separates real from fake
  dataset.json       what the data set is; written last

The images stay where they are. With --faces the data set consists of new images instead: the largest face of each
image, aligned like an FFHQ portrait (scale, rotation and position) and stored losslessly in DATASET/images. Use it for
images that are not portraits yet.

After an interruption, run the same command again to continue. On a cluster, every node must be able to read SOURCE and,
with --faces, to write to DATASET.

The last line on stdout is one JSON object: dataset, images, unreadable, left_out (other files below SOURCE), excluded,
duplicates_across_splits, groups_across_splits, sources, counts, warnings, fingerprint.
"""

import argparse
import errno
import functools
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import ray
from numpy.typing import NDArray
from tqdm import tqdm

from detector_core import storage
from detector_core.data import manifest
from detector_core.data.audit import audit, groups_across_splits, summary
from detector_core.data.index import Index, scan
from detector_core.data.inspect import Transform, inspect_images
from detector_core.data.sources import SourceRules, parse_source_of
from detector_core.data.splits import draw_splits, duplicates_to_exclude, join_groups
from detector_core.errors import BadConfig, BadData, first_line
from detector_core.images import align
from jobs.common import cli
from jobs.common.chunks import CHUNK_IMAGES, ChunkStore, map_chunks, near_duplicate_groups
from jobs.common.cluster import check_resources, connect

IMAGES = "images"
RATIO = (5, 1, 1)
KAGGLE_SET = "xhlulu/140k-real-and-fake-faces"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("prepare", __doc__)
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="folder or URI of the images")
    parser.add_argument("--out", metavar="DATASET", required=True, help="folder or URI to write; replaced if it exists")
    parser.add_argument("--name", help="name of the data set [the last part of SOURCE]")
    parser.add_argument(
        "--terms",
        default="",
        metavar="TEXT",
        help="the terms of the images, such as 'non-commercial use only'; models trained on them carry the text",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed for splitting and for --sample [%(default)s]")
    parser.add_argument(
        "--ratio", type=_ratio, default=RATIO, help="train:valid:test of a SOURCE without splits [5:1:1, as in Table I]"
    )
    parser.add_argument(
        "--faces",
        action="store_true",
        help="detect the largest face of each image with MTCNN and align it like a portrait",
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="use only N images of each split and class, chosen by --seed"
    )
    parser.add_argument(
        "--source-folder",
        type=int,
        metavar="N",
        help="the N-th folder below that of the label names the source: 1 in fake/stylegan3/x.png",
    )
    parser.add_argument("--group-folder", type=int, metavar="N", help="the N-th folder below it names the group")
    parser.add_argument(
        "--source-of",
        action="append",
        default=[],
        metavar="PATTERN=NAME",
        help="the source of images whose path matches, such as 'fake/sg3-*=stylegan3'; may be repeated, and the first "
        "that matches counts",
    )
    parser.add_argument(
        "--exclude",
        choices=["duplicates"],
        help="leave out images whose near-duplicate is in a later split (of train, valid, test), and identical files "
        "with both labels; audit.json lists them",
    )
    parser.add_argument("--download", choices=["kaggle"], help="download the Kaggle data set first (needs kagglehub)")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lists, inspects and compares the images, splits and audits them, and saves the manifest."""
    if (arguments.source is None) == (arguments.download is None):
        raise BadConfig("give either SOURCE or --download kaggle")
    index = scan(arguments.source or download_kaggle())
    if arguments.sample is not None:
        index = index.sample(arguments.sample, arguments.seed)
    rules = SourceRules(
        source_folder=arguments.source_folder,
        group_folder=arguments.group_folder,
        source_of=tuple(map(parse_source_of, arguments.source_of)),
    )
    origins = index.origins(rules)
    dataset = storage.absolute(arguments.out)
    name = arguments.name or ("generated demo data" if index.generated else index.source.rpartition("/")[2])
    cli.say(f"{name}: {len(index.frame):,} images below {index.root}")
    root, key, transform = index.root, index.key, None
    if arguments.faces:
        root, key = storage.join(dataset, IMAGES), f"{index.key}-faces"
        transform = functools.partial(align.save_portrait, folder=root)
    store = ChunkStore(dataset, key)
    with connect():
        check_resources(cpus=1, purpose="jobs.prepare")
        properties = inspect_all(index, store, transform)
        frame = index.frame[["path", "label", "split"]].merge(properties, on="path", validate="1:1")
        frame = frame.merge(origins.frame, on="path", validate="1:1")
        usable = frame["problem"].isna()
        check_classes(frame, index.root)
        group_N = near_duplicate_groups(frame["phash"][usable])
    if index.flat:
        undivided_N = join_groups(group_N, frame.loc[usable, "group"])
        frame.loc[usable.to_numpy(), "split"] = choose_splits(frame.loc[usable, "label"], undivided_N, arguments)
    excluded = None
    if arguments.exclude:
        frame, group_N, excluded = exclude_duplicates(frame, group_N)
        usable = frame["problem"].isna()
    result = audit(index, frame, group_N, origins, excluded)
    result["faces"] = "aligned" if arguments.faces else None
    result["sample"] = arguments.sample
    result["split"] = {"seed": arguments.seed, "ratio": list(arguments.ratio)} if index.flat else "folders"
    if arguments.faces:
        frame["path"] = frame["path"].map(align.portrait_name)
    readable = frame[usable].astype(dict.fromkeys(["width", "height", "bytes"], "int64"))
    saved = manifest.save(
        dataset, readable, root=root, name=name, generated=index.generated, audit=result, terms=arguments.terms
    )
    store.remove()
    cli.say(summary(result, f"{name} -> {dataset}"))
    return {
        "dataset": dataset,
        "images": len(saved.frame),
        "unreadable": result["unreadable"]["count"],
        "left_out": result["left_out"]["count"],
        "excluded": result["excluded"]["count"],
        "duplicates_across_splits": groups_across_splits(result),
        "groups_across_splits": result["groups"]["across_splits"],
        "sources": sorted(result["sources"]),
        "counts": result["counts"],
        "warnings": result["warnings"],
        "fingerprint": saved.fingerprint,
    }


def inspect_all(index: Index, store: ChunkStore, transform: Transform | None) -> pd.DataFrame:
    """The properties of every image, inspected on all cores of the cluster; finished chunks are not repeated."""
    paths = index.frame["path"].tolist()
    chunks = [paths[start : start + CHUNK_IMAGES] for start in range(0, len(paths), CHUNK_IMAGES)]
    stored = store.done()
    todo = [number for number in range(len(chunks)) if number not in stored]
    task = ray.remote(inspect_images)
    already_done = sum(len(chunks[number]) for number in stored)
    with tqdm(total=len(paths), initial=already_done, desc="inspecting", unit=" images") as bar:
        for position, properties in map_chunks(task, [(index.root, chunks[number], transform) for number in todo]):
            store.write(todo[position], properties)
            bar.update(len(properties))
    return store.read(len(chunks))


def check_classes(frame: pd.DataFrame, root: str) -> None:
    """Raises BadData if none of the files of a class can be read.

    Args:
        frame: ``path``, ``label`` and ``problem`` of each file.
    """
    for label, files in frame.groupby("label"):
        if files["problem"].notna().all():
            first = files.iloc[0]
            raise BadData(
                f"none of the {len(files):,} files in the folders of {label} images below {root} can be read; the "
                f"first is {first['path']}: {first['problem']}"
            )


def choose_splits(labels: pd.Series, group_N: NDArray[np.int64], arguments: argparse.Namespace) -> NDArray[np.object_]:
    """Draws the splits of a source without them; images of one class only are all for testing. Shape (N,)."""
    if labels.nunique() == 1:
        cli.say(f"all images are {labels.iloc[0]}: they become a test split, and nothing is left for training")
        return np.full(len(labels), "test", dtype=object)
    return draw_splits(labels.tolist(), group_N, ratio=arguments.ratio, seed=arguments.seed)


def exclude_duplicates(
    frame: pd.DataFrame, group_N: NDArray[np.int64]
) -> tuple[pd.DataFrame, NDArray[np.int64], pd.Series]:
    """Takes the images out that :func:`duplicates_to_exclude` names.

    Args:
        frame: every file; ``group_N`` has the near-duplicate group of each row without a ``problem``.

    Returns:
        The other files, their groups, and, by path, why an image was excluded.
    """
    usable = frame["problem"].isna()
    reasons = duplicates_to_exclude(frame[usable], group_N)
    excluded = reasons.set_axis(frame.loc[usable, "path"])[reasons.notna().to_numpy()]
    return frame.drop(index=reasons.index[reasons.notna()]), group_N[reasons.isna().to_numpy()], excluded


def download_kaggle() -> str:
    """The folder of the Kaggle data set, downloaded unless it is there already.

    Raises:
        BadData: kagglehub is missing or cannot reach Kaggle.
    """
    manual_download = (
        f"or download https://www.kaggle.com/datasets/{KAGGLE_SET} yourself, unpack it and give its folder as SOURCE"
    )
    try:
        import kagglehub
    except ImportError:
        raise BadData(f"--download kaggle needs kagglehub: uv pip install kagglehub, {manual_download}") from None
    try:
        return str(kagglehub.dataset_download(KAGGLE_SET))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = first_line(error)
        raise BadData(f"the download from Kaggle failed ({reason}): go online and sign in, {manual_download}") from None


def _ratio(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*:[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not three whole numbers above 0, such as 5:1:1")
    return tuple(int(part) for part in text.split(":"))


if __name__ == "__main__":
    main()
