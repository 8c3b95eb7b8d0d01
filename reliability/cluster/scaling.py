"""What training across hosts costs: ``bash reliability/cluster/run.sh scaling``.

Trains resnet68 at 64 px on random pixels with DDP over gloo; Ray takes no part. The first row has one core, all others
two: one worker with both, two workers on one host, one worker on each of two hosts, and the same over a link limited to
1 Gbit/s. A step is one micro-batch of 16 images per worker. ``exchange`` is what the all-reduce of the gradients adds
to it. A batch of the paper (1000 images) has many micro-batches per exchange, so the last columns assume ten per
worker.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from reliability.cluster.hosts import Hosts

MASTER_PORT = 29500
MICRO_BATCH, STEPS, IMAGE_SIZE, MICRO_BATCHES_PER_STEP = 16, 5, 64, 10
ROWS = {
    "1 host, 1 worker with 1 core": (["one"], 1, ""),
    "1 host, 1 worker with 2 cores": (["one"], 2, ""),
    "1 host, 2 workers with 1 core": (["one", "one"], 1, ""),
    "2 hosts, 1 worker each": (["one", "two"], 1, ""),
    "2 hosts, link of 1 Gbit/s": (["one", "two"], 1, "1gbit"),
}
"""The host of each worker, the threads of a worker, and the limit of each host's link."""


def worker(rank: int, world_size: int, threads: int) -> dict[str, float]:
    """Medians in seconds of a micro-batch without exchange, of one with it, and of the exchange by itself."""
    import torch
    from torch import distributed, nn

    from detector_core.networks import factory
    from detector_core.networks.variants import spec_for

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network: nn.Module = factory.build(spec_for("resnet68-cutout").model)
    network = network.train().to(memory_format=torch.channels_last)
    parameters = sum(p.numel() for p in network.parameters())
    if world_size > 1:
        distributed.init_process_group("gloo", rank=rank, world_size=world_size)
        network = nn.parallel.DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)
    x_BCHW = torch.randn(MICRO_BATCH, 3, IMAGE_SIZE, IMAGE_SIZE).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = network(x_BCHW).float().mean()
        loss.backward()

    def median_seconds(function: Any) -> float:
        function()
        seconds = []
        for _ in range(STEPS):
            if world_size > 1:
                distributed.barrier()
            started = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def step_without_exchange() -> None:
        with network.no_sync():  # type: ignore[operator]
            step()

    result = {"parameters": parameters, "with_exchange": median_seconds(step)}
    if world_size == 1:
        return {**result, "without_exchange": result["with_exchange"], "exchange": 0.0}
    gradient = torch.randn(parameters)
    return {
        **result,
        "without_exchange": median_seconds(step_without_exchange),
        "exchange": median_seconds(lambda: distributed.all_reduce(gradient)),
    }


def measure(hosts: Hosts) -> dict[str, Any]:
    """Measures every row on the hosts ``one`` and ``two``, and prints the table."""
    rows, parameters = {}, 0.0
    for name, (worker_hosts, threads, link) in ROWS.items():
        for host in {*worker_hosts} if link else ():
            line = f"tc qdisc add dev eth0 root tbf rate {link} burst 1mb latency 50ms"
            subprocess.run(hosts[host].command(line), check=True)
        seconds = _run_workers(hosts, name, worker_hosts, threads)
        parameters = seconds["parameters"]
        rows[name] = _row(seconds, len(worker_hosts))
    print(f"{'':32} images/s  exchange  all-reduce   {MICRO_BATCHES_PER_STEP} micro-batches a step")
    for name, row in rows.items():
        print(
            f"{name:32} {row['images_per_s']:8.1f}  {row['exchange_fraction']:8.1%}  {row['all_reduce_s']:8.3f} s   "
            f"{row['images_per_s_accumulated']:.1f} images/s, exchange {row['exchange_fraction_accumulated']:.1%}"
        )
    return {"parameters": parameters, "load": os.getloadavg()[0], "rows": rows}


def _run_workers(hosts: Hosts, name: str, worker_hosts: list[str], threads: int) -> dict[str, float]:
    """The measurements of rank 0."""
    project = Path(__file__).parents[2]
    master, processes = hosts[worker_hosts[0]].address, []
    for rank, host in enumerate(worker_hosts):
        environment = f"MASTER_ADDR={master} MASTER_PORT={MASTER_PORT} OMP_NUM_THREADS={threads}"
        arguments = f"{rank} {len(worker_hosts)} {threads}"
        line = f"cd {project}; {environment} python -m reliability.cluster.scaling {arguments}"
        processes.append(subprocess.Popen(hosts[host].command(line), stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"{name}: a worker failed")
    result: dict[str, float] = json.loads(outputs[0].splitlines()[-1])
    return result


def _row(seconds: dict[str, float], workers: int) -> dict[str, float]:
    exchange_s = max(0.0, seconds["with_exchange"] - seconds["without_exchange"])
    accumulated_s = MICRO_BATCHES_PER_STEP * seconds["without_exchange"] + exchange_s
    images = workers * MICRO_BATCH
    return {
        "images_per_s": round(images / seconds["with_exchange"], 1),
        "exchange_fraction": round(exchange_s / seconds["with_exchange"], 3),
        "all_reduce_s": round(seconds["exchange"], 3),
        "images_per_s_accumulated": round(images * MICRO_BATCHES_PER_STEP / accumulated_s, 1),
        "exchange_fraction_accumulated": round(exchange_s / accumulated_s, 3),
    }


if __name__ == "__main__":
    print(json.dumps(worker(*(int(argument) for argument in sys.argv[1:]))))
