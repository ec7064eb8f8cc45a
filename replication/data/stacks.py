"""Exposure stacks: one reader for every data set (DEVIATIONS D14) and for a folder of bracketed photos."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from replication import paper
from replication.data.exposure import exif_exposure, middle_exposure, relative_ev
from replication.files import PACKAGE, ReplicationError, data_root, sha256_array
from replication.hdr.io import read_hdr, read_image
from replication.images import check_photo

STACK_EVS = tuple(sorted((0, *paper.EVS)))  # -3 ... 3, in stops from the middle exposure
SPLITS = ("train", "val", "test")
DATASETS = ("mini", "openstacks", "hdrps", "empa", "vds")  # openstacks is hdrps and empa together
MANIFESTS = PACKAGE / "data" / "manifests"
# Data sets and photos that may be published, with their attribution; all others are for local runs.
SHOWABLE = {"mini": "Poly Haven, CC0", "coffee": "scikit-image, CC0"}
SHOWABLE |= {"empa": "Empa HDR image database, CC BY 4.0, doi 10.5281/zenodo.7861544"}
Folder = str | Path | None
_PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm"}
_EV_IN_NAME = re.compile(r"(?<![a-z])ev([+-]?\d+)(?!\.?\d)|(?<![\d.])([+-]?\d+)ev(?![a-z])", re.I)


@dataclass(frozen=True, eq=False)
class ExposureStack:
    """One static scene photographed at several exposures; checked when it is made.

    Args:
        dataset, scene, split: Where it comes from; "folder", its name and "" for a folder of photos.
        images: EV in stops from the middle exposure (0; higher is brighter) -> uint8 (H, W, 3) RGB.
        radiance: Linear RGB float32 (H, W, 3) or None; in mini, 1 just saturates the sensor at EV 0.
    """

    dataset: str
    scene: str
    split: str
    images: dict[int, np.ndarray] = field(repr=False)
    radiance: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self):
        where = f"{self.dataset} scene {self.scene}"
        if 0 not in self.images:
            raise ReplicationError(f"{where} has no EV 0 picture.")
        names = {f"The EV {ev:+d} picture of {where}": self.images[ev] for ev in self.evs}
        for label, image in names.items():
            check_photo(image, label)
        if self.radiance is not None:
            names[label := f"The radiance of {where}"] = self.radiance
            if not np.isfinite(self.radiance).all():
                raise ReplicationError(f"{label} has NaN or infinite values.")
        for label, image in names.items():
            if image.shape != self.shape:
                raise ReplicationError(f"{label} is {image.shape}, but EV +0 is {self.shape}.")

    @property
    def evs(self) -> list[int]:
        """EVs of the stack, ascending."""
        return sorted(self.images)

    @property
    def exposure_times(self) -> np.ndarray:
        """Relative exposure times 2^EV, float64 (n,)."""
        return 2.0 ** np.array(self.evs)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H, W, 3) of every picture."""
        return self.images[0].shape


def load_scene(dataset: str, scene: str, split: str, files: dict[str, Path]) -> ExposureStack:
    """Decode the files of a scene, by EV ("-3" ... "3") or "radiance"; errors name scene and EV."""
    read = {}
    for key, path in files.items():
        try:
            read[key] = read_hdr(path) if key == "radiance" else read_image(path)
        except ReplicationError as error:
            what = key if key == "radiance" else f"EV {int(key):+d} picture"
            where = f"{dataset} scene {scene} ({fetch_hint(dataset)})"
            raise ReplicationError(f"Cannot read the {what} of {where}: {error}") from error
    radiance = read.pop("radiance", None)
    return ExposureStack(dataset, scene, split, {int(ev): read[ev] for ev in read}, radiance)


def folder_of(dataset: str, root: Folder = None) -> Path:
    """Folder of a data set, also before it is fetched; ReplicationError if there is no such data set."""
    if dataset not in DATASETS:
        raise ReplicationError(f"Unknown data set {dataset!r}; there are {', '.join(DATASETS)}.")
    folder = "openstacks" if dataset in ("hdrps", "empa") else dataset
    return (data_root() if root is None else Path(root)) / folder


def fetch_hint(dataset: str) -> str:
    """Command that fetches a data set, for error messages."""
    name, source = folder_of(dataset).name, " --from DIR" if dataset == "vds" else ""
    return f"run `python -m replication fetch {name}{source}`"


def load_stacks(
    dataset: str, split: str | None = None, scenes: Iterable[str] | None = None, root: Folder = None
) -> list[ExposureStack]:
    """Stacks of a data set, EV -3 ... +3 (about 2 MB each), in the order of the manifest or the names.

    Args:
        dataset: One of `DATASETS`; unknown, missing and damaged ones are a ReplicationError.
        split: "train", "val" or "test"; None takes all, as in `scenes`, names of scenes.
        root: Folder that holds the data sets; None is `files.data_root()`.
    """
    if split not in (None, *SPLITS):
        raise ReplicationError(f"Unknown split {split!r}; there are {', '.join(SPLITS)}.")
    found = {scene[1]: scene for scene in _scenes(dataset, root) if split in (None, scene[2])}
    where = f"data set {dataset}" + (f", split {split}" if split else "")
    wanted = set(found if scenes is None else scenes)
    if not wanted or wanted - set(found):
        what = f"is no scene {min(wanted - set(found))!r}" if wanted else "are no scenes"
        raise ReplicationError(f"There {what} in the {where}.")
    return [load_scene(*scene) for name, scene in found.items() if name in wanted]


def has_split(dataset: str, split: str, root: Folder = None) -> bool:
    """Whether a data set has scenes in a split; arguments and errors as `load_stacks`."""
    return split in {scene[2] for scene in _scenes(dataset, root)}


def _scenes(dataset: str, root: Folder) -> list[tuple]:
    folder = folder_of(dataset, root)
    if dataset == "vds":
        return vds_scenes(folder)
    if not folder.is_dir():
        raise ReplicationError(f"The data set {dataset} is not in {folder}: {fetch_hint(dataset)}.")
    found: dict[str, tuple] = {}
    for row in manifest(dataset):
        scene = (row["dataset"], row["scene"], row["split"], {})
        found.setdefault(row["scene"], scene)[3][row["ev"]] = folder / row["path"]
    return list(found.values())


def read_csv(path: str | Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a UTF-8 CSV file; ReplicationError if it is unreadable or a row lacks one of the columns."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        if missing := [name for name in columns if any(row.get(name) is None for row in rows)]:
            raise ValueError(f"a row has no {missing[0]}")
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReplicationError(f"Cannot read the manifest {path}: {reason}.") from error
    return rows


def manifest(dataset: str) -> list[dict[str, str]]:
    """Rows of a committed manifest: dataset, scene, split, path, ev ("-3" ... "3", "radiance"), ...."""
    if dataset == "mini":
        panoramas = read_csv(MANIFESTS / "mini.csv", "panorama", "split")
        splits = {row["panorama"]: row["split"] for row in panoramas}
        rows = read_csv(MANIFESTS / "mini_frames.csv", "scene", "panorama", "ev", "path")
        if unknown := {row["panorama"] for row in rows} - set(splits):
            raise ReplicationError(f"The panorama {min(unknown)} is not in mini.csv.")
        return [{"dataset": "mini", "split": splits[row["panorama"]], **row} for row in rows]
    if dataset not in ("openstacks", "hdrps", "empa"):
        raise ReplicationError(f"The data set {dataset!r} has no manifest.")
    rows = read_csv(MANIFESTS / "openstacks.csv", "dataset", "scene", "split", "ev", "path")
    return [row for row in rows if dataset in ("openstacks", row["dataset"])]


def vds_scenes(folder: str | Path) -> list[tuple]:
    """List the scenes of the paper's own data set as arguments of `load_scene`, the train tree first.

    Two layouts are in use: train/set/tNN/tNN_{EV}EV_true.jpg.png, train/hdr_set/tNN/target_hdr.hdr
    and train_set/..., train_hdr_set/...; test alike. Split "val" is the 30 % of the train tree (7 : 3,
    Section 4.4) that hash lowest. A scene is called train-tNN or test-tNN.
    """
    folder, found, (train, val, _) = Path(folder), [], paper.SPLIT
    for tree, join in (("train", "/"), ("train", "_"), ("test", "/"), ("test", "_")):
        names = sorted(path.name for path in (folder / f"{tree}{join}set").glob("*/"))
        ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        validation = ranked[: round(val / (train + val) * len(names))] if tree == "train" else []
        for name in names:
            scene = folder / f"{tree}{join}set" / name
            files = {str(ev): scene / f"{name}_{ev}EV_true.jpg.png" for ev in STACK_EVS}
            files |= {str(ev): path for ev, path in _frames_by_name(scene.iterdir()).items()}
            if (hdr := folder / f"{tree}{join}hdr_set" / name / "target_hdr.hdr").is_file():
                files["radiance"] = hdr
            found.append(("vds", f"{tree}-{name}", "val" if name in validation else tree, files))
    if not found:
        raise ReplicationError(f"The data set vds is not in {folder}: {fetch_hint('vds')}.")
    return found


def _frames_by_name(paths: Iterable[Path]) -> dict[int, Path]:
    """Picture files by the EV in their names (ev-3.png, t01_-3EV_true.jpg.png); others are left out."""
    frames: dict[int, Path] = {}
    for path in sorted(path for path in paths if path.suffix.lower() in _PHOTO_SUFFIXES):
        if match := _EV_IN_NAME.search(path.name):
            ev = int(match[1] or match[2])
            if ev in frames:
                raise ReplicationError(f"{frames[ev]} and {path.name} are both named EV {ev:+d}.")
            frames[ev] = path
    return frames


def read_folder(path: Path, scene: str | None = None, *, neighbours: int = 0) -> ExposureStack:
    """Read a folder of at least two bracketed photos of one static scene (Section 4.4, Eq. 1).

    The EVs are the light recorded according to EXIF, in whole stops, with EV 0 at the middle
    exposure. If a photo lacks EXIF, all EVs come from the file names (ev-3.png, x_-3EV.png).
    Exposures that are unknown, equal or unevenly spaced are a ReplicationError.

    Args:
        path: Folder with JPEG, PNG, TIFF, WebP, BMP or PPM photos; other files are ignored.
        scene: Name of the stack; None takes the folder's.
        neighbours: Frames that must lie on each side of EV 0 (`exposure.middle_exposure`).
    """
    path = Path(path)
    if not path.is_dir():
        raise ReplicationError(f"There is no folder {path}.")
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in _PHOTO_SUFFIXES)
    if len(files) < 2:
        raise ReplicationError(f"A stack needs at least two photos; {path} has {len(files)}.")
    try:
        stops, source = {file: relative_ev(*exif_exposure(file)) for file in files}, "EXIF data"
    except ReplicationError as error:
        stops, source = {file: ev for ev, file in _frames_by_name(files).items()}, "names"
        if len(stops) < len(files):
            why = f"they need EXIF data (F-number, time, ISO) or names such as ev-1.jpg; {error}"
            raise ReplicationError(f"The exposures of {path} are unknown: {why}") from error
    files.sort(key=stops.get)
    pictures, light = [*map(read_image, files)], np.array([*map(stops.get, files)], float)
    light -= light[middle_exposure(pictures, neighbours=neighbours)] if source == "EXIF data" else 0
    evs, listed = np.rint(light).astype(int).tolist(), ", ".join(f"{stop:+.2f}" for stop in light)
    for problem, found in {
        "not whole stops apart": np.abs(light - evs).max() > 0.25,
        "of the same exposure": len(set(evs)) < len(evs),
        "not evenly spaced": len(set(np.diff(evs))) > 1,
    }.items():
        if found:
            raise ReplicationError(f"Photos in {path} are {problem}: EV {listed} by {source}.")
    images = dict(zip(evs, pictures, strict=True))
    return ExposureStack("folder", scene or path.resolve().name, "", images)


def dataset_hash(stacks: Iterable[ExposureStack]) -> str:
    """Fingerprint of stacks in any order: names, splits, EVs, pixels and radiance; 16 hex digits."""
    lines = []
    for stack in stacks:
        hashes = [f"{ev} {sha256_array(stack.images[ev])}" for ev in stack.evs]
        hashes += [] if stack.radiance is None else [sha256_array(stack.radiance)]
        lines.append(" ".join([stack.dataset, stack.scene, stack.split, *hashes]))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
