"""Fetching, against a local web server that misbehaves, and small stand-ins for the data sets."""

import csv
import hashlib
import re
import shutil
import subprocess
import threading
import urllib.error
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from PIL import Image

from replication.data import fetch as module
from replication.data import stacks
from replication.data.fetch import download, fetch, verify
from replication.data.stacks import EVS, load_stacks
from replication.files import ReplicationError, data_root, sha256_array, sha256_file

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A web server on 127.0.0.1; `files` by path, faults by path in `modes`, requests logged."""

    def __init__(self):
        self.files = {"/good": CONTENT}
        self.modes = {}
        self.log = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with suppress(ConnectionError):
                    outer.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request):
        asked = request.headers.get("Range")
        self.log.append((request.path, asked))
        mode = self.modes.get(request.path, [])
        fault = mode.pop(0) if mode else None
        content = self.files.get(request.path)
        if content is None or isinstance(fault, int):
            request.send_error(fault or 404)
            return
        start = 0
        if asked and fault != "no range":
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                request.send_error(416)
                return
            request.send_response(206)
            shift = 7 if fault == "other range" else 0
            total = len(content)
            request.send_header("Content-Range", f"bytes {start + shift}-{total - 1}/{total}")
        else:
            request.send_response(200)
        body = content[start:]
        if fault != "no length":
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if fault == "cut" else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def quick(urls, path, sha=SHA, **options):
    return download(urls, path, sha, **{"pause": 0.0, "timeout": 5.0, **options})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestDownload:
    def test_good(self, server, tmp_path):
        sizes = []
        path = quick([server.url + "/good"], tmp_path / "sub" / "a.bin", progress=sizes.append)
        assert path.read_bytes() == CONTENT
        assert sum(sizes) == len(CONTENT)
        assert names(tmp_path / "sub") == ["a.bin"]

    def test_right_file_is_kept_wrong_one_replaced(self, server, tmp_path):
        path = tmp_path / "a.bin"
        path.write_bytes(CONTENT)
        quick([server.url + "/good"], path)
        assert server.log == []
        path.write_bytes(b"old")
        quick([server.url + "/good"], path)
        assert path.read_bytes() == CONTENT

    def test_broken_connection_is_resumed(self, server, tmp_path):
        server.modes["/good"] = ["cut", "cut"]
        quick([server.url + "/good"], tmp_path / "a.bin")
        assert server.log == [
            ("/good", None),
            ("/good", "bytes=150000-"),
            ("/good", "bytes=225000-"),
        ]
        assert names(tmp_path) == ["a.bin"]

    def test_a_later_call_resumes(self, server, tmp_path):
        server.modes["/good"] = ["cut"]
        with pytest.raises(ReplicationError, match="broken off after 150000 of 300000 bytes"):
            quick([server.url + "/good"], tmp_path / "a.bin", attempts=1)
        assert names(tmp_path) == ["a.bin.part"]
        quick([server.url + "/good"], tmp_path / "a.bin", attempts=1)
        assert server.log[-1] == ("/good", "bytes=150000-")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT
        assert names(tmp_path) == ["a.bin"]

    def test_server_without_ranges(self, server, tmp_path):
        server.modes["/good"] = ["cut", "no range"]
        quick([server.url + "/good"], tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT

    def test_server_with_wrong_ranges(self, server, tmp_path):
        server.modes["/good"] = ["cut", "other range"]
        quick([server.url + "/good"], tmp_path / "a.bin")
        assert [asked for _, asked in server.log] == [None, "bytes=150000-", None]

    @pytest.mark.parametrize("left", [CONTENT, CONTENT + b"x", b"foreign" * 9])
    def test_any_left_over_part(self, server, tmp_path, left):
        # complete, too long (the server answers 416), and of another file
        (tmp_path / "a.bin.part").write_bytes(left)
        quick([server.url + "/good"], tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT
        assert names(tmp_path) == ["a.bin"]

    def test_no_length_told(self, server, tmp_path):
        server.modes["/good"] = ["no length"]
        quick([server.url + "/good"], tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT

    def test_busy_server_is_asked_again(self, server, tmp_path):
        server.modes["/good"] = [503, 429]
        quick([server.url + "/good"], tmp_path / "a.bin")
        assert len(server.log) == 3

    def test_pauses_double(self, server, tmp_path, monkeypatch):
        pauses = []
        monkeypatch.setattr(module.time, "sleep", pauses.append)
        server.modes["/good"] = [503] * 9
        with pytest.raises(ReplicationError, match="HTTP 503"):
            quick([server.url + "/good"], tmp_path / "a.bin", pause=0.5)
        assert pauses == [0.5, 1, 2]

    def test_next_source(self, server, tmp_path):
        server.files["/wrong"] = b"<html>sign in</html>"
        urls = [server.url + path for path in ("/nowhere", "/wrong", "/good")]
        quick(urls, tmp_path / "a.bin")
        assert [path for path, _ in server.log] == ["/nowhere", "/wrong", "/good"]
        assert (tmp_path / "a.bin").read_bytes() == CONTENT

    def test_wrong_content_leaves_nothing(self, server, tmp_path):
        server.files["/wrong"] = CONTENT[:-1] + b"?"
        with pytest.raises(ReplicationError) as info:
            quick([server.url + "/nowhere", server.url + "/wrong"], tmp_path / "a.bin")
        assert str(info.value) == (
            f"Cannot download a.bin from {server.url}/nowhere (HTTP 404 Not Found) or "
            f"{server.url}/wrong (content differs from the manifest's sha256); "
            "without a connection, give a copy with --from DIR."
        )
        assert names(tmp_path) == []

    def test_offline(self, tmp_path):
        def opener(request, timeout):
            raise urllib.error.URLError(OSError(-2, "Name or service not known"))

        with pytest.raises(ReplicationError) as info:
            quick(["https://example.org/a.bin"], tmp_path / "a.bin", opener=opener)
        assert "https://example.org/a.bin (Name or service not known)" in str(info.value)
        assert "--from DIR" in str(info.value)
        assert names(tmp_path) == []

    def test_unwritable_place(self, server, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ReplicationError, match="Cannot write"):
            quick([server.url + "/good"], tmp_path / "file" / "a.bin")


# -------------------------------------------------------------------------------- openstacks


def write_csv(path, rows):
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def openstacks(tmp_path, monkeypatch, server):
    """Two scenes whose TIFFs the server has; data go to ``tmp_path / "data"``."""
    monkeypatch.setattr(module, "download", quick_pause(module.download))
    rng = np.random.default_rng(1)
    rows = []
    for dataset, scene in (("hdrps", "hill"), ("empa", "tower")):
        for ev in EVS:
            pixels = rng.integers(0, 256, (5, 7, 3), np.uint8)
            name = f"/{dataset}-{scene}{ev:+d}.tif"
            Image.fromarray(pixels).save(tmp_path / "tmp.tif", compression="tiff_lzw")
            server.files[name] = (tmp_path / "tmp.tif").read_bytes()
            rows.append(
                dict(
                    dataset=dataset,
                    scene=scene,
                    split="test",
                    ev=ev,
                    path=f"{dataset}/{scene}/ev{ev:+d}.webp",
                    url=server.url + name,
                    source_sha256=sha256_file(tmp_path / "tmp.tif"),
                    pixel_sha256=sha256_array(pixels),
                )
            )
    write_csv(tmp_path / "openstacks.csv", rows)
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
    return tmp_path / "data", rows


def quick_pause(function):
    return lambda *args, **kwargs: function(*args, **{"pause": 0.0, **kwargs})


def all_files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestOpenstacks:
    def test_from_the_network(self, openstacks, server):
        root, rows = openstacks
        server.modes["/hdrps-hill+0.tif"] = ["cut", 500]
        report = fetch("openstacks", root=root)
        assert report.ok
        assert report.right == 14
        assert all_files(root / "openstacks") == {row["path"] for row in rows}
        for stack in load_stacks("openstacks", root=root):
            for row in rows:
                if row["scene"] == stack.scene:
                    assert sha256_array(stack.images[row["ev"]]) == row["pixel_sha256"]
        asked = len(server.log)
        fetch("openstacks", root=root)
        assert len(server.log) == asked  # nothing is downloaded twice

    def test_one_part(self, openstacks):
        root, _ = openstacks
        assert fetch("empa", root=root).right == 7
        assert names(root / "openstacks") == ["empa"]

    def test_interrupted_and_repaired(self, openstacks, server):
        root, rows = openstacks
        tiff = server.files.pop("/empa-tower+3.tif")
        with pytest.raises(ReplicationError, match=r"tower\+3\.tif \(HTTP 404"):
            fetch("openstacks", root=root)
        assert all_files(root) <= {f"openstacks/{row['path']}" for row in rows}
        server.files["/empa-tower+3.tif"] = tiff
        (root / "openstacks/hdrps/hill/ev-1.webp").write_bytes(b"broken")
        server.log.clear()
        fetch("openstacks", root=root)
        assert {path for path, _ in server.log} == {"/empa-tower+3.tif", "/hdrps-hill-1.tif"}
        assert verify("openstacks", root=root).ok

    def test_tiff_with_other_pixels(self, openstacks):
        root, rows = openstacks
        rows[0]["pixel_sha256"] = "0" * 64
        write_csv(stacks.MANIFESTS / "openstacks.csv", rows)
        with pytest.raises(
            ReplicationError, match=r"EV -3 picture of hdrps scene hill .* other pixels"
        ):
            fetch("openstacks", root=root)
        assert not {name for name in all_files(root) if "hill/ev-3" in name}

    def test_from_a_copy(self, openstacks, server):
        root, _ = openstacks
        fetch("openstacks", root=root)
        server.log.clear()
        other = root.parent / "other"
        source = root / "openstacks"
        report = fetch("openstacks", source_dir=source, root=other)
        assert report.right == 14
        assert all_files(other) == all_files(root)
        assert server.log == []

    def test_from_a_partial_copy(self, openstacks):
        root, _ = openstacks
        fetch("openstacks", root=root)
        source = root / "openstacks"
        (source / "hdrps/hill/ev+1.webp").unlink()
        shutil.copy(source / "empa/tower/ev+1.webp", source / "empa/tower/ev+2.webp")
        other = root.parent / "other"
        with pytest.raises(ReplicationError) as info:
            fetch("openstacks", source_dir=source, root=other)
        assert str(info.value) == (
            f"{source} is no full copy of openstacks: 12 files right, 1 missing (first: "
            "hdrps/hill/ev+1.webp), 1 differing (first: empa/tower/ev+2.webp)."
        )
        assert len(all_files(other)) == 12

    def test_check(self, openstacks, capsys):
        root, _ = openstacks
        fetch("openstacks", root=root)
        report = fetch("openstacks", root=root, check=True)
        assert str(report) == f"openstacks in {root / 'openstacks'}: 14 files right"
        (root / "openstacks/hdrps/hill/ev+1.webp").unlink()
        (root / "openstacks/empa/tower/ev+2.webp").write_bytes(b"broken")
        with pytest.raises(ReplicationError, match=r"12 files right, 1 missing .* 1 differing"):
            fetch("openstacks", root=root, check=True)
        told = capsys.readouterr().err
        assert f"missing: {root / 'openstacks/hdrps/hill/ev+1.webp'}" in told
        assert f"differing: {root / 'openstacks/empa/tower/ev+2.webp'}" in told


# -------------------------------------------------------------------------------------- mini


@pytest.fixture
def mini(tmp_path, monkeypatch, server):
    """Two small panoramas, in a wheel and on the server, and views of 24 x 16."""
    monkeypatch.setattr(module, "download", quick_pause(module.download))
    monkeypatch.setattr(module, "VIEW_SIZE", (24, 16))
    rng = np.random.default_rng(3)
    rows, wheel = [], tmp_path / "viser-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, split, response in (("hall", "train", "srgb"), ("park", "test", "sigmoid")):
            file = tmp_path / f"{name}_1k.hdr"
            radiance = (2.0 ** rng.uniform(-6, 4, (32, 64, 3))).astype(np.float32)
            assert cv2.imwrite(str(file), radiance)
            archive.write(file, module.VISER_MEMBER.format(name=name))
            server.files[f"/{name}_1k.hdr"] = file.read_bytes()
            rows.append(
                dict(
                    panorama=name,
                    split=split,
                    place="",
                    response=response,
                    parameters="0.9 0.6" if response == "sigmoid" else "",
                    full_well=30000,
                    dark_current=1,
                    reset_noise=3,
                    read_noise=6,
                    sha256=sha256_file(file),
                    url=f"{server.url}/{name}_1k.hdr",
                )
            )
            file.unlink()
    write_csv(tmp_path / "mini.csv", rows)
    shutil.copy(stacks.MANIFESTS / "mini_frames.csv", tmp_path)
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
    monkeypatch.setattr(module, "_download_wheel", lambda folder: wheel)
    (tmp_path / "mini_frames.csv").write_text(",".join(module._FRAME_COLUMNS) + "\n")
    return tmp_path / "data", wheel


def adopt(root):
    """Make the build that is there the reference build."""
    shutil.copy(root / "mini" / "frames.csv", stacks.MANIFESTS / "mini_frames.csv")


class TestMini:
    def test_build_is_complete_and_reproducible(self, mini):
        root, _ = mini
        report = fetch("mini", root=root)
        assert report.right == 2 * 4 * 8
        assert "64 of 64 files differ from the reference build" in str(report)
        adopt(root)
        again = fetch("mini", root=root.parent / "again")
        assert again.notes == []
        loaded = load_stacks("mini", root=root)
        assert [s.scene for s in loaded if s.split == "test"] == [
            f"park_az{azimuth:03d}" for azimuth in (0, 90, 180, 270)
        ]

    def test_pictures_fit_their_radiance(self, mini):
        root, _ = mini
        fetch("mini", root=root)
        adopt(root)
        panoramas = {row["panorama"]: row for row in read_rows(stacks.MANIFESTS / "mini.csv")}
        for stack in load_stacks("mini", root=root):
            camera = module.mini_camera(panoramas[stack.scene[:4]])
            assert stack.shape == (16, 24, 3)
            for ev in EVS:
                exact = 255 * camera.respond(np.clip(stack.radiance * 2.0**ev, 0, 1))
                assert np.abs(stack.images[ev] - exact).mean() < 1.5

    def test_radiance_is_the_panorama(self, mini):
        root, _ = mini
        fetch("mini", root=root)
        adopt(root)
        rows = read_rows(root / "mini" / "frames.csv")
        row = next(r for r in rows if r["scene"] == "hall_az090" and r["ev"] == "radiance")
        panorama = cv2.imread(str(root / "mini/panoramas/hall_1k.hdr"), -1)[..., ::-1]
        expected = module.perspective_view(np.ascontiguousarray(panorama), 90, 24, 16)
        stack = load_stacks("mini", scenes=["hall_az090"], root=root)[0]
        scale = float(row["exposure_time"])
        np.testing.assert_allclose(stack.radiance, expected * scale, rtol=1e-6)

    def test_only_what_is_missing_is_built(self, mini, monkeypatch):
        root, _ = mini
        fetch("mini", root=root)
        adopt(root)
        built = []
        build = module._build_scene
        monkeypatch.setattr(
            module, "_build_scene", lambda *args: built.append(args[3]) or build(*args)
        )
        fetch("mini", root=root)
        assert built == []
        (root / "mini/park_az090/ev+1.png").unlink()
        shutil.copy(root / "mini/hall_az000/ev+1.png", root / "mini/hall_az000/ev+2.png")
        assert fetch("mini", root=root).notes == []
        assert built == ["hall_az000", "park_az090"]
        monkeypatch.setattr(module, "MINI_VERSION", 2)
        assert len(verify("mini", root=root).differing) == 64
        fetch("mini", root=root)
        assert len(built) == 10

    def test_an_interrupted_build_goes_on(self, mini, monkeypatch):
        root, _ = mini
        build = module._build_scene

        def stop(folder, panorama, pixels, scene, azimuth):
            if scene == "park_az180":
                raise KeyboardInterrupt
            return build(folder, panorama, pixels, scene, azimuth)

        monkeypatch.setattr(module, "_build_scene", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch("mini", root=root)
        monkeypatch.setattr(module, "_build_scene", build)
        fetch("mini", root=root)
        adopt(root)
        fetch("mini", root=root.parent / "whole")
        assert (root / "mini/frames.csv").read_bytes() == (
            root.parent / "whole/mini/frames.csv"
        ).read_bytes()

    def test_second_source(self, mini, monkeypatch, server):
        root, _ = mini

        def no_pip(folder):
            raise ReplicationError("pip cannot download viser==1.0.0: no connection.")

        monkeypatch.setattr(module, "_download_wheel", no_pip)
        assert fetch("mini", root=root).right == 64
        assert {path for path, _ in server.log} == {"/hall_1k.hdr", "/park_1k.hdr"}

    def test_no_source(self, mini, monkeypatch, server):
        root, _ = mini

        def no_pip(folder):
            raise ReplicationError("pip cannot download viser==1.0.0: no connection.")

        monkeypatch.setattr(module, "_download_wheel", no_pip)
        server.files.clear()
        with pytest.raises(ReplicationError) as info:
            fetch("mini", root=root)
        told = str(info.value)
        assert told.startswith("pip cannot download viser==1.0.0: no connection; Cannot download")
        assert "hall_1k.hdr (HTTP 404" in told
        assert told.endswith("give a copy with --from DIR.")
        assert all_files(root) == set()

    @pytest.mark.parametrize("unpacked", [False, True])
    def test_from_a_copy(self, mini, monkeypatch, server, unpacked):
        root, wheel = mini
        monkeypatch.delattr(module, "_download_wheel")
        source = root.parent / "copy"
        source.mkdir()
        if unpacked:
            for name in ("hall", "park"):
                (source / f"{name}_1k.hdr").write_bytes(server.files[f"/{name}_1k.hdr"])
        else:
            shutil.copy(wheel, source)
        assert fetch("mini", source_dir=source, root=root).right == 64
        assert server.log == []

    def test_from_a_bad_copy(self, mini):
        root, _ = mini
        source = root.parent / "copy"
        source.mkdir()
        with pytest.raises(ReplicationError, match=r"has neither hall_1k\.hdr nor the wheel"):
            fetch("mini", source_dir=source, root=root)
        (source / "hall_1k.hdr").write_bytes(b"another panorama")
        with pytest.raises(ReplicationError, match=r"panorama hall from .* another sha256"):
            fetch("mini", source_dir=source, root=root)
        (source / "hall_1k.hdr").unlink()
        (source / "viser-1.0.0-py3-none-any.whl").write_bytes(b"no zip")
        with pytest.raises(ReplicationError, match="Cannot unpack the wheel"):
            fetch("mini", source_dir=source, root=root)
        assert all_files(root) == set()

    def test_check(self, mini, capsys):
        root, _ = mini
        with pytest.raises(ReplicationError, match="run `python -m replication fetch mini`"):
            fetch("mini", root=root, check=True)
        fetch("mini", root=root)
        adopt(root)
        assert fetch("mini", root=root, check=True).right == 64
        (root / "mini/park_az090/radiance.exr").unlink()
        shutil.copy(root / "mini/hall_az000/ev+1.png", root / "mini/hall_az000/ev+2.png")
        with pytest.raises(ReplicationError, match="62 files right, 1 missing"):
            fetch("mini", root=root, check=True)
        told = capsys.readouterr().err.splitlines()
        assert told == [
            f"missing: {root / 'mini/park_az090/radiance.exr'}",
            f"differing: {root / 'mini/hall_az000/ev+2.png'}",
        ]


class TestWheel:
    def run(self, monkeypatch, returncode=0, stderr="", wheel=None):
        def fake(command, **kwargs):
            assert command[1:4] == ["-m", "pip", "download"]
            assert "--no-deps" in command
            if wheel is not None:
                folder = command[command.index("--dest") + 1]
                (module.Path(folder) / "viser-1.0.0-py3-none-any.whl").write_bytes(wheel)
            return subprocess.CompletedProcess(command, returncode, "", stderr)

        monkeypatch.setattr(module.subprocess, "run", fake)

    def test_good(self, monkeypatch, tmp_path):
        self.run(monkeypatch, wheel=b"wheel")
        monkeypatch.setattr(module, "VISER_SHA256", hashlib.sha256(b"wheel").hexdigest())
        assert module._download_wheel(tmp_path).read_bytes() == b"wheel"

    def test_other_wheel(self, monkeypatch, tmp_path):
        self.run(monkeypatch, wheel=b"other")
        with pytest.raises(ReplicationError, match="another sha256 than expected"):
            module._download_wheel(tmp_path)

    def test_pip_fails(self, monkeypatch, tmp_path):
        told = "WARNING: slow\nERROR: No matching distribution found for viser==1.0.0\n\n[notice] x"
        self.run(monkeypatch, 1, told)
        with pytest.raises(
            ReplicationError, match=r"pip cannot download viser==1\.0\.0: ERROR: No matching"
        ):
            module._download_wheel(tmp_path)

    def test_no_pip(self, monkeypatch, tmp_path):
        self.run(monkeypatch, 1, "/usr/bin/python: No module named pip")
        with pytest.raises(ReplicationError, match="No module named pip"):
            module._download_wheel(tmp_path)


@pytest.mark.skipif(
    not (data_root() / "mini" / "frames.csv").is_file(), reason="mini is not fetched"
)
def test_mini_that_is_here_is_whole():
    report = verify("mini")
    assert report.ok
    assert report.right == 320


# --------------------------------------------------------------------------------------- vds


class TestVds:
    @pytest.fixture
    def source(self, tmp_path):
        source = tmp_path / "download"
        for tree in ("train_set", "test_set"):
            for ev in EVS:
                path = source / tree / "t01" / f"t01_{ev}EV_true.jpg.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((4, 6, 3), 100 + 30 * ev, np.uint8)).save(path)
        return source

    def test_by_hand_only(self, tmp_path):
        with pytest.raises(ReplicationError, match="downloaded by hand") as info:
            fetch("vds", root=tmp_path)
        assert "1i7iTC6t6e_ZhyCq178V3-nN-IS5-5WOe" in str(info.value)
        assert "--from DIR" in str(info.value)

    @pytest.mark.parametrize("links", [True, False])
    def test_from(self, source, tmp_path, monkeypatch, links):
        if not links:

            def refuse(*args, **kwargs):
                raise OSError("no links here")

            monkeypatch.setattr(module.Path, "symlink_to", refuse)
        report = fetch("vds", source_dir=source, root=tmp_path)
        assert report.right == 14
        assert (tmp_path / "vds").is_dir()
        assert (tmp_path / "vds" / "test_set").is_symlink() == links
        assert len(load_stacks("vds", root=tmp_path)) == 2
        if links:  # of the same folder again
            assert fetch("vds", source_dir=source, root=tmp_path).ok
        else:
            with pytest.raises(ReplicationError, match="train_set is there already; remove it"):
                fetch("vds", source_dir=source, root=tmp_path)
        assert fetch("vds", root=tmp_path, check=True).right == 14

    def test_broken_copy(self, source, tmp_path):
        (source / "train_set/t01/t01_-2EV_true.jpg.png").unlink()
        with pytest.raises(ReplicationError, match=r"EV -2 picture of vds scene train-t01"):
            fetch("vds", source_dir=source, root=tmp_path)
        assert not (tmp_path / "vds").exists()

    def test_check_finds_a_broken_scene(self, source, tmp_path, capsys):
        fetch("vds", source_dir=source, root=tmp_path)
        (source / "test_set/t01/t01_2EV_true.jpg.png").write_bytes(b"broken")
        with pytest.raises(ReplicationError, match=r"7 files right, 1 differing \(first: test-t01"):
            fetch("vds", root=tmp_path, check=True)


class TestArguments:
    def test_unknown_data_set(self, tmp_path):
        with pytest.raises(ReplicationError, match="Unknown data set 'x'; there are mini"):
            fetch("x", root=tmp_path)

    def test_source_that_is_not_there(self, tmp_path):
        with pytest.raises(ReplicationError, match=r"There is no folder .*nowhere to take mini"):
            fetch("mini", source_dir=tmp_path / "nowhere", root=tmp_path)
