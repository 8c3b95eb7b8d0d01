"""A model on paper of throughput and cost: training on 1 to 1,000 GPUs, serving up to 1,000,000 images per hour.

It is arithmetic on the inputs below; none of it was run on such a cluster. docs/scaling.md has the formulae and the
source of each input. Enter your own figures: the throughput that benchmarks.train --gpu prints, prices, network.

  python -m benchmarks.scaling
  python -m benchmarks.scaling --images-per-s 900 --gpu-price 0.45 --gigabits 10 --batch-per-gpu 100
"""

import argparse
import json
import math
from dataclasses import dataclass

GPUS = (1, 2, 4, 8, 16, 20, 32, 64, 128, 256, 512, 1000)
SERVED_PER_HOUR = (1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of the model; the defaults are resnet68 at 224 px on g5.2xlarge (one A10G) and m6i.4xlarge.

    Attributes:
        images_per_s: training throughput of one GPU; assumed: 25% of 70 TFLOP/s at 32.4 GFLOP per image.
        parameters: parameters of the network; each has a float32 gradient.
        micro_batch: images per pass; a GPU makes at least one pass per step.
        batch: global batch of the paper, whatever the number of GPUs.
        batch_per_gpu: batch per GPU in the second table, where the global batch grows with the GPUs.
        gigabits: sustained network bandwidth of a node, Gbit/s.
        latency_s: latency of one message between nodes.
        decode_per_core: images per second that one core reads, resizes and augments.
        cores: cores of a GPU node; one is left for everything else.
        gpu_price, cpu_price: dollars per hour of a GPU node and of a serving node.
        served_per_core: images per second that one core serves at full load.
        serving_cores: cores of a serving node.
        serving_load: proportion of a serving node's throughput that is planned for.
    """

    images_per_s: float = 540
    parameters: int = 30_213_185
    micro_batch: int = 50
    batch: int = 1000
    batch_per_gpu: int = 200
    gigabits: float = 10
    latency_s: float = 50e-6
    decode_per_core: float = 250
    cores: int = 8
    gpu_price: float = 1.212
    cpu_price: float = 0.768
    served_per_core: float = 6.6
    serving_cores: int = 16
    serving_load: float = 0.6


@dataclass(frozen=True, kw_only=True)
class Step:
    """One row of a table; ``limit`` is the bottleneck."""

    gpus: int
    images_per_s: float
    efficiency: float
    exchange: float
    dollars_per_million: float
    limit: str


def exchange_s(inputs: Inputs, gpus: int) -> float:
    """A ring all-reduce of the gradients: every link carries them twice but for one part in n."""
    if gpus == 1:
        return 0.0
    bits = 2 * (gpus - 1) / gpus * 32 * inputs.parameters
    return bits / (inputs.gigabits * 1e9) + 2 * (gpus - 1) * inputs.latency_s


def step(inputs: Inputs, gpus: int, batch: int) -> Step:
    """A step of ``batch`` images on ``gpus``: whole micro-batches, then what of the exchange is not hidden.

    The exchange of early layers' gradients runs while the last micro-batch goes backward, two thirds of its time.
    """
    rounds = math.ceil(batch / inputs.micro_batch / gpus)
    rate = min(inputs.images_per_s, (inputs.cores - 1) * inputs.decode_per_core)
    one = inputs.micro_batch / rate
    exchange = max(0.0, exchange_s(inputs, gpus) - one * 2 / 3)
    images_per_s = batch / (rounds * one + exchange)
    efficiency = images_per_s / (gpus * inputs.images_per_s)
    lost = {
        "": 0.1,
        "input": 1 - rate / inputs.images_per_s,
        "network": exchange / (rounds * one + exchange),
        "batch": 1 - batch / (rounds * inputs.micro_batch * gpus),
    }
    return Step(
        gpus=gpus,
        images_per_s=images_per_s,
        efficiency=efficiency,
        exchange=exchange / (rounds * one + exchange),
        dollars_per_million=gpus * inputs.gpu_price / 3600 / images_per_s * 1e6,
        limit=max(lost, key=lambda name: lost[name]),
    )


def serving(inputs: Inputs, per_hour: int) -> tuple[float, int, float]:
    """Images a second, nodes, and dollars for a million images."""
    per_s = per_hour / 3600
    per_node = inputs.served_per_core * inputs.serving_cores * inputs.serving_load
    nodes = math.ceil(per_s / per_node)
    return per_s, nodes, nodes * inputs.cpu_price / per_hour * 1e6


def main(argv: list[str] | None = None) -> None:
    """Prints the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in vars(Inputs()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help="[%(default)s]")
    inputs = Inputs(**vars(parser.parse_args(argv)))
    tables = {
        f"the paper's batch of {inputs.batch}": [step(inputs, n, inputs.batch) for n in GPUS],
        f"{inputs.batch_per_gpu} images a GPU and step": [step(inputs, n, n * inputs.batch_per_gpu) for n in GPUS],
    }
    for title, rows in tables.items():
        print(f"\nTraining, {title}")
        print(f"{'GPUs':>6} {'images/s':>10} {'of ideal':>9} {'exchange':>9} {'$ a million':>12}  limit")
        for row in rows:
            print(
                f"{row.gpus:6} {row.images_per_s:10,.0f} {row.efficiency:9.1%} {row.exchange:9.1%} "
                f"{row.dollars_per_million:12.2f}  {row.limit}"
            )
    print(f"\nServing\n{'an hour':>10} {'images/s':>9} {'nodes':>6} {'$ an hour':>10} {'$ a million':>12}")
    served = [(per_hour, *serving(inputs, per_hour)) for per_hour in SERVED_PER_HOUR]
    for per_hour, per_s, nodes, dollars in served:
        print(f"{per_hour:10,} {per_s:9.1f} {nodes:6} {nodes * inputs.cpu_price:10.2f} {dollars:12.2f}")
    print(json.dumps({"training": {t: [vars(r) for r in rows] for t, rows in tables.items()}, "serving": served}))


if __name__ == "__main__":
    main()
