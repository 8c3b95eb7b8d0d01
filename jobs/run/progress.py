"""Messages from the workers of a run to its driver: progress, finished epochs, and why a run failed.

The workers post them on a board (:mod:`jobs.run.board`). The driver reads it in a thread and shows one live line per
run.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
import torch
from tqdm import tqdm

from detector_core.training.distributed import all_sum
from jobs.common.cli import say
from jobs.run.board import Message

POLL_S = 0.5
LOG_EVERY_S = 15.0
SILENCE_S = 20.0
"""After this long without a message, the driver prints what it is waiting for."""
ASK_EVERY_S = 0.5
NOTICE_EVERY_S = 2.0
"""How often workers ask Ray Train, which looks for nodes that will be taken back every five seconds."""


class StopSignal:
    """Whether a run should stop, and whether one of its nodes will be taken back.

    Rank 0 asks from time to time; all workers learn it in the same step.

    Attributes:
        preempted: whether the last call of :meth:`requested` has brought news of a node that its provider will soon
            take back, such as a spot instance. Ray Train then starts the run again from its latest checkpoint, and
            does not count it as a failure.
    """

    def __init__(self, board: Any, rank: int, device: torch.device) -> None:
        self.board, self.rank, self.device = board, rank, device
        self.reply: Any = None
        self.asked_at, self.stopping = 0.0, False
        self.preempted, self._known_nodes, self._noticed_at = False, set[str](), 0.0
        self._watched = os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") != "0"  # Ray Train's own switch

    def requested(self) -> bool:
        """Whether to stop now. Call it on every worker after every step."""
        now, asks = time.monotonic(), False
        if self.rank == 0 and not self.stopping:
            asks = self._watched and now - self._noticed_at > NOTICE_EVERY_S
            self._noticed_at = now if asks else self._noticed_at
            if self.reply is None and now - self.asked_at > ASK_EVERY_S:
                self.reply, self.asked_at = self.board.is_stopping.remote(), now
            if self.reply is not None and ray.wait([self.reply], timeout=0)[0]:
                self.stopping, self.reply = ray.get(self.reply), None
        flags = all_sum(torch.tensor([float(self.stopping), float(asks)], device=self.device))
        self.preempted = bool(flags[1]) and self._is_news()
        return bool(flags[0])

    def _is_news(self) -> bool:
        """Asks Ray Train, which all workers must do together, because it waits for all of them."""
        notice = ray.train.get_preemption_info()
        nodes = set(notice.preempted_node_ids) if notice else set()
        new, self._known_nodes = nodes - self._known_nodes, self._known_nodes | nodes
        return bool(new)


@contextmanager
def stopped_by_signal(board: Any) -> Iterator[None]:
    """After the first Ctrl-C or SIGTERM (``ray job stop``) the runs write a checkpoint; a second one ends the job."""

    def ask_board() -> None:
        ray.get(board.stop.remote())

    def stop(*_: object) -> None:
        restore()
        say("stopping after the current step, with a checkpoint; a second signal ends the job at once")
        # In another thread, because this handler may have interrupted a call to Ray in the main thread.
        threading.Thread(target=ask_board, name="stop", daemon=True).start()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()


class Watcher:
    """Reads a board until the ``with`` block ends: shows progress and passes finished epochs to ``on_epoch``.

    If ``on_epoch`` raises an error, reading continues; the first such error is raised at the end of the block,
    unless the block itself raises one.
    """

    def __init__(self, board: Any, on_epoch: Callable[[Message], None]) -> None:
        self.board, self.on_epoch = board, on_epoch
        self.lines: dict[str, _RunLine] = {}
        self.started = False
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="board", daemon=True)
        self.callback_error: Exception | None = None

    def __enter__(self) -> "Watcher":
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        for line in self.lines.values():
            line.close()
        if self.callback_error and kind is None:
            raise self.callback_error

    def _watch(self) -> None:
        last_message = last_output = time.monotonic()
        with contextlib.suppress(ray.exceptions.RayError):  # the cluster is lost, which the run itself reports
            while True:
                ending = self.stopping.wait(POLL_S)
                for message in ray.get(self.board.take.remote()):
                    self._show(message)
                    last_message = last_output = time.monotonic()
                if ending:
                    return
                if (now := time.monotonic()) - last_output > SILENCE_S:
                    last_output = now
                    say(f"waiting for {self._expected()}, {now - last_message:.0f} s so far")

    def _expected(self) -> str:
        """What the next message will be about, and what may be delaying it."""
        if self.started:
            return "the next step, checkpoint or end of the run"
        free, total = ray.available_resources().get("CPU", 0), ray.cluster_resources().get("CPU", 0)
        return f"workers to start ({free:g} of {total:g} cores are free)"

    def _show(self, message: Message) -> None:
        run = message["run"]
        self.started = True
        if message["kind"] == "note":
            say(f"{run}: {message['text']}")
            return
        if run not in self.lines:
            self.lines[run] = _RunLine(run, position=len(self.lines))
        if message["kind"] == "epoch":
            self.lines[run].epoch(message["history"][-1])
            try:
                self.on_epoch(message)
            except Exception as error:  # for example a full disk; raised at the end of the block
                self.callback_error = self.callback_error or error
        else:
            self.lines[run].step(message)


class _RunLine:
    """Shows the progress of one run: a bar on a terminal, otherwise a line from time to time."""

    def __init__(self, run: str, position: int) -> None:
        self.run, self.live = run, sys.stderr.isatty()
        self.started, self.logged, self.done_at_start = time.monotonic(), 0.0, -1
        self.bar = tqdm(
            desc=run, unit="step", position=position, disable=not self.live, dynamic_ncols=True, leave=True, total=0
        )

    def step(self, message: Message) -> None:
        total = message["epochs"] * message["steps"]
        done = (message["epoch"] - 1) * message["steps"] + message["step"]
        if self.done_at_start < 0:
            self.done_at_start = done - 1
        elapsed = time.monotonic() - self.started
        left = elapsed / max(1, done - self.done_at_start) * (total - done)
        figures = {
            "epoch": f"{message['epoch']}/{message['epochs']}",
            "step": f"{message['step']}/{message['steps']}",
            "loss": f"{message['loss']:.4f}",
            "images/s": f"{message['images'] / max(message['seconds'], 1e-9):.1f}",
        }
        if self.live:
            self.bar.total, self.bar.n = total, done
            self.bar.set_postfix(figures)
        elif elapsed - self.logged >= LOG_EVERY_S:
            self.logged = elapsed
            text = ", ".join(f"{name} {value}" for name, value in figures.items())
            print(f"{self.run}: {text}, {_format_duration(left)} left", file=sys.stderr, flush=True)

    def epoch(self, row: Message) -> None:
        auc = "" if row["val_auc"] is None else f", AUC {row['val_auc']:.4f}"
        best = " (best so far)" if row["best"] else ""
        tqdm.write(
            f"{self.run}: epoch {row['epoch']}/{row['epochs']}: train loss {row['train_loss']:.4f}, "
            f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.2%}{auc}, "
            f"{row['images_per_s']:.1f} images/s{best}",
            file=sys.stderr,
        )

    def close(self) -> None:
        self.bar.close()


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
