"""Rows survive the file, wrong ones are named, summaries agree with arithmetic, processes behave."""

import math
import os
import statistics
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from replication.data.stacks import ExposureStack
from replication.evaluation import rows as report
from replication.evaluation.rows import Method, base_row, in_processes, kept_rows
from replication.files import REFERENCE, ReplicationError

COMMITTED = [path for path in REFERENCE.glob("[at]*s/*.csv") if "_" not in path.stem]


def row(**values):
    names = dict(table="table4", dataset="mini", split="test", scene="001", method="identity", ev=1)
    scores = dict(psnr=20.0, ssim=0.9, width=384, height=256, data_range=255, border=0)
    origin = dict(weights_hash="none", data_hash="12345e67", code_version="0.1.0+unknown")
    return names | scores | origin | values


SCORES = {("identity", 1): [17.1234567, 18.0, 19.5], ("deep_chain", -1): [31.0, 32.0, 36.0]}
ROWS = [
    row(scene=f"00{number}", method=method, ev=ev, psnr=psnr, ssim=psnr / 40)
    for (method, ev), values in SCORES.items()
    for number, psnr in enumerate(values, 1)
]


def test_rows_survive_the_file(tmp_path):
    path = report.write_rows(tmp_path / "sub" / "rows.csv", ROWS)
    frame, first = report.read_rows(path), path.read_bytes()
    assert list(frame.columns) == [name for name in report.ROW_COLUMNS if name in ROWS[0]]
    assert frame.iloc[0][["method", "ev", "scene"]].tolist() == ["deep_chain", -1, "001"]
    assert frame.iloc[0][["weights_hash", "data_hash"]].tolist() == ["none", "12345e67"]  # texts
    assert (frame["ev"].dtype, frame["psnr"].dtype) == (np.int64, np.float64)
    assert sorted(frame["psnr"]) == pytest.approx(sorted(r["psnr"] for r in ROWS))
    shuffled = pd.DataFrame(ROWS[::-1])[list(ROWS[0])[::-1]]
    noisy = [r | {"psnr": r["psnr"] + 1e-9, "data_range": 255.0} for r in ROWS]
    for content in (frame, shuffled, noisy):  # the same bytes
        assert report.write_rows(path, content).read_bytes() == first


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_rows_stay_as_they_are(path, tmp_path):
    again = report.write_rows(tmp_path / "again.csv", report.read_rows(path))
    assert again.read_bytes() == path.read_bytes()


def test_odd_values_are_kept(tmp_path):
    odd = [row(scene="NA", psnr=math.inf, log_rmse_clipped=0.5), row(scene="null", ssim=-1e-9)]
    odd += [row(scene='a,"b"', data_range=1.0, log_rmse_clipped=0.25)]
    frame = report.read_rows(report.write_rows(tmp_path / "rows.csv", odd)).set_index("scene")
    assert frame.loc["NA", "psnr"] == math.inf
    assert "-0.000000" not in (tmp_path / "rows.csv").read_text()
    assert frame.loc['a,"b"', "data_range"] == 1
    summary = report.summarise(frame, ["method"]).iloc[0]
    assert summary[["n", "n_log_rmse_clipped", "log_rmse_clipped_mean"]].tolist() == [3, 2, 0.375]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psnr": math.nan}, "row 2, column psnr: nan is not a number"),
        ({"psnr": "good"}, "row 2, column psnr: 'good' is not a number"),
        ({"log_rmse_clipped": "none"}, "row 2, column log_rmse_clipped: 'none' is not a number"),
        ({"scene": " "}, "row 2, column scene: ' ' is not a text"),
        ({"scene": None}, "row 2, column scene: .* is not a text"),
        ({"ev": 0.5}, "row 2, column ev: 0.5 is not a whole number"),
        ({"width": math.inf}, "row 2, column width: inf is not a whole number"),
        ({"pnsr": 1.0}, "unknown column pnsr; known are: table, dataset"),
        ({"scene": "001"}, "two rows for table4, mini, test, 001, identity, 1"),
    ],
)
def test_bad_rows_are_not_written(tmp_path, change, message):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(ReplicationError, match=f"rows.csv: .*{message}"):
        report.write_rows(path, [row(), row(scene="002") | change])
    assert path.read_text() == "old"


FRAME = pd.DataFrame(ROWS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "Cannot read .*rows.csv as a CSV table: No such file"),
        ("", "rows.csv as a CSV table: No columns"),
        ("a,b\n1,2,3,4\n5\n", "rows.csv as a CSV table"),
        ("a,b\n1,2\n1,2,3\n", "rows.csv as a CSV table: .*Expected 2 fields"),
        (FRAME.to_csv(), "rows.csv: unknown column Unnamed"),
        (FRAME.drop(columns="border").to_csv(index=False), "rows.csv: missing column border"),
        (FRAME.drop(columns=["psnr", "ssim"]).to_csv(index=False), "no metric column; known"),
        (FRAME[:0].to_csv(index=False), "rows.csv: there are no rows"),
        (FRAME.to_csv(index=False).replace("18.0,", ","), "row 2, column psnr: '' is not a number"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "rows.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ReplicationError, match=message):
        report.read_rows(path)


@pytest.mark.filterwarnings("error")
def test_summary_agrees_with_the_statistics_module():
    for line in report.summarise(FRAME).itertuples():
        values = SCORES[line.method, line.ev]
        assert (line.n, line.psnr_mean) == (3, pytest.approx(statistics.mean(values)))
        assert line.psnr_sigma == pytest.approx(statistics.stdev(values))  # divisor n - 1
    assert list(report.summarise(FRAME)["method"]) == ["identity", "deep_chain"]
    endless = report.summarise(FRAME.assign(psnr=math.inf), ["method"])
    assert list(endless)[:4] == ["method", "n", "psnr_mean", "psnr_sigma"]
    with pytest.raises(ReplicationError, match="no column ssim, or empty cells"):
        report.summarise(FRAME.assign(ssim=math.nan), ["method"])


def test_rows_are_used_again_only_if_all_but_the_metrics_is_the_same(tmp_path):
    images = {ev: np.zeros((4, 6, 3), np.uint8) for ev in (0, 1)}
    stack, method = ExposureStack("made", "one", "", images), Method("curve", print, "abc")
    facts = {"table": "table4", "ev": 1, "data_hash": "d1", "protocol": "x"}
    row = base_row(stack, method, **facts, code_version="1+gabc")
    assert (row["split"], row["width"], row["height"], row["weights_hash"]) == ("none", 6, 4, "abc")
    path = report.write_rows(tmp_path / "rows.csv", [row | {"psnr": 30.0}])
    assert kept_rows(path, [row])["psnr"].tolist() == [30]
    for key in ("scene", "method", "weights_hash", "data_hash", "code_version", "protocol"):
        assert kept_rows(path, [row | {key: "other"}]) is None
    assert kept_rows(path, [row, row | {"ev": 2}]) is None
    assert kept_rows(tmp_path / "none.csv", [row]) is None
    dirty = row | {"code_version": "1+gabc.dirty"}
    assert kept_rows(report.write_rows(path, [dirty | {"psnr": 30.0}]), [dirty]) is None


def square(number):
    return number**2, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("jobs", [1, 2])
def test_work_is_shared_and_numbered(jobs, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    done = dict(in_processes(square, [3, 4, 5], jobs, "squares", "number"))
    assert {number: result[0] for number, result in done.items()} == {0: 9, 1: 16, 2: 25}
    assert (os.getpid() in {result[1] for result in done.values()}) == (jobs == 1)
    assert {result[2] for result in done.values()} <= ({"5,7"} if jobs == 1 else {"5", "7"})
    assert capsys.readouterr() == ("", "")  # no bar without a terminal
    with pytest.raises(ReplicationError, match="at least 1, not 0"):
        in_processes(square, [1], 0, "squares", "number")  # before the first result is asked for


@pytest.fixture
def threads(monkeypatch):
    """Threads in the place of processes, which take seconds to begin; what processes begin with."""
    begun = []

    def executor(jobs, context, start, first):
        begun.append(first)
        return ThreadPoolExecutor(jobs)

    monkeypatch.setattr(report, "ProcessPoolExecutor", executor)
    return begun


@pytest.mark.parametrize("error", [KeyboardInterrupt, ReplicationError, BrokenExecutor])
def test_after_an_error_nothing_new_begins(threads, error):
    begun, expected = [], ReplicationError if error is BrokenExecutor else error

    def work(number):
        begun.append(number)
        time.sleep(0.02)
        if number == 1 and error is not KeyboardInterrupt:
            raise error("bad")

    def consume():
        for _ in in_processes(work, range(50), 2, "numbers", "number"):
            if error is KeyboardInterrupt:
                raise KeyboardInterrupt("bad")

    with pytest.raises(expected, match="process was killed" if error is BrokenExecutor else "bad"):
        consume()
    assert len(begun) < 25


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [("", 3, "0120"), ("4,5,7", 3, "4574"), ("4,9", 1, "4444"), ("", 0, ["", "", "", ""])],
)
def test_each_worker_sees_one_gpu(threads, monkeypatch, visible, count, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for device in (None, "cuda", "cuda:1"):
        list(in_processes(abs, range(4), 4, "numbers", "number", device))
    assert threads[-1][1] is None  # the user has chosen one
    for _, gpus in threads[:2]:
        assert [gpus.get() for _ in range(4)] == list(expected)
