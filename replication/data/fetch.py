"""Fetch data sets: nothing gets its name before its SHA-256 is right; what is there and right is kept."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pooch
from PIL import Image
from tqdm import tqdm

from replication.data import stacks
from replication.data.camera import VirtualCamera, perspective_view
from replication.files import ReplicationError, atomic_path, locked, sha256_array, sha256_file
from replication.hdr import io

Folder, Row = stacks.Folder, dict[str, str]
VIEW_SIZE = (384, 256)  # of mini; at 90 degrees about the panoramas' own resolution
AZIMUTHS = (0, 90, 180, 270)  # of its views in degrees; they go once around without overlap
MINI_VERSION = 1  # to be raised when the way mini is built changes
VISER = "viser==1.0.0"  # a wheel on PyPI (29 MB, never installed) that carries the panoramas
VISER_SHA256 = "3be881a60f0295efd8a93df97646bbc04d070ccf8d16d8faf284eb3b70eda6eb"
VISER_FOLDER = "viser/client/build/hdri"
VDS = "Google Drive (1i7iTC6t6e_ZhyCq178V3-nN-IS5-5WOe, see siyeong-lee.github.io/hdr_vds_dataset)"
_FRAME = ("scene", "panorama", "ev", "exposure_time", "path", "pixel_sha256", "recipe")
_CAMERA = ("full_well", "dark_current", "reset_noise", "read_noise")
_PANORAMA = ("panorama", "response", "parameters", *_CAMERA, "sha256", "url")
pooch.get_logger().setLevel("ERROR")


@dataclass
class Report:
    """Path within `folder` -> "right", "missing" or "differing" (or unreadable); `str` is one line."""

    dataset: str
    folder: Path
    found: dict[str, str]
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether all is right."""
        return {*self.found.values()} == {"right"}

    def __str__(self) -> str:
        line = f"{self.dataset} in {self.folder}: {[*self.found.values()].count('right')} files right"
        for state in ("missing", "differing"):
            if paths := [path for path, found in self.found.items() if found == state]:
                line += f", {len(paths)} {state} (first: {paths[0]})"
        return line + self.note


def fetch(dataset: str, *, source_dir: Folder = None, root: Folder = None, check: bool = False) -> Report:
    """Fetch a data set, or check the one that is there, with progress bars in a terminal.

    Args:
        dataset: One of `stacks.DATASETS`; `root`, as in `stacks.load_stacks`.
        source_dir: Folder to take the files from, not the network: for mini with NAME_1k.hdr or the
            viser wheel, for openstacks laid out as openstacks.csv, for vds with the authors' trees.
        check: Only verify. What is missing or differs is listed on standard error and a ReplicationError.
    """
    folder, hint = stacks.folder_of(dataset, root), stacks.fetch_hint(dataset)
    source = None if source_dir is None else Path(source_dir)
    if source is not None and not source.is_dir():
        raise ReplicationError(f"There is no folder {source} to take {dataset} from.")
    if source is None and dataset == "vds" and not check:
        raise ReplicationError(f"vds is downloaded by hand from the authors' {VDS}; then {hint}.")
    way = {"mini": _fetch_mini, "vds": _link_vds}.get(dataset, _fetch_openstacks)
    try:
        with nullcontext() if check else locked(folder):
            report = verify(dataset, root=root) if check else way(dataset, folder, source)
    except OSError as error:
        raise ReplicationError(f"Cannot fetch to {folder}: {error.strerror or error}.") from error
    for path, state in report.found.items():
        if state != "right":
            print(f"{state}: {folder / path}", file=sys.stderr)
    if not report.ok:
        raise ReplicationError(f"{report}; {f'{source} is no full copy' if source else hint}.")
    return report


def verify(dataset: str, *, root: Folder = None) -> Report:
    """Compare every file with the manifest, of mini with its own frames.csv; vds must be readable."""
    folder = stacks.folder_of(dataset, root)
    if dataset == "vds":
        return Report(dataset, folder, _read_vds(folder))
    rows, note = _mini_rows(folder) if dataset == "mini" else (stacks.manifest(dataset), "")
    bar = tqdm(rows, f"Checking {dataset}", unit="file", disable=None)
    return Report(dataset, folder, {row["path"]: _state(folder, row) for row in bar}, note)


def _mini_rows(folder: Path) -> tuple[list[Row], str]:
    """Rows of mini's files with the hashes of its own build, and a note if the reference has others."""
    if not (folder / "frames.csv").is_file():
        raise ReplicationError(f"The data set mini is not in {folder}: {stacks.fetch_hint('mini')}.")
    panoramas, rows, note = _panoramas(), stacks.manifest("mini"), ""
    built = stacks.read_csv(folder / "frames.csv", *_FRAME)
    reference = {row["path"]: row["pixel_sha256"] for row in rows}
    unlike = [row["path"] for row in built if row["pixel_sha256"] != reference.get(row["path"])]
    if unlike:
        note = f"; warning: {len(unlike)} of {len(built)} files differ from the reference build "
        note += f"(first: {unlike[0]}); machines may round otherwise"
    recipes = {row["recipe"] for row in panoramas}
    known = {row["path"]: row["pixel_sha256"] for row in built if row["recipe"] in recipes}
    rows = [row | {"pixel_sha256": known.get(row["path"], "not built")} for row in rows]
    return rows + [row | {"path": f"panoramas/{row['path']}"} for row in panoramas], note


def _state(folder: Path, row: Row) -> str:
    """Compare a file with its manifest row: "right", "missing" or "differing"."""
    path = folder / row["path"]
    if not path.is_file():
        return "missing"
    with suppress(ReplicationError, OSError):
        read = io.read_hdr if row.get("ev") == "radiance" else io.read_image
        found = sha256_array(read(path)) if "ev" in row else sha256_file(path)
        if found == row["pixel_sha256" if "ev" in row else "sha256"]:
            return "right"
    return "differing"


def _bring(row: Row, source: Path, folder: Path) -> str:
    """Copy a file to its place if it is right in `source`; return its state."""
    state = _state(folder, row)
    if state != "right" and (state := _state(source, row)) == "right":
        with atomic_path(folder / row["path"]) as temporary:
            shutil.copyfile(source / row["path"], temporary)
    return state


def download(url: str, sha256: str, path: Path, bar: bool = False, problem: str = "") -> Path:
    """Download a file with pooch, four times at most; its errors begin with `problem`."""
    known = {"registry": {path.name: sha256}, "urls": {path.name: url}, "retry_if_failed": 3}
    try:
        source = pooch.create(path.parent, "", **known)
        return Path(source.fetch(path.name, progressbar=bar and sys.stderr.isatty()))
    except OSError as error:  # also what requests raises; its first cause is the clearest
        while error.__context__:
            error = error.__context__
        reason = getattr(error, "strerror", None) or error
    except ValueError:
        reason = "its content has another sha256 than expected"
    raise ReplicationError(f"{problem}Cannot download {url}: {reason}; offline, use --from DIR.")


def _fetch_openstacks(dataset: str, folder: Path, source: Path | None) -> Report:
    rows = stacks.manifest(dataset)
    with ThreadPoolExecutor(1 if source else 4) as pool:
        states = pool.map(lambda row: _bring_frame(row, source, folder), rows)
        bar = tqdm(states, f"Fetching {dataset}", len(rows), unit="file", disable=None)
        return Report(dataset, folder, dict(zip([row["path"] for row in rows], bar, strict=True)))


def _bring_frame(row: Row, source: Path | None, folder: Path) -> str:
    """Take a frame from `source`, or download it and keep it without loss; return its state."""
    state = _bring(row, source or folder, folder)
    if state == "right" or source:
        return state
    with TemporaryDirectory() as temporary:
        pixels = io.read_image(download(row["url"], row["source_sha256"], Path(temporary, "frame.tif")))
    if sha256_array(pixels) != row["pixel_sha256"]:
        raise ReplicationError(f"{row['url']} has other pixels than {row['path']} should have.")
    with atomic_path(folder / row["path"]) as temporary:
        Image.fromarray(pixels).save(temporary, lossless=True, method=0, quality=0)
    return "right"


def _panoramas() -> list[Row]:
    """Rows of mini.csv, with `path` and with `recipe`, a hash of all that decides how the views look."""
    rows = stacks.read_csv(stacks.MANIFESTS / "mini.csv", *_PANORAMA)
    for row in rows:
        facts = sorted((k, v) for k, v in row.items() if k not in ("url", "split", "place"))
        facts = repr([MINI_VERSION, VIEW_SIZE, stacks.STACK_EVS, *facts])
        row["recipe"] = hashlib.sha256(facts.encode()).hexdigest()[:12]
        row["path"] = f"{row['panorama']}_1k.hdr"
    return rows


def _fetch_mini(dataset: str, folder: Path, source: Path | None) -> Report:
    """Get the ten panoramas and photograph the views, scene by scene."""
    panoramas, scenes = _panoramas(), {}
    _get_panoramas(panoramas, folder / "panoramas", source)
    with suppress(ReplicationError):  # without a readable list all is built anew
        for row in stacks.read_csv(folder / "frames.csv", *_FRAME):
            scenes.setdefault(row["scene"], []).append(row)
    views = {f"{row['panorama']}_az{a:03d}": (row, a) for row in panoramas for a in AZIMUTHS}
    for scene, (panorama, azimuth) in tqdm(views.items(), "Building mini", disable=None):
        states = [(row["recipe"], _state(folder, row)) for row in scenes.get(scene, [])]
        if states != [(panorama["recipe"], "right")] * (len(stacks.STACK_EVS) + 1):
            scenes[scene] = _build_scene(folder, panorama, scene, azimuth)
            rows = [row for name in views for row in scenes.get(name, [])]
            with atomic_path(folder / "frames.csv") as temporary:
                pd.DataFrame(rows).to_csv(temporary, columns=_FRAME, index=False)
    return verify("mini", root=folder.parent)


def _build_scene(folder: Path, panorama: Row, scene: str, azimuth: int) -> list[Row]:
    """Photograph one view, write its frames and radiance, and return their manifest rows."""
    parameters = tuple(map(float, panorama["parameters"].split()))
    camera = VirtualCamera(panorama["response"], parameters, *(float(panorama[n]) for n in _CAMERA))
    pixels = io.read_hdr(folder / "panoramas" / panorama["path"])
    view = perspective_view(pixels, azimuth, VIEW_SIZE)
    time = camera.meter(view)
    view *= time  # now 1 saturates the sensor at EV 0
    seed = int(hashlib.sha256(f"mini {scene}".encode()).hexdigest()[:12], 16)
    frames = camera.stack(view, stacks.STACK_EVS, seed)
    files = [(ev, time * 2.0**ev, f"{scene}/ev{ev:+d}.png", frames[ev]) for ev in frames]
    rows = []
    for ev, exposure, path, image in [*files, ("radiance", time, f"{scene}/radiance.exr", view)]:
        (io.write_hdr if ev == "radiance" else io.write_png)(folder / path, image)
        values = (str(ev), f"{exposure:.9g}", path, sha256_array(image), panorama["recipe"])
        rows.append(dict(zip(_FRAME, (scene, panorama["panorama"], *values), strict=True)))
    return rows


def _get_panoramas(rows: list[Row], folder: Path, source: Path | None) -> None:
    """Bring the panoramas to their places: from `source`, or from the viser wheel, else Poly Haven."""
    with TemporaryDirectory() as temporary:
        scratch, problem = Path(temporary, VISER_FOLDER), ""
        rows = [row for row in rows if _bring(row, source or scratch, folder) != "right"]
        members = [f"{VISER_FOLDER}/{row['path']}" for row in rows]
        try:
            if rows and not source:
                _download_wheel(temporary)
            for wheel in Path(source or temporary).glob("viser-*.whl"):
                zipfile.ZipFile(wheel).extractall(temporary, members)
        except ReplicationError as error:
            problem = f"{str(error).rstrip('.')}; "
        except Exception as error:  # a damaged or unusual archive raises one of a dozen kinds
            problem = f"Cannot unpack the wheel {wheel}: {error!r}; "
        if source and problem:
            raise ReplicationError(problem[:-2] + ".")
        for row in rows:
            if problem:
                download(row["url"], row["sha256"], scratch / row["path"], True, problem)
            if _bring(row, scratch, folder) != "right":
                raise ReplicationError(f"{source} has no right {row['path']} and no {VISER} wheel.")


def _download_wheel(folder: str) -> None:
    """Download the viser wheel with pip into a folder and verify it."""
    print(f"Downloading the wheel of {VISER} (29 MB) with pip", file=sys.stderr)
    options = "--quiet --disable-pip-version-check --retries=2 --timeout=20 --no-deps --only-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", folder, VISER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (wheels := list(Path(folder).glob("viser-*.whl"))):
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ReplicationError(f"pip cannot download {VISER}: {reason}.")
    if sha256_file(wheels[0]) != VISER_SHA256:
        raise ReplicationError(f"The wheel of {VISER} from pip has another sha256 than expected.")


def _read_vds(folder: Path) -> dict[str, str]:
    scenes = tqdm(stacks.vds_scenes(folder), "Checking vds", disable=None)
    return {f"{s[1]} EV {ev:+d}": "right" for s in scenes for ev in stacks.load_scene(*s).evs}


def _link_vds(dataset: str, folder: Path, source: Path) -> Report:
    """Link (or copy) the trees of a copy of the paper's data set into place."""
    report = Report(dataset, folder, _read_vds(source))
    for name in ("train", "test", "train_set", "train_hdr_set", "test_set", "test_hdr_set"):
        target, origin = folder / name, (source / name).resolve()
        if not origin.is_dir() or target.resolve() == origin:
            continue
        if target.exists() or target.is_symlink():
            raise ReplicationError(f"{target} is there already; remove it to fetch vds anew.")
        try:
            target.symlink_to(origin, target_is_directory=True)
        except OSError:  # a file system without links
            shutil.copytree(origin, folder / f".{name}.part", dirs_exist_ok=True)
            (folder / f".{name}.part").rename(target)
    return report
