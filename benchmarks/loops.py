"""Training loops for ``benchmarks.train`` to compare with: the same images, network, batch and threads as ours."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from detector_core.config import RunSpec
from detector_core.networks import factory
from detector_core.training.optimizer import resolve_compute_dtype

EPOCHS = 2
"""Epochs of every row; the second one counts."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of every row: ``images`` is a tree of files, ``dataset`` the same images prepared."""

    images: Path
    dataset: Path
    spec: RunSpec
    threads: int
    processes: int
    gpu: bool


def plain_loop(work: Work) -> float:
    """The peer: images a second of a common PyTorch training loop."""
    from torchvision import datasets, transforms

    torch.set_num_threads(work.threads)
    device = "cuda" if work.gpu else "cpu"
    batches = _image_folder(work, transforms, datasets, workers=work.processes)
    network = factory.build(work.spec.model).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=work.spec.optim.learning_rate)
    loss_of = torch.nn.BCEWithLogitsLoss()

    def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = loss_of(network(images.to(device)).squeeze(1), labels.float().to(device))
        return loss

    return _rate(batches, loss, optimizer)


def timm_loop(work: Work) -> float:
    """The peer with timm's parts, in the order in which its training script puts them together."""
    from timm.data.dataset import ImageDataset
    from timm.data.loader import create_loader
    from timm.optim._optim_factory import create_optimizer_v2

    torch.set_num_threads(work.threads)
    device = torch.device("cuda" if work.gpu else "cpu")
    preprocess, optim = work.spec.preprocess, work.spec.optim
    batches = create_loader(
        ImageDataset(str(work.images / "train")),
        input_size=(3, preprocess.image_size, preprocess.image_size),
        batch_size=optim.micro_batch,
        is_training=True,
        scale=(1, 1),
        ratio=(1, 1),
        color_jitter=(0.1, 0.1, 0),  # type: ignore[arg-type]  # brightness and contrast, as in the other loops
        mean=preprocess.mean,
        std=preprocess.std,
        num_workers=work.processes,
        persistent_workers=work.processes > 0,
        pin_memory=work.gpu,
        device=device,
        use_prefetcher=work.gpu,
    )
    network = factory.build(work.spec.model).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(network, opt="adam", lr=optim.learning_rate)
    loss_of = torch.nn.BCEWithLogitsLoss()
    bf16 = resolve_compute_dtype(optim, network, device) == "bf16"

    def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x_BCHW = images.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            loss: torch.Tensor = loss_of(network(x_BCHW).squeeze(1), labels.float().to(device))
        return loss

    return _rate(batches, loss, optimizer)


def _rate(batches: Iterable[Any], loss: Callable[[Any, Any], torch.Tensor], optimizer: torch.optim.Optimizer) -> float:
    """Images a second of the last epoch."""
    for _ in range(EPOCHS):
        started, seen = time.perf_counter(), 0
        for images, labels in batches:
            optimizer.zero_grad()
            found = loss(images, labels)
            found.backward()
            optimizer.step()
            seen += len(labels)
        found.item()  # waits for a GPU
        rate = seen / (time.perf_counter() - started)
    return rate


def _image_folder(work: Work, transforms: Any, datasets: Any, *, workers: int) -> "DataLoader[Any]":
    preprocess = work.spec.preprocess
    steps = [
        transforms.Resize((preprocess.image_size, preprocess.image_size)),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(brightness=0.1, contrast=0.1),
        transforms.ToTensor(),
        transforms.Normalize(preprocess.mean, preprocess.std),
    ]
    folder = datasets.ImageFolder(str(work.images / "train"), transforms.Compose(steps))
    return DataLoader(
        folder,
        batch_size=work.spec.optim.micro_batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=work.gpu,
    )


def torchvision_pipeline(work: Work) -> float:
    """The peer: ImageFolder with torchvision's transforms on one core, without cut-out."""
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    folder = _image_folder(work, transforms, datasets, workers=0).dataset
    started = time.perf_counter()
    for row in range(len(folder)):  # type: ignore[arg-type]
        folder[row]
    return len(folder) / (time.perf_counter() - started)  # type: ignore[arg-type]
