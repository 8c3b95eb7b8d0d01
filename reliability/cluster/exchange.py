"""What it costs to train across hosts: ``bash reliability/cluster/run.sh scaling``.

resnet68 at 64 px on generated pixels, DDP over gloo: one worker with one core, and then two cores in all in every row:
one worker that has both, two workers on one host, one worker on each of two hosts, and the same with the link held to
1 Gbit/s. A step is a micro-batch of 16 images a worker; ``exchange`` is what the all-reduce of its gradients adds to
it. The paper's batch of 1000 has many micro-batches to one exchange: the last columns reckon with 10 a worker. Ray
takes no part in it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NETWORK_PORT = 29500
MICRO, STEPS, SIZE, ACCUMULATED = 16, 5, 64, 10
ROWS = {
    "1 host, 1 worker with 1 core": (["one"], 1, ""),
    "1 host, 1 worker with 2 cores": (["one"], 2, ""),
    "1 host, 2 workers with 1 core": (["one", "one"], 1, ""),
    "2 hosts, 1 worker each": (["one", "two"], 1, ""),
    "2 hosts, link of 1 Gbit/s": (["one", "two"], 1, "1gbit"),
}


def worker(rank: int, world: int, threads: int) -> dict[str, float]:
    """Seconds of a micro-batch alone, of one with the exchange, and of the exchange by itself; medians."""
    import torch
    from torch import distributed, nn

    from detector_core.networks import factory
    from detector_core.networks.variants import spec_for

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network: nn.Module = factory.build(spec_for("resnet68-cutout").model)
    network = network.train().to(memory_format=torch.channels_last)
    parameters = sum(p.numel() for p in network.parameters())
    if world > 1:
        distributed.init_process_group("gloo", rank=rank, world_size=world)
        network = nn.parallel.DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)
    x_BCHW = torch.randn(MICRO, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = network(x_BCHW).float().mean()
        loss.backward()

    def seconds(what: Any) -> float:
        what()
        times = []
        for _ in range(STEPS):
            if world > 1:
                distributed.barrier()
            started = time.perf_counter()
            what()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def alone() -> None:
        with network.no_sync():  # type: ignore[operator]
            step()

    found = {"parameters": parameters, "with_exchange": seconds(step)}
    if world == 1:
        return {**found, "alone": found["with_exchange"], "exchange": 0.0}
    gradient = torch.randn(parameters)
    return {**found, "alone": seconds(alone), "exchange": seconds(lambda: distributed.all_reduce(gradient))}


def measure(hosts: Any) -> dict[str, Any]:
    """Every row, on hosts ``one`` and ``two``; prints the table."""
    project = Path(__file__).parents[2]
    rows = {}
    for name, (places, threads, rate) in ROWS.items():
        for place in {*places} if rate else ():
            line = f"tc qdisc add dev eth0 root tbf rate {rate} burst 1mb latency 50ms"
            subprocess.run(hosts[place].command(line), check=True)
        master = hosts[places[0]].address
        running = []
        for rank, place in enumerate(places):
            environment = f"MASTER_ADDR={master} MASTER_PORT={NETWORK_PORT} OMP_NUM_THREADS={threads}"
            line = f"cd {project}; {environment} python -m reliability.cluster.exchange {rank} {len(places)} {threads}"
            running.append(subprocess.Popen(hosts[place].command(line), stdout=subprocess.PIPE, text=True))
        outputs = [process.communicate(timeout=240)[0] for process in running]
        if any(process.returncode for process in running):
            sys.exit(f"{name}: a worker failed")
        found = json.loads(outputs[0].splitlines()[-1])
        workers, exchange = len(places), max(0.0, found["with_exchange"] - found["alone"])
        long_step = ACCUMULATED * found["alone"] + exchange
        rows[name] = {
            "images_per_s": round(workers * MICRO / found["with_exchange"], 1),
            "share": round(exchange / found["with_exchange"], 3),
            "all_reduce_s": round(found["exchange"], 3),
            "images_per_s_accumulated": round(workers * MICRO * ACCUMULATED / long_step, 1),
            "share_accumulated": round(exchange / long_step, 3),
        }
    print(f"{'':32} images/s  exchange  all-reduce   {ACCUMULATED} micro-batches a step")
    for name, row in rows.items():
        print(
            f"{name:32} {row['images_per_s']:8.1f}  {row['share']:8.1%}  {row['all_reduce_s']:8.3f} s   "
            f"{row['images_per_s_accumulated']:.1f} images/s, exchange {row['share_accumulated']:.1%}"
        )
    return {"parameters": found["parameters"], "load": os.getloadavg()[0], "rows": rows}


if __name__ == "__main__":
    print(json.dumps(worker(*(int(word) for word in sys.argv[1:]))))
