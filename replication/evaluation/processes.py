"""Independent work shared by several processes of this machine, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import cv2
import torch
from tqdm import tqdm

from replication.files import ReplicationError
from replication.provenance import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int, label: str, unit: str
) -> Iterator[tuple[int, Result]]:
    """Yield ``(number, work(items[number]))`` as they are done, in any order.

    Parameters
    ----------
    work
        A function that can be pickled, as its items and results can; it runs in a fresh process, or
        in this one where `jobs` or the number of items is 1.
    items
        Begun in this order.
    jobs
        Processes; they share the cores. A script that asks for more than one needs Python's
        ``if __name__ == "__main__"``.
    label, unit
        For the progress bar, which shows in a terminal only.

    Raises
    ------
    ReplicationError
        If `jobs` is not positive; and whatever `work` raises, after which nothing new is begun.
    """
    if jobs < 1:
        raise ReplicationError(f"The number of processes must be at least 1, not {jobs}.")
    with tqdm(total=len(items), desc=label, unit=unit, disable=None) as bar:
        if min(jobs, len(items)) <= 1:
            for number, item in enumerate(items):
                yield number, work(item)
                bar.update()
            return
        threads = max(1, usable_cores() // jobs)
        with ProcessPoolExecutor(
            min(jobs, len(items)), multiprocessing.get_context("spawn"), _start, (threads,)
        ) as pool:
            try:
                futures = {pool.submit(work, item): number for number, item in enumerate(items)}
                for future in as_completed(futures):
                    yield futures[future], future.result()
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _start(threads: int) -> None:
    """A worker: dies silently on Ctrl-C, which the parent reports, and keeps to its cores."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["TQDM_DISABLE"] = "1"  # the parent has the bar
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
