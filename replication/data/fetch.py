"""Fetch data sets: download, verify by SHA-256, build, and check what is there.

Nothing gets its final name before it is verified, and whatever is there already is verified and
kept, so every fetch may be interrupted and started again.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from replication.data import stacks
from replication.data.camera import VirtualCamera, perspective_view
from replication.files import ReplicationError, atomic_path, data_root, sha256_array, sha256_file
from replication.hdr import io

VIEW_SIZE = (384, 256)
"""Width and height of the mini views; at 90 degrees about the panoramas' own resolution."""
AZIMUTHS = (0, 90, 180, 270)
"""Directions of the views in degrees; together they go once around without overlap."""
MINI_VERSION = 1
"""To be raised when the way mini is built changes, so that old builds are not mixed with new."""

VISER = "viser==1.0.0"
VISER_SHA256 = "3be881a60f0295efd8a93df97646bbc04d070ccf8d16d8faf284eb3b70eda6eb"
VISER_MEMBER = "viser/client/build/hdri/{name}_1k.hdr"
"""The PyPI wheel (29 MB, never installed) that carries the ten panoramas of mini."""

VDS_PAGE = "https://siyeong-lee.github.io/hdr_vds_dataset"
VDS_DRIVE_FOLDER = "1i7iTC6t6e_ZhyCq178V3-nN-IS5-5WOe"

_FRAME_COLUMNS = ("scene", "panorama", "ev", "exposure_time", "path", "pixel_sha256", "recipe")
_CHUNK = 1 << 16
_FATAL_HTTP = {400, 401, 403, 404, 405, 410, 451}


@dataclass
class Report:
    """What a check found; `str` of it is one line.

    Attributes
    ----------
    dataset : str
    folder : Path
    right : int
        Files that are there with the right pixels.
    missing, differing : list of str
        Paths relative to `folder`; "differing" means other pixels than listed, or unreadable.
    notes : list of str
        Warnings that are no errors.
    """

    dataset: str
    folder: Path
    right: int = 0
    missing: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if nothing is missing or differs, and something is there."""
        return bool(self.right) and not self.missing and not self.differing

    def add(self, found: str, path: str) -> None:
        """Count one file as "right", "missing" or "differing"."""
        if found == "right":
            self.right += 1
        else:
            getattr(self, found).append(path)

    def summary(self) -> str:
        """Count in words: ``355 files right, 2 missing (first: hdrps/507/ev-3.webp)``."""
        parts = [f"{self.right} files right"]
        for name in ("missing", "differing"):
            if paths := getattr(self, name):
                parts.append(f"{len(paths)} {name} (first: {paths[0]})")
        return ", ".join(parts)

    def __str__(self) -> str:
        return "; ".join([f"{self.dataset} in {self.folder}: {self.summary()}", *self.notes])


def fetch(
    dataset: str,
    *,
    source_dir: str | Path | None = None,
    root: str | Path | None = None,
    check: bool = False,
) -> Report:
    """Fetch a data set, or check the one that is there.

    Files that are there and right are kept; an interrupted fetch goes on where it stopped. In a
    terminal, a progress bar is shown on standard error.

    Parameters
    ----------
    dataset : {"mini", "openstacks", "hdrps", "empa", "vds"}
        "hdrps" and "empa" are the two parts of "openstacks".
    source_dir : path, optional
        Take the files from this folder instead of the network. For mini: a folder with the
        panoramas ``NAME_1k.hdr`` or the viser wheel; for openstacks: a folder laid out as in
        ``data/openstacks.csv``; for vds: the folder with the authors' train and test trees.
    root : path, optional
        Folder that holds the data sets (default: `replication.files.data_root`).
    check : bool
        Only verify what is there; lists on standard error every file that is missing or differs.

    Returns
    -------
    Report
        Its `str` is one line for the user.

    Raises
    ------
    ReplicationError
        If the data set is unknown, a source cannot be reached or gives other content, or the
        check finds a file missing or different.
    """
    stacks.check_dataset(dataset)
    root = Path(root) if root is not None else data_root()
    if check:
        report = verify(dataset, root=root)
        for name in ("missing", "differing"):
            for path in getattr(report, name):
                print(f"{name}: {report.folder / path}", file=sys.stderr)
        if not report.ok:
            raise ReplicationError(f"{report}; {stacks.fetch_hint(dataset)}.")
        return report
    source = Path(source_dir) if source_dir is not None else None
    if source is not None and not source.is_dir():
        raise ReplicationError(f"There is no folder {source} to take {dataset} from.")
    if dataset == "mini":
        return _fetch_mini(root / "mini", source)
    if dataset == "vds":
        return _fetch_vds(root / "vds", source)
    return _fetch_openstacks(dataset, root / "openstacks", source)


def verify(dataset: str, *, root: str | Path | None = None) -> Report:
    """Compare every file of a data set that should be there with its manifest, pixel by pixel.

    openstacks is held to the committed manifest. mini is held to ``mini/frames.csv``, written
    when it was built; frames that differ from the reference build (``data/mini_frames.csv``) are
    only noted, since another machine's mathematical library may turn a rounding. vds has no
    manifest: every scene is read, and one that cannot be read counts as different.

    Parameters
    ----------
    dataset : {"mini", "openstacks", "hdrps", "empa", "vds"}
    root : path, optional
        Folder that holds the data sets.

    Returns
    -------
    Report

    Raises
    ------
    ReplicationError
        If the data set is unknown or not there at all.
    """
    root = Path(root) if root is not None else data_root()
    if dataset == "vds":
        return _verify_vds(root / "vds")
    folder = root / ("mini" if dataset == "mini" else "openstacks")
    report = Report(dataset, folder)
    rows = stacks.manifest(dataset)
    if dataset == "mini":
        local = folder / "frames.csv"
        if not local.is_file():
            raise ReplicationError(
                f"The data set mini is not in {folder}: {stacks.fetch_hint(dataset)}."
            )
        built = {row["path"]: row for row in stacks.read_csv(local)}
        report.notes += _unlike_reference(list(built.values()), rows)
        recipes = {
            row["panorama"]: _mini_recipe(row)
            for row in stacks.read_csv(stacks.MANIFESTS / "mini.csv")
        }
        # A file unknown to the build, or of another recipe, gets a hash that nothing has.
        for row in rows:
            own = built.get(row["path"], {})
            same = own.get("recipe") == recipes[row["panorama"]]
            row["pixel_sha256"] = own["pixel_sha256"] if same else "not built"
    for row in tqdm(rows, f"Checking {dataset}", unit="file", disable=None):
        report.add(_state(folder / row["path"], row), row["path"])
    return report


def _state(path: Path, row: dict[str, str]) -> str:
    """Compare a file with its manifest row: "right", "missing" or "differing" (or unreadable)."""
    if not path.is_file():
        return "missing"
    read = io.read_hdr if row["ev"] == "radiance" else io.read_image
    try:
        return "right" if sha256_array(read(path)) == row["pixel_sha256"] else "differing"
    except ReplicationError:
        return "differing"


# ---------------------------------------------------------------------------------- download


def download(
    urls: Iterable[str],
    path: str | Path,
    sha256: str,
    *,
    attempts: int = 4,
    pause: float = 1.0,
    timeout: float = 30.0,
    progress: Callable[[int], object] = lambda size: None,
    opener: Callable = urllib.request.urlopen,
) -> Path:
    """Download a file from the first source that gives the right content.

    The bytes go to ``path.part``; a broken download goes on from there (HTTP Range), also in a
    later call. Only the verified file gets its name. Each source is tried `attempts` times with
    pauses that double (`pause` seconds first); one that answers "not found" or sends wrong
    content is left for the next at once.

    Parameters
    ----------
    urls : iterable of str
        Sources of the same file, best first.
    path : path
        Where it goes; kept as it is when it has the right content already.
    sha256 : str
        64 hex digits.
    attempts, pause, timeout : int, float, float
        Tries per source, first pause and time without an answer in seconds.
    progress : callable
        Gets the number of bytes of every chunk.
    opener : callable
        Like `urllib.request.urlopen`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ReplicationError
        If no source gives the file; names every source with its reason.
    """
    path = Path(path)
    if path.is_file() and sha256_file(path) == sha256:
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        reasons = []
        for url in urls:
            for attempt in range(attempts):
                if attempt:
                    time.sleep(pause * 2 ** (attempt - 1))
                resumed = part.is_file() and part.stat().st_size > 0
                try:
                    _receive(url, part, timeout, progress, opener)
                except urllib.error.HTTPError as error:
                    reason = f"HTTP {error.code} {error.reason}"
                    if error.code in _FATAL_HTTP:
                        break
                    continue
                except ConnectionError as error:
                    reason = str(error)
                    continue
                if sha256_file(part) == sha256:
                    os.replace(part, path)
                    return path
                part.unlink()
                reason = "content differs from the manifest's sha256"
                if not resumed:
                    break
            reasons.append(f"{url} ({reason})")
    except OSError as error:  # network errors have been dealt with above
        raise ReplicationError(f"Cannot write {part}: {error.strerror or error}.") from error
    raise ReplicationError(
        f"Cannot download {path.name} from {' or '.join(reasons)}; without a connection, give a "
        "copy with --from DIR."
    )


def _receive(
    url: str, part: Path, timeout: float, progress: Callable[[int], object], opener: Callable
) -> None:
    """Append to `part` what is missing of the file at `url`, or start it anew."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "replication-fetch"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = opener(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send; the hash will tell
            return
        raise
    except (OSError, HTTPException) as error:
        raise ConnectionError(_network_reason(error)) from error
    with response:
        appending = have > 0 and response.status == 206
        content_range = response.headers.get("Content-Range", "")
        if appending and not content_range.startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server sent another range than asked for")
        length = response.headers.get("Content-Length")
        received = 0
        with open(part, "ab" if appending else "wb") as stream:
            while True:
                try:
                    chunk = response.read(_CHUNK)
                except (OSError, HTTPException) as error:
                    raise ConnectionError(_network_reason(error)) from error
                if not chunk:
                    break
                stream.write(chunk)
                received += len(chunk)
                progress(len(chunk))
        if length is not None and received < int(length):
            raise ConnectionError(f"broken off after {received} of {length} bytes")


def _network_reason(error: Exception) -> str:
    """Tell in a few words what the network did."""
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason) or type(error).__name__


# -------------------------------------------------------------------------------- openstacks


def _fetch_openstacks(dataset: str, folder: Path, source: Path | None) -> Report:
    """Bring every frame of the manifest to its place, from the network or from a copy."""
    rows = stacks.manifest(dataset)
    report = Report(dataset, folder)

    def bring(row: dict[str, str]) -> str:
        target = folder / row["path"]
        if _state(target, row) == "right":
            return "right"
        if source is None:
            _download_frame(row, target)
            return "right"
        found = _state(source / row["path"], row)
        if found == "right":
            with atomic_path(target) as temporary:
                shutil.copyfile(source / row["path"], temporary)
        return found

    with (
        ThreadPoolExecutor(4 if source is None else 1) as pool,
        tqdm(total=len(rows), desc=f"Fetching {dataset}", unit="file", disable=None) as bar,
    ):
        # map cancels what has not begun as soon as one file fails
        for row, found in zip(rows, pool.map(bring, rows), strict=True):
            report.add(found, row["path"])
            bar.update()
    if not report.ok:
        raise ReplicationError(f"{source} is no full copy of {dataset}: {report.summary()}.")
    return report


def _download_frame(row: dict[str, str], target: Path) -> None:
    """Download one source TIFF, verify its pixels and keep them as lossless WebP."""
    tiff = download([row["url"]], target.with_suffix(".tif"), row["source_sha256"])
    try:
        pixels = io.read_image(tiff)
        if sha256_array(pixels) != row["pixel_sha256"]:
            raise ReplicationError(
                f"The EV {int(row['ev']):+d} picture of {row['dataset']} scene {row['scene']} "
                f"from {row['url']} decodes to other pixels than the manifest tells."
            )
        with atomic_path(target) as temporary:
            Image.fromarray(pixels).save(temporary, lossless=True, method=0, quality=0)
    finally:
        tiff.unlink()


# -------------------------------------------------------------------------------------- mini


def _fetch_mini(folder: Path, source: Path | None) -> Report:
    """Get the ten panoramas and photograph the views, scene by scene."""
    panoramas = stacks.read_csv(stacks.MANIFESTS / "mini.csv")
    files = _get_panoramas(panoramas, folder / "panoramas", source)
    local = folder / "frames.csv"
    built: dict[str, list[dict[str, str]]] = {}
    for row in stacks.read_csv(local) if local.is_file() else []:
        built.setdefault(row["scene"], []).append(row)
    total = len(panoramas) * len(AZIMUTHS)
    with tqdm(total=total, desc="Building mini", unit="scene", disable=None) as bar:
        for panorama in panoramas:
            name, pixels = panorama["panorama"], None
            for azimuth in AZIMUTHS:
                scene = scene_name(name, azimuth)
                if not _is_built(folder, built.get(scene, []), _mini_recipe(panorama)):
                    pixels = io.read_hdr(files[name]) if pixels is None else pixels
                    built[scene] = _build_scene(folder, panorama, pixels, scene, azimuth)
                bar.update()
            _write_csv(local, built.values())
    scenes = [scene_name(row["panorama"], azimuth) for row in panoramas for azimuth in AZIMUTHS]
    rows = _write_csv(local, [built[scene] for scene in scenes])
    report = Report("mini", folder, right=len(rows))
    report.notes += _unlike_reference(rows, stacks.manifest("mini"))
    return report


def scene_name(panorama: str, azimuth: int) -> str:
    """Name of a mini scene: ``venice_sunset_az090``."""
    return f"{panorama}_az{azimuth:03d}"


def _is_built(folder: Path, rows: list[dict[str, str]], recipe: str) -> bool:
    """Whether a scene is there in full, by this recipe and with the pixels of its rows."""
    return len(rows) == len(stacks.EVS) + 1 and all(
        row["recipe"] == recipe and _state(folder / row["path"], row) == "right" for row in rows
    )


def _mini_recipe(panorama: dict[str, str]) -> str:
    """Fingerprint of all that decides how a panorama's views look (12 hex digits)."""
    facts = [MINI_VERSION, VIEW_SIZE, stacks.EVS]
    facts += sorted((k, v) for k, v in panorama.items() if k not in ("url", "split", "place"))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def mini_camera(panorama: dict[str, str]) -> VirtualCamera:
    """Build the virtual camera that a row of ``mini.csv`` describes.

    Parameters
    ----------
    panorama : dict of str
        Columns response, parameters, full_well, dark_current, reset_noise, read_noise.

    Returns
    -------
    VirtualCamera
    """
    numbers = ("full_well", "dark_current", "reset_noise", "read_noise")
    return VirtualCamera(
        response=panorama["response"],
        parameters=tuple(float(value) for value in panorama["parameters"].split()),
        **{name: float(panorama[name]) for name in numbers},
    )


def _build_scene(
    folder: Path, panorama: dict[str, str], pixels: np.ndarray, scene: str, azimuth: int
) -> list[dict[str, str]]:
    """Photograph one view, write its frames and radiance, and return their manifest rows."""
    name, recipe = panorama["panorama"], _mini_recipe(panorama)
    camera = mini_camera(panorama)
    view = perspective_view(pixels, azimuth, *VIEW_SIZE)
    exposure_time = camera.meter(view)
    view *= np.float32(exposure_time)  # now 1 saturates the sensor at EV 0
    seed = int(hashlib.sha256(f"mini {scene}".encode()).hexdigest()[:12], 16)
    rows = []

    def add(ev: str, exposure: float, path: str, array: np.ndarray) -> None:
        values = (scene, name, ev, f"{exposure:.9g}", path, sha256_array(array), recipe)
        rows.append(dict(zip(_FRAME_COLUMNS, values, strict=True)))

    for ev, image in camera.stack(view, stacks.EVS, seed).items():
        path = f"{scene}/ev{ev:+d}.png"
        io.write_png(folder / path, image)
        add(str(ev), exposure_time * 2.0**ev, path, image)
    path = f"{scene}/radiance.exr"
    io.write_hdr(folder / path, view)
    add("radiance", exposure_time, path, view)
    return rows


def _write_csv(path: Path, scenes: Iterable[list[dict[str, str]]]) -> list[dict[str, str]]:
    """Write the manifest of a mini build from the rows of its scenes; return all rows."""
    rows = [row for scene in scenes for row in scene]
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, _FRAME_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _unlike_reference(rows: list[dict[str, str]], reference: list[dict[str, str]]) -> list[str]:
    """Note how many files of a mini build differ from the reference build, if any."""
    expected = {row["path"]: row["pixel_sha256"] for row in reference}
    unlike = [row["path"] for row in rows if expected.get(row["path"], "") != row["pixel_sha256"]]
    if not unlike:
        return []
    return [
        f"warning: {len(unlike)} of {len(rows)} files differ from the reference build (first: "
        f"{unlike[0]}), as another machine's roundings may make them"
    ]


def _get_panoramas(
    panoramas: list[dict[str, str]], folder: Path, source: Path | None
) -> dict[str, Path]:
    """Bring the panoramas to `folder`, each verified, from one source after another."""
    files = {row["panorama"]: folder / f"{row['panorama']}_1k.hdr" for row in panoramas}

    def wanting() -> list[dict[str, str]]:
        present = {name: path for name, path in files.items() if path.is_file()}
        hashes = {name: sha256_file(path) for name, path in present.items()}
        return [row for row in panoramas if hashes.get(row["panorama"]) != row["sha256"]]

    if source is not None:
        for row in wanting():
            copy = source / files[row["panorama"]].name
            if copy.is_file():
                _store(copy.read_bytes(), row, files[row["panorama"]], str(copy))
        for wheel in sorted(source.glob("viser-*.whl")):
            _unpack(wheel, wanting(), files)
        if missing := wanting():
            name = files[missing[0]["panorama"]].name
            raise ReplicationError(f"{source} has neither {name} nor the wheel of {VISER}.")
    elif missing := wanting():
        try:
            with tempfile.TemporaryDirectory() as temporary:
                _unpack(_download_wheel(Path(temporary)), missing, files)
        except ReplicationError as error:
            _download_panoramas(wanting(), files, str(error).rstrip("."))
    return files


def _download_panoramas(rows: list[dict[str, str]], files: dict[str, Path], first: str) -> None:
    """Download panoramas one by one, after the `first` source has failed."""
    with tqdm(desc="Poly Haven", unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:
        for row in rows:
            try:
                download([row["url"]], files[row["panorama"]], row["sha256"], progress=bar.update)
            except ReplicationError as error:
                raise ReplicationError(f"{first}; {error}") from error


def _download_wheel(folder: Path) -> Path:
    """Download the viser wheel with pip into a folder, verify it, and return its path."""
    print(f"Downloading the wheel of {VISER} (29 MB) with pip", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--retries=2", "--timeout=20", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), VISER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.splitlines() or ["no reason given"]
        told = [line for line in lines if "ERROR" in line or "No module" in line] or lines
        reason = told[-1].strip().rstrip(".")
        raise ReplicationError(f"pip cannot download {VISER}: {reason}.")
    if sha256_file(wheels[0]) != VISER_SHA256:
        raise ReplicationError(f"The wheel of {VISER} from pip has another sha256 than expected.")
    return wheels[0]


def _unpack(wheel: Path, panoramas: list[dict[str, str]], files: dict[str, Path]) -> None:
    """Take panoramas out of the viser wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for row in panoramas:
                content = archive.read(VISER_MEMBER.format(name=row["panorama"]))
                _store(content, row, files[row["panorama"]], str(wheel))
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ReplicationError(f"Cannot unpack the wheel {wheel}: {error}.") from error


def _store(content: bytes, row: dict[str, str], target: Path, origin: str) -> None:
    """Write a panorama after its hash was found right."""
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        raise ReplicationError(
            f"The panorama {row['panorama']} from {origin} has another sha256 than mini.csv tells."
        )
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


# --------------------------------------------------------------------------------------- vds


def _fetch_vds(folder: Path, source: Path | None) -> Report:
    """Check a copy of the paper's data set and link (or copy) its trees into place."""
    if source is None:
        raise ReplicationError(
            "The data set vds must be downloaded by hand from the authors' Google Drive (folder "
            f"{VDS_DRIVE_FOLDER}, see {VDS_PAGE}); then run "
            "`python -m replication fetch vds --from DIR`."
        )
    report = Report("vds", folder)
    for scene in tqdm(stacks.vds_scenes(source), "Checking vds", disable=None):
        report.right += len(scene.load().images)
    for name in stacks.VDS_TREES:
        target, origin = folder / name, source / name
        if not origin.is_dir() or (target.exists() and target.samefile(origin)):
            continue
        if target.exists() or target.is_symlink():
            raise ReplicationError(f"{target} is there already; remove it to fetch vds anew.")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            target.symlink_to(origin.resolve(), target_is_directory=True)
        except OSError:  # a file system without links
            temporary = folder / f".{name}.part"
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(origin, temporary)
            os.replace(temporary, target)
    return report


def _verify_vds(folder: Path) -> Report:
    """Read every scene; one that cannot be read counts as differing, with a note that says why."""
    report = Report("vds", folder)
    for scene in tqdm(stacks.vds_scenes(folder), "Checking vds", disable=None):
        try:
            report.right += len(scene.load().images)
        except ReplicationError as error:
            report.differing.append(scene.scene)
            report.notes.append(str(error).rstrip("."))
    return report
