"""The faults of a training run: killed processes, failing disks and stores, damaged files, clock, memory, network."""

from functools import partial

from reliability.faults.actions import (
    BALLAST_MIB,
    DISK_MIB,
    HEADROOM_MIB,
    HOLD_S,
    RELAYS,
    check_nothing_is_left,
    cut_network,
    damage_image,
    delete_manifest,
    false_clock,
    fill_disk,
    free_disk,
    little_memory,
    object_store,
    restore_image,
    shift_clock,
    small_disk,
    truncate_checkpoint,
    use_memory,
    wait_for_orphans,
)
from reliability.faults.fault import Fault
from reliability.faults.scenario import Run, Scenario

SHIFTED_CLOCK = "Python's wall clock is shifted in all processes of the run; a worker is killed two epochs later"
TRAINING = (
    Fault(
        name="a Ray Train worker is killed",
        promise="it is replaced, and the run goes on from the last checkpoint by itself",
        cause="SIGKILL to one of two workers after the second epoch",
        checks="exit code, epochs, steps, losses",
        run=Scenario(fault=lambda run: run.kill("RayTrainWorker"), flags=("--workers", "2")),
        tested_by="tests/jobs/test_train.py",
    ),
    Fault(
        name="the driver is killed",
        promise="a message says so, no process is left behind, and --resume goes on within the epoch",
        cause="SIGKILL to python -m jobs.train after the second epoch",
        checks="message, processes, exit code of --resume, epochs, steps, losses",
        run=Scenario(
            fault=Run.kill_driver,
            error="^error: the job died",
            exit_code=-9,
            repair=wait_for_orphans,
            final_check=check_nothing_is_left,
        ),
        tested_by="tests/jobs/test_train.py",
    ),
    Fault(
        name="Ray's control store (GCS) is killed",
        promise="the job says so in one line and exits with 1; --resume goes on",
        cause="SIGKILL to gcs_server",
        checks="message, seconds until the end, losses after --resume",
        run=Scenario(fault=lambda run: run.kill("gcs_server"), error="^error: .*Ray.*--resume"),
    ),
    Fault(
        name="the raylet of the head is killed",
        promise="the job says so in one line and --resume goes on, or the run finishes without the raylet",
        cause="SIGKILL to raylet",
        checks="message, seconds until the end, losses after --resume; all losses if the run finished",
        run=Scenario(fault=lambda run: run.kill("raylet/raylet"), error="^error: .*Ray.*--resume", may_finish=True),
    ),
    Fault(
        name="a checkpoint is truncated",
        promise="its checksum reveals it, and the run goes on from the checkpoint before, with a warning",
        cause="SIGKILL to the driver; half of state.pt in the newest checkpoint is cut off",
        checks="warning, epochs, steps, losses",
        run=Scenario(
            fault=Run.kill_driver,
            error="",
            exit_code=-9,
            repair=truncate_checkpoint,
            resume_message="skipping a damaged checkpoint",
        ),
        tested_by="tests/jobs/test_train.py",
    ),
    Fault(
        name="the description of a checkpoint is truncated",
        promise="the same",
        cause="SIGKILL to the driver; half of checkpoint.json is cut off",
        checks="warning, epochs, steps, losses",
        run=Scenario(
            fault=Run.kill_driver,
            error="",
            exit_code=-9,
            repair=partial(truncate_checkpoint, name="checkpoint.json"),
            resume_message="skipping a damaged checkpoint",
        ),
    ),
    Fault(
        name="the manifest is deleted",
        promise="a run that has begun finishes as if nothing had happened",
        cause="manifest.parquet and dataset.json are deleted after the second epoch",
        checks="exit code, epochs, losses, model folder",
        run=Scenario(fault=delete_manifest),
        tested_by="tests/jobs/test_train.py",
    ),
    Fault(
        name="a training image is corrupted",
        promise="the run stops and names the image; once it is repaired --resume goes on",
        cause="a training image is overwritten with random bytes after the second epoch",
        checks="message, losses after --resume",
        run=Scenario(fault=damage_image, error="^error: broken image: .*jpg", repair=restore_image),
    ),
    Fault(
        name="the disk is full while checkpointing",
        promise="the run stops and says so; every file is complete; with free space --resume goes on",
        cause=f"another process fills a disk of {DISK_MIB} MiB after the second epoch",
        checks="message, losses after --resume",
        run=Scenario(fault=fill_disk, error="^error: the disk is full", repair=free_disk, environment=small_disk),
    ),
    Fault(
        name="the object store goes down",
        promise="the job says so in one line and exits with 1; when the store is back --resume goes on",
        cause="SIGKILL to the relay to an S3 server (moto) after the second epoch",
        checks="message, seconds until the end, losses after --resume",
        run=Scenario(
            fault=lambda run: RELAYS[run.folder].kill(),
            error="^error: .*s3://.* does not answer",
            repair=lambda run: RELAYS[run.folder].start(),
            environment=object_store,
        ),
    ),
    Fault(
        name="the clock jumps back a day",
        promise="the run goes on from the newest checkpoint, not from the one with the latest date",
        cause=SHIFTED_CLOCK,
        checks="exit code, epochs, steps, losses",
        run=Scenario(fault=partial(shift_clock, by_s=-86400), environment=false_clock),
    ),
    Fault(
        name="the clock jumps forward a day",
        promise="the run goes on",
        cause=SHIFTED_CLOCK,
        checks="exit code, epochs, steps, losses",
        run=Scenario(fault=partial(shift_clock, by_s=86400), environment=false_clock),
    ),
    Fault(
        name="memory runs short",
        promise="Ray ends processes before the kernel does; the run goes on, or says so in one line and --resume does",
        cause=f"with {HEADROOM_MIB} MiB free below the threshold of Ray's memory monitor, another process holds "
        f"{BALLAST_MIB} MiB for {HOLD_S} s",
        checks="exit code, message, epochs, steps, losses, after --resume if needed",
        run=Scenario(
            fault=use_memory, error="error: .*because memory ran out", may_finish=True, environment=little_memory
        ),
    ),
    Fault(
        name="the network between two hosts is cut",
        promise="the run goes on with the remaining hosts from the last checkpoint",
        cause="the virtual network link of one of two simulated hosts (Linux network namespaces) is taken down; Ray "
        "runs on both (reliability/cluster)",
        checks="end of the job, its epochs, seconds until each step",
        run=cut_network,
        tested_by="tests/reliability/test_hosts.py",
    ),
)
