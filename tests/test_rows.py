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


def row(**values):
    names = dict(table="table4", dataset="mini", split="test", scene="001", method="identity", ev=1)
    scores = dict(psnr=20.0, ssim=0.9, width=384, height=256, data_range=255, border=0)
    origin = dict(weights_hash="none", data_hash="12345e67", code_version="0.1.0+unknown")
    return names | scores | origin | values


@pytest.fixture
def rows():
    scores = {
        ("identity", 1): [17.1234567, 18.0, 19.5],
        ("identity", -1): [15.0, 16.0, 20.0],
        ("deep_chain", 1): [31.0, 32.0, 36.0],
    }
    return [
        row(scene=f"{number:03d}", method=method, ev=ev, psnr=psnr, ssim=psnr / 40)
        for (method, ev), values in scores.items()
        for number, psnr in enumerate(values, 1)
    ]


def test_rows_survive_the_file(rows, tmp_path):
    frame = report.read_rows(report.write_rows(tmp_path / "sub" / "rows.csv", rows))
    assert list(frame.columns) == [name for name in report.ROW_COLUMNS if name in rows[0]]
    assert frame.iloc[0][["method", "ev", "scene"]].tolist() == ["deep_chain", 1, "001"]
    assert frame.iloc[0]["weights_hash"] == "none"  # no missing value
    assert frame.iloc[0]["data_hash"] == "12345e67"  # no number
    assert (frame["ev"].dtype, frame["psnr"].dtype) == (np.int64, np.float64)
    found = {(r.method, r.ev, r.scene): r.psnr for r in frame.itertuples()}
    given = {(r["method"], r["ev"], r["scene"]): r["psnr"] for r in rows}
    assert found == pytest.approx(given, abs=5e-7)


def test_same_rows_give_the_same_bytes(rows, tmp_path):
    def written(content):
        return report.write_rows(tmp_path / "rows.csv", content).read_bytes()

    first = written(rows)
    assert b"\r" not in first
    assert written(report.read_rows(tmp_path / "rows.csv")) == first
    shuffled = pd.DataFrame(rows[::-1])[list(rows[0])[::-1]]
    kept = shuffled.copy()
    assert written(shuffled) == first
    pd.testing.assert_frame_equal(shuffled, kept)
    assert written([r | {"psnr": r["psnr"] + 1e-9, "data_range": 255.0} for r in rows]) == first


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("[ta]*/[st]*.csv")), ids=lambda p: p.stem)
def test_committed_rows_stay_as_they_are(path, tmp_path):
    if not path.stem.endswith(("_logs", "_activations")):
        frame = report.read_rows(path)
        assert report.write_rows(tmp_path / "again.csv", frame).read_bytes() == path.read_bytes()


def test_odd_values_are_kept(tmp_path):
    odd = [row(scene="NA", psnr=math.inf), row(scene="null", ssim=-1e-9)]
    odd += [row(scene='a,"b"', data_range=1.0), row(scene="empty")]
    for one, error in zip(odd, (0.5, np.nan, 0.25, np.nan), strict=True):
        one["log_rmse_clipped"] = error
    frame = report.read_rows(report.write_rows(tmp_path / "rows.csv", odd)).set_index("scene")
    assert frame.loc["NA", "psnr"] == math.inf
    assert "-0.000000" not in (tmp_path / "rows.csv").read_text()
    assert frame.loc['a,"b"', "data_range"] == 1
    summary = report.summarise(frame, ["method"]).iloc[0]
    assert summary[["n", "n_log_rmse_clipped"]].tolist() == [4, 2]  # two images have no such error
    assert summary["log_rmse_clipped_mean"] == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psnr": math.nan}, "row 2, column psnr: nan is not a number"),
        ({"psnr": None}, "row 2, column psnr: .* is not a number"),
        ({"psnr": "good"}, "row 2, column psnr: 'good' is not a number"),
        ({"log_rmse_clipped": "none"}, "column log_rmse_clipped: 'none' is not a number"),
        ({"scene": ""}, "row 2, column scene: '' is not a text"),
        ({"scene": None}, "row 2, column scene: .* is not a text"),
        ({"scene": 7}, "row 2, column scene: 7 is not a text"),
        ({"ev": 0.5}, "row 2, column ev: 0.5 is not a whole number"),
        ({"width": math.inf}, "row 2, column width: inf is not a whole number"),
        ({"pnsr": 1.0}, "unknown column pnsr; known are: table, dataset"),
        ({"scene": "001"}, "two rows for table4, mini, test, 001, identity, 1"),
    ],
)
def test_bad_rows_are_not_written(tmp_path, change, message):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(ReplicationError, match=message) as caught:
        report.write_rows(path, [row(), row(scene="002") | change])
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"


def test_missing_columns_and_files(rows, tmp_path):
    path, frame = tmp_path / "rows.csv", pd.DataFrame(rows)
    for bad, message in (
        (frame.drop(columns="code_version"), "missing column code_version"),
        (frame.drop(columns=["psnr", "ssim"]), "no metric column; known are: psnr"),
        ([], "there are no rows"),
    ):
        with pytest.raises(ReplicationError, match=message):
            report.write_rows(path, bad)
    with pytest.raises(ReplicationError, match=r"Cannot read .*rows.csv"):
        report.read_rows(path)
    bad = {"a,b\n1,2\n": "unknown column a"}
    for text in ("", "a,b\n1,2,3,4\n5\n", "a,b\n1,2\n1,2,3\n"):
        bad[text] = "is not a CSV table"
    bad[report.write_rows(path, rows).read_text().replace("18.000000", "")] = r"row 8, column psnr"
    for text, message in bad.items():
        path.write_text(text)
        with pytest.raises(ReplicationError, match=rf"rows.csv.*{message}"):
            report.read_rows(path)


@pytest.mark.filterwarnings("error")
def test_summary_agrees_with_the_statistics_module(rows):
    frame = pd.DataFrame(rows)
    summary = report.summarise(frame)
    assert summary["method"].tolist() == ["identity", "identity", "deep_chain"]
    for line in summary.itertuples():
        values = [r["psnr"] for r in rows if (r["method"], r["ev"]) == (line.method, line.ev)]
        assert (line.n, line.psnr_mean) == (3, pytest.approx(statistics.mean(values)))
        assert line.psnr_sigma == pytest.approx(statistics.stdev(values))  # divisor n - 1
    one = report.summarise(frame[:1], ["method"], ["psnr"])
    assert list(one) == ["method", "n", "psnr_mean", "psnr_sigma"]
    assert one["psnr_sigma"].isna().all()
    endless = report.summarise(frame.assign(psnr=math.inf), ["method"], ["psnr"])
    assert endless["psnr_mean"].eq(math.inf).all()
    with pytest.raises(ReplicationError, match="no column ms_ssim"):
        report.summarise(frame, ["method"], ["ms_ssim"])
    with pytest.raises(ReplicationError, match="empty cells in column ssim"):
        report.summarise(pd.DataFrame([row(), row(ssim=math.nan)]), ["method"])


def test_rows_are_used_again_only_if_all_but_the_metrics_is_the_same(tmp_path):
    images = {ev: np.zeros((4, 6, 3), np.uint8) for ev in (0, 1)}
    stack, method = ExposureStack("made", "one", "", images), Method("curve", print, "abc")
    facts = {
        "table": "table4",
        "ev": 1,
        "data_hash": "d1",
        "code_version": "1+gabc",
        "protocol": "x",
    }
    row = base_row(stack, method, **facts)
    assert (row["split"], row["width"], row["height"], row["weights_hash"]) == ("none", 6, 4, "abc")
    path = report.write_rows(tmp_path / "rows.csv", [row | {"psnr": 30.0}])
    assert kept_rows(path, [row])["psnr"].tolist() == [30]
    for key in (
        "scene",
        "method",
        "weights_hash",
        "data_hash",
        "code_version",
        "protocol",
        "width",
    ):
        assert kept_rows(path, [row | {key: 5 if key == "width" else "other"}]) is None
    assert kept_rows(path, [row, row | {"ev": 2}]) is None
    assert kept_rows(tmp_path / "none.csv", [row]) is None
    dirty = row | {"code_version": "1+gabc.dirty"}
    assert kept_rows(report.write_rows(path, [dirty | {"psnr": 30.0}]), [dirty]) is None


def square(number):
    if number < 0:
        raise ReplicationError(f"{number} has no root.")
    return number**2, os.getpid()


@pytest.mark.parametrize("jobs", [1, 2])
def test_work_is_shared_and_numbered(jobs, capsys):
    done = dict(in_processes(square, [3, 4, 5], jobs, "squares", "number"))
    assert {number: result[0] for number, result in done.items()} == {0: 9, 1: 16, 2: 25}
    assert (os.getpid() in {result[1] for result in done.values()}) == (jobs == 1)
    assert capsys.readouterr() == ("", "")  # no bar without a terminal


def test_no_process_is_refused_at_once():
    with pytest.raises(ReplicationError, match="at least 1, not 0"):
        in_processes(square, [1], 0, "squares", "number")  # before the first result is asked for


@pytest.fixture
def threads(monkeypatch):
    """Threads in the place of processes, which take seconds to begin."""
    monkeypatch.setattr(report, "ProcessPoolExecutor", lambda jobs, *_: ThreadPoolExecutor(jobs))


def killed(number):
    raise BrokenExecutor


@pytest.mark.parametrize(("work", "words"), [(square, "-1 has no root"), (killed, "was killed")])
def test_errors_in_processes_are_sentences(threads, work, words):
    with pytest.raises(ReplicationError, match=words):
        list(in_processes(work, [-1, 2], 2, "numbers", "number"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ReplicationError])
def test_after_an_error_nothing_new_begins(threads, error):
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.02)
        if number == 1 and error is ReplicationError:
            raise ReplicationError("bad")

    def consume():
        for _ in in_processes(work, range(50), 2, "numbers", "number"):
            if error is KeyboardInterrupt:
                raise KeyboardInterrupt

    with pytest.raises(error):
        consume()
    assert len(begun) < 25


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, ["0", "1", "2", "0"]), ("4,7", ["4", "7", "4", "7"])]
)
def test_each_worker_sees_one_gpu(monkeypatch, visible, expected):
    count, chosen = 3 if visible is None else 2, []
    counter = report.multiprocessing.get_context("spawn").Value("i", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for _ in range(4):  # each worker begins with the parent's environment
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        report._one_gpu(counter)
        chosen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert chosen == expected
