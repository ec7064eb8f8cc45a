"""Fetching, against a local web server that misbehaves, and small stand-ins for the data sets."""

import hashlib
import shutil
import subprocess
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from replication.data import fetch as module
from replication.data import stacks
from replication.data.camera import VirtualCamera
from replication.data.fetch import _download_wheel as download_wheel
from replication.data.fetch import download, fetch, verify
from replication.data.stacks import STACK_EVS, load_stacks
from replication.files import locked, sha256_array, sha256_file
from tests.conftest import files
from tests.test_stacks import fails, save


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.log.append(self.path)
        if self.server.faults.get(self.path):
            return self.send_error(self.server.faults[self.path].pop())
        return super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on 127.0.0.1 that shows `folder`, after the status codes in `faults`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.url, server.folder = f"http://127.0.0.1:{server.server_port}", folder
        server.faults, server.log = {}, []
        yield server
        server.shutdown()


def test_download_is_verified_and_tried_again(server, tmp_path):
    sha, path = hashlib.sha256(b"content").hexdigest(), tmp_path / "new/a.bin"
    (server.folder / "wrong").write_bytes(b"<html>sign in</html>")
    for url, reason in (
        (f"{server.url}/nowhere", "404 Client Error.*"),
        (f"{server.url}/wrong", "its content has another sha256 than expected"),
        ("http://127.0.0.1:9/a", "Connection refused"),
    ):
        fails(f"^Cannot download {url}: {reason}; .* --from DIR.$", download, url, sha, path)
        assert files(tmp_path / "new") == []
    (server.folder / "good").write_bytes(b"content")
    server.faults["/good"] = [503, 429, 500]
    assert download(f"{server.url}/good", sha, path).read_bytes() == b"content"
    assert files(tmp_path / "new") == ["a.bin"]


@pytest.fixture
def openstacks(tmp_path, monkeypatch, server):
    """Two scenes whose TIFFs the server has, and their manifest."""
    rng, rows = np.random.default_rng(1), []
    for dataset, scene in (("hdrps", "hill"), ("empa", "tower")):
        for ev in STACK_EVS:
            pixels, tiff = rng.integers(0, 256, (5, 7, 3), np.uint8), f"{scene}{ev:+d}.tif"
            save(server.folder / tiff, pixels, compression="tiff_lzw")
            row = {"dataset": dataset, "scene": scene, "split": "test", "ev": ev}
            row |= {"path": f"{dataset}/{scene}/ev{ev:+d}.webp", "pixel_sha256": sha256_array(pixels)}
            hashed = sha256_file(server.folder / tiff)
            rows.append(row | {"url": f"{server.url}/{tiff}", "source_sha256": hashed})
    (frame := pd.DataFrame(rows)).to_csv(tmp_path / "openstacks.csv", index=False)
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
    return tmp_path / "data", frame


def test_openstacks_from_the_network_and_from_a_copy(openstacks, server):
    root, frame = openstacks
    server.faults["/hill+0.tif"] = [500]
    (server.folder / "hill+3.tif").rename(server.folder / "hidden")
    fails(r"hill\+3\.tif: 404", fetch, "openstacks", root=root)
    (server.folder / "hidden").rename(server.folder / "hill+3.tif")
    report = fetch("openstacks", root=root)
    assert str(report) == f"openstacks in {root / 'openstacks'}: 14 files right"
    assert files(root / "openstacks") == sorted(frame.path)
    for stack in load_stacks("openstacks", root=root):
        part = frame[frame.scene == stack.scene]
        assert [sha256_array(stack.images[ev]) for ev in part.ev] == list(part.pixel_sha256)
    server.log.clear()
    (root / "openstacks/empa/tower/ev-1.webp").write_bytes(b"broken")
    assert len(fetch("empa", root=root).found) == 7
    fetch("openstacks", root=root)
    assert fetch("openstacks", source_dir=root / "openstacks", root=root.parent / "other").ok
    assert files(root.parent / "other") == files(root)
    assert server.log == ["/tower-1.tif"]  # nothing is downloaded twice


def test_openstacks_faults(openstacks, capsys):
    root, frame = openstacks
    fetch("openstacks", root=root)
    source = root / "openstacks"
    (source / "hdrps/hill/ev+1.webp").unlink()
    shutil.copy(source / "empa/tower/ev+1.webp", source / "empa/tower/ev+2.webp")
    words = r"12 files right, 1 missing \(first: hdrps/hill/ev\+1.webp\), 1 differing \(first: empa/"
    other = {"source_dir": source, "root": root.parent / "other"}
    fails(f"{words}.*{source} is no full copy", fetch, "openstacks", **other)
    assert len(files(root.parent / "other")) == 12
    fails(words, fetch, "openstacks", root=root, check=True)
    lines = capsys.readouterr().err.splitlines()
    assert f"missing: {source}/hdrps/hill/ev+1.webp" in lines
    assert f"differing: {source}/empa/tower/ev+2.webp" in lines
    frame.loc[4, "pixel_sha256"] = "0" * 64
    frame.to_csv(stacks.MANIFESTS / "openstacks.csv", index=False)
    fails(r"hill\+1.tif has other pixels than hdrps/hill/ev\+1", fetch, "openstacks", root=root)
    assert not (source / "hdrps/hill/ev+1.webp").exists()


@pytest.fixture
def mini(tmp_path, monkeypatch, server):
    """Two small panoramas, in a wheel and on the server, views of 24 x 16, and their reference build."""
    monkeypatch.setattr(module, "VIEW_SIZE", (24, 16))
    rng, rows, wheel = np.random.default_rng(3), [], tmp_path / "viser-1.0.0-py3-none-any.whl"
    for name, split, *camera in (("hall", "train", "srgb", ""), ("park", "test", "gamma", "2.2")):
        file = server.folder / f"{name}_1k.hdr"
        assert cv2.imwrite(str(file), (2.0 ** rng.uniform(-6, 4, (32, 64, 3))).astype(np.float32))
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.write(file, f"viser/client/build/hdri/{file.name}")
        hash_and_url = sha256_file(file), f"{server.url}/{file.name}"
        rows.append([name, *camera, 30000, 1, 3, 6, *hash_and_url, split])
    table = pd.DataFrame(rows, columns=[*module._PANORAMA, "split"])
    table.to_csv(tmp_path / "mini.csv", index=False)
    (tmp_path / "mini_frames.csv").write_text(",".join(module._FRAME))
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
    monkeypatch.setattr(module, "_download_wheel", lambda folder: shutil.copy(wheel, folder))
    fetch("mini", root=tmp_path / "first")
    shutil.copy(tmp_path / "first/mini/frames.csv", tmp_path / "mini_frames.csv")
    return tmp_path / "data", wheel


def test_mini_is_complete_reproducible_and_true(mini):
    root, _ = mini
    report = fetch("mini", root=root)
    assert str(report) == str(fetch("mini", root=root, check=True))
    assert str(report) == f"mini in {root / 'mini'}: 66 files right"
    frames = pd.read_csv(root / "mini/frames.csv").set_index(["scene", "ev"])
    for stack in load_stacks("mini", root=root):
        name, azimuth = stack.scene.split("_az")
        panorama = cv2.imread(str(root / f"mini/panoramas/{name}_1k.hdr"), -1)[..., ::-1]
        view = module.perspective_view(np.ascontiguousarray(panorama), int(azimuth), (24, 16))
        scale = frames.loc[(stack.scene, "radiance"), "exposure_time"]
        np.testing.assert_allclose(stack.radiance, view * scale, rtol=1e-6)
        camera = VirtualCamera("srgb" if name == "hall" else "gamma")
        for ev in STACK_EVS:
            exact = 255 * camera.respond(np.clip(stack.radiance * 2.0**ev, 0, 1))
            assert np.abs(stack.images[ev] - exact).mean() < 1.5
    reference = stacks.MANIFESTS / "mini_frames.csv"
    reference.write_text(reference.read_text().replace(sha256_array(stack.radiance), "0"))
    note = "1 of 64 files differ from the reference build (first: park_az270/radiance.exr)"
    assert note in str(verify("mini", root=root))


def test_mini_builds_only_what_is_missing_and_goes_on(mini, monkeypatch):
    root, built, build = mini[0], [], module._build_scene

    def build_once(folder, panorama, scene, azimuth):
        built.append(scene)
        if len(built) == 5:
            raise KeyboardInterrupt
        return build(folder, panorama, scene, azimuth)

    monkeypatch.setattr(module, "_build_scene", build_once)
    with pytest.raises(KeyboardInterrupt):
        fetch("mini", root=root)
    assert fetch("mini", root=root).note == ""
    assert len(built) == 9
    reference = (stacks.MANIFESTS / "mini_frames.csv").read_bytes()
    assert (root / "mini/frames.csv").read_bytes() == reference
    (root / "mini/park_az090/ev+1.png").unlink()
    shutil.copy(root / "mini/hall_az000/ev+1.png", root / "mini/hall_az000/ev+2.png")
    fetch("mini", root=root)
    assert built[9:] == ["hall_az000", "park_az090"]
    (root / "mini/frames.csv").write_bytes(b"\xff\xfe")  # is built anew
    assert fetch("mini", root=root).note == ""
    assert len(built) == 19
    monkeypatch.setattr(module, "MINI_VERSION", 2)
    assert list(verify("mini", root=root).found.values()).count("differing") == 64


def test_sources_of_mini(mini, monkeypatch, server):
    root, wheel = mini

    no_pip = subprocess.CompletedProcess([], 1, "", "ERROR: no connection")
    monkeypatch.setattr(module, "_download_wheel", download_wheel)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: no_pip)
    for source in (wheel.parent, server.folder):
        assert fetch("mini", source_dir=source, root=root / source.name).ok
    assert server.log == []
    assert fetch("mini", root=root / "Poly Haven").ok
    assert set(server.log) == {"/hall_1k.hdr", "/park_1k.hdr"}
    (server.folder / "park_1k.hdr").unlink()
    words = "^pip cannot download viser==1.0.0: ERROR: no connection; Cannot download .*/park_1k.hdr: 404"
    fails(words, fetch, "mini", root=root / "none")
    assert files(root / "none") == ["mini/panoramas/hall_1k.hdr"]


def test_bad_copies_of_mini(mini):
    root, wheel = mini
    whole, words = wheel.read_bytes(), "Cannot unpack the wheel"
    method = whole.index(b"PK\x01\x02") + 10  # of compression, of the first member
    for content, reason in (
        (b"", ""),
        (whole[:5000], ".*not a zip file"),
        (whole[:3000] + b"???" + whole[3003:], ".*Bad CRC"),
        (whole[:method] + b"\x63" + whole[method + 1 :], ".*compression method is not supported"),
    ):
        wheel.write_bytes(content)
        fails(words + reason, fetch, "mini", source_dir=wheel.parent, root=root)
    wheel.unlink()
    words = "has no right hall_1k.hdr and no viser==1.0.0 wheel"
    fails(words, fetch, "mini", source_dir=wheel.parent, root=root)
    assert files(root) == []


def test_check_of_mini(mini):
    root, _ = mini
    fetch("mini", root=root)
    for name, words in (
        ("panoramas/park_1k.hdr", r"65 .* 1 differing \(first: panoramas/park_1k.hdr\)"),
        ("park_az090/ev+1.png", r"64 .* 2 differing \(first: park_az090/ev\+1.png\)"),
        ("frames.csv", "frames.csv: a row has no scene"),
    ):
        (root / "mini" / name).write_text("xscene,ev\na,b\n")
        fails(words, fetch, "mini", root=root, check=True)
    (root / "mini/frames.csv").write_bytes(b"scene,ev\n\xff,b\n")
    fails("frames.csv: 'utf-8' codec", fetch, "mini", root=root, check=True)
    (root / "mini/frames.csv").unlink()
    fails("run `python -m replication fetch mini`", fetch, "mini", root=root, check=True)


def test_folders_that_cannot_be_written(mini, openstacks, monkeypatch, tmp_path):
    root, _ = mini
    with locked(root / "mini"):
        fails("in use by another process", fetch, "mini", root=root)
    (tmp_path / "file").write_text("")
    fails("is not a folder", fetch, "mini", root=tmp_path / "file")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for dataset, function, words in (
        ("mini", "os.replace", "Cannot write .*hall_1k.hdr: No space left"),
        ("mini", "tempfile.mkdtemp", "Cannot fetch to .*mini: No space left"),
        ("empa", "pooch.core.shutil.move", "Cannot download .*: No space left"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(function, full)
            fails(words, fetch, dataset, root=root)
    assert files(root) == []


def test_wheel_by_pip(monkeypatch, tmp_path):
    def run(command, **kwargs):
        assert {"pip", "download", "--no-deps", module.VISER} < set(command)
        Path(command[command.index("--dest") + 1], "viser-1.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    wheel = b"wheel"
    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module, "VISER_SHA256", hashlib.sha256(wheel).hexdigest())
    download_wheel(str(tmp_path))
    wheel = b"other"
    fails("another sha256 than expected", download_wheel, str(tmp_path))


@pytest.mark.parametrize("links", [True, False])
def test_vds(tmp_path, monkeypatch, links):
    source, root = tmp_path / "download", tmp_path / "data"
    for tree in ("train_set", "test_set"):
        for ev in STACK_EVS:
            frame = np.full((4, 6, 3), 100 + 30 * ev, np.uint8)
            save(source / tree / f"t01/t01_{ev}EV_true.jpg.png", frame)
    fails(r"by hand .*1i7iTC6t6e_ZhyCq178V3-nN.* --from DIR", fetch, "vds", root=root)
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *args, **kwargs: Path("/none").stat())
    assert str(fetch("vds", source_dir=source, root=root)).endswith("14 files right")
    assert (root / "vds/test_set").is_symlink() == links
    assert len(load_stacks("vds", root=root)) == 2
    assert fetch("vds", root=root, check=True).ok
    if links:  # of the same folder again
        assert fetch("vds", source_dir=source, root=root).ok
    else:
        fails("train_set is there already; remove it", fetch, "vds", source_dir=source, root=root)
    (source / "test_set/t01/t01_2EV_true.jpg.png").write_bytes(b"broken")
    words = r"EV \+2 picture of vds scene test-t01"
    fails(words, fetch, "vds", source_dir=source, root=tmp_path / "new")
    assert files(tmp_path / "new") == []
    fails("There is no folder .*nowhere to take vds", fetch, "vds", source_dir=root / "nowhere")
    fails("Unknown data set 'x'; there are mini", fetch, "x", root=tmp_path)
