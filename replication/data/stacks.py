"""Exposure stacks: one reader for every data set, and for any folder of bracketed photos.

Why there are others than the paper's own, and how that one is split: DEVIATIONS D14.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from replication.data.exposure import exif_exposure, middle_exposure, relative_ev
from replication.files import PACKAGE, ReplicationError, data_root, sha256_array
from replication.hdr.io import read_hdr, read_image

EVS = (-3, -2, -1, 0, 1, 2, 3)
"""The exposures of a stack in the paper, in stops from the middle exposure."""

SPLITS = ("train", "val", "test")
DATASETS = ("mini", "openstacks", "hdrps", "empa", "vds")
SHOWABLE = {
    "mini": "Poly Haven, CC0",
    "empa": "Empa HDR image database, CC BY 4.0, doi 10.5281/zenodo.7861544",
    "coffee": "scikit-image, CC0",
}
"""Source of pictures -> what allows the project to publish them; all others are for local runs."""

MANIFESTS = PACKAGE / "data" / "manifests"
"""Folder of the committed manifests ``mini.csv``, ``mini_frames.csv`` and ``openstacks.csv``."""

VDS_VALIDATION_SHARE = 0.3
"""Part of the vds train tree kept for validation: 7 : 3 of train : val in Section 4.4."""

VDS_TREES = ("train", "test", "train_set", "train_hdr_set", "test_set", "test_hdr_set")
"""Top folders of the two vds layouts in use."""

_PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm"}
_EV_IN_NAME = re.compile(
    r"(?<![a-z])ev([+-]?\d+)(?!\.?\d)|(?<![\d.])([+-]?\d+)ev(?![a-z])", re.IGNORECASE
)


@dataclass(frozen=True, eq=False)
class ExposureStack:
    """One static scene photographed at several exposures.

    Attributes
    ----------
    dataset, scene, split : str
        Where it comes from; `split` is "train", "val", "test", or "" for a folder of one's own.
    images : dict of int to uint8 (H, W, 3)
        RGB pictures by EV in stops from the middle exposure (EV 0); higher is brighter.
    radiance : float32 (H, W, 3) or None
        Linear RGB scene radiance where it is known. For `mini`, 1 is the radiance that just
        saturates the sensor at EV 0; elsewhere its unit is arbitrary.
    """

    dataset: str
    scene: str
    split: str
    images: dict[int, np.ndarray] = field(repr=False)
    radiance: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self):
        label = f"{self.dataset} scene {self.scene}"
        if 0 not in self.images:
            raise ReplicationError(f"The {label} has no EV 0 picture.")
        for ev, image in sorted(self.images.items()):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ReplicationError(
                    f"The EV {ev:+d} picture of {label} is {image.dtype} {image.shape}, "
                    "not 8-bit RGB."
                )
            if image.shape != self.shape:
                raise ReplicationError(
                    f"The EV {ev:+d} picture of {label} has {_size(image)} pixels, "
                    f"but EV +0 has {_size(self.images[0])}."
                )
        if self.radiance is not None:
            if self.radiance.shape != self.shape:
                raise ReplicationError(
                    f"The radiance of {label} has {_size(self.radiance)} pixels, "
                    f"but EV +0 has {_size(self.images[0])}."
                )
            if not np.isfinite(self.radiance).all():
                raise ReplicationError(f"The radiance of {label} has NaN or infinite values.")

    @property
    def evs(self) -> list[int]:
        """EVs of the stack, ascending."""
        return sorted(self.images)

    @property
    def exposure_times(self) -> np.ndarray:
        """Relative exposure times 2^EV in the order of `evs`, float64 (n,); EV 0 is 1."""
        return 2.0 ** np.array(self.evs)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H, W, 3) of every picture."""
        return self.images[0].shape


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


@dataclass(frozen=True)
class _Scene:
    """Where the files of one scene are, before any of them is decoded."""

    dataset: str
    scene: str
    split: str
    frames: dict[int, Path]
    radiance: Path | None = None

    def load(self) -> ExposureStack:
        label = f"{self.dataset} scene {self.scene}"
        missing = [ev for ev in EVS if ev not in self.frames or not self.frames[ev].is_file()]
        if missing:
            where = self.frames.get(missing[0]) or next(iter(self.frames.values())).parent
            raise ReplicationError(
                f"The EV {missing[0]:+d} picture of {label} is missing ({where}); "
                f"{fetch_hint(self.dataset)}."
            )
        images = {
            ev: _read(read_image, path, f"EV {ev:+d} picture of {label}")
            for ev, path in sorted(self.frames.items())
        }
        radiance = None
        if self.radiance is not None:
            radiance = _read(read_hdr, self.radiance, f"radiance of {label}")
        return ExposureStack(self.dataset, self.scene, self.split, images, radiance)


def _read(read: Callable[[Path], np.ndarray], path: Path, what: str) -> np.ndarray:
    """Read a file; an error also tells what it is in its data set."""
    try:
        return read(path)
    except ReplicationError as error:
        raise ReplicationError(f"Cannot read the {what}: {error}") from error


def check_dataset(dataset: str) -> None:
    """Raise ReplicationError, which lists the known ones, if there is no such data set."""
    if dataset not in DATASETS:
        raise ReplicationError(f"Unknown data set {dataset!r}; there are {', '.join(DATASETS)}.")


def fetch_hint(dataset: str) -> str:
    """Name the command that fetches a data set, for error messages."""
    name = "openstacks" if dataset in ("hdrps", "empa") else dataset
    origin = " --from DIR" if name == "vds" else ""
    return f"run `python -m replication fetch {name}{origin}`"


def iter_stacks(
    dataset: str,
    split: str | None = None,
    scenes: Iterable[str] | None = None,
    root: str | Path | None = None,
) -> Iterator[ExposureStack]:
    """Yield the stacks of a data set one by one, so that only one is in memory.

    Parameters, order and errors as in `load_stacks`; a broken scene raises when its turn comes.
    """
    check_dataset(dataset)
    if split is not None and split not in SPLITS:
        raise ReplicationError(f"Unknown split {split!r}; there are {', '.join(SPLITS)}.")
    found = {scene.scene: scene for scene in _scenes(dataset, root) if split in (None, scene.split)}
    where = f"data set {dataset}" + (f", split {split}" if split else "")
    if scenes is not None:
        scenes = list(scenes)
        unknown = sorted(set(scenes) - set(found))
        if unknown:
            raise ReplicationError(f"There is no scene {unknown[0]!r} in the {where}.")
        found = {name: scene for name, scene in found.items() if name in scenes}
    if not found:
        raise ReplicationError(f"There are no scenes in the {where}.")
    for scene in found.values():
        yield scene.load()


def has_split(dataset: str, split: str, root: str | Path | None = None) -> bool:
    """Whether a data set has scenes in a split; parameters and errors as in `load_stacks`."""
    return any(scene.split == split for scene in _scenes(dataset, root))


def _scenes(dataset: str, root: str | Path | None) -> list[_Scene]:
    root = Path(root) if root is not None else data_root()
    return vds_scenes(root / "vds") if dataset == "vds" else _manifest_scenes(dataset, root)


def load_stacks(
    dataset: str,
    split: str | None = None,
    scenes: Iterable[str] | None = None,
    root: str | Path | None = None,
) -> list[ExposureStack]:
    """Read the stacks of a data set into memory (about 2 MB a scene).

    Parameters
    ----------
    dataset : {"mini", "openstacks", "hdrps", "empa", "vds"}
        "openstacks" is "hdrps" and "empa" together.
    split : {"train", "val", "test"}, optional
        One split; without it all of them.
    scenes : iterable of str, optional
        Only these scenes.
    root : path, optional
        Folder that holds the data sets (default: `replication.files.data_root`).

    Returns
    -------
    list of ExposureStack
        In the order of the manifest (for vds: by scene name, the train tree first), each with
        EV -3 ... +3.

    Raises
    ------
    ReplicationError
        If the data set is unknown or absent (says how to fetch it), or a scene has a missing or
        unreadable exposure, frames of different sizes or a broken radiance map (names scene, EV).
    """
    return list(iter_stacks(dataset, split, scenes, root))


def manifest(dataset: str) -> list[dict[str, str]]:
    """Rows of a data set's committed manifest, one a file, in the order of the manifest.

    Parameters
    ----------
    dataset : {"mini", "openstacks", "hdrps", "empa"}

    Returns
    -------
    list of dict
        At least: dataset, scene, split, ev ("-3" ... "3", or "radiance"), path (relative to the
        data set's folder) and pixel_sha256 (of RGB uint8, or float32 for "radiance", in C order).

    Raises
    ------
    ReplicationError
        If the data set has no manifest, or a manifest is missing or does not fit its other one.
    """
    if dataset == "mini":
        splits = {row["panorama"]: row["split"] for row in read_csv(MANIFESTS / "mini.csv")}
        rows = read_csv(MANIFESTS / "mini_frames.csv")
        try:
            return [{"dataset": "mini", "split": splits[row["panorama"]], **row} for row in rows]
        except KeyError as error:
            raise ReplicationError(
                f"mini_frames.csv has a panorama {error} unknown to mini.csv."
            ) from error
    if dataset not in ("openstacks", "hdrps", "empa"):
        raise ReplicationError(f"The data set {dataset!r} has no manifest.")
    rows = read_csv(MANIFESTS / "openstacks.csv")
    return [row for row in rows if dataset in ("openstacks", row["dataset"])]


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header line, as dictionaries of strings.

    Raises
    ------
    ReplicationError
        If the file is missing.
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise ReplicationError(f"Cannot read the manifest {path}: {error.strerror}.") from error


def _manifest_scenes(dataset: str, root: Path) -> list[_Scene]:
    """Scenes of mini or openstacks, as the manifest lists them."""
    folder = root / ("mini" if dataset == "mini" else "openstacks")
    if not folder.is_dir():
        raise ReplicationError(f"The data set {dataset} is not in {folder}: {fetch_hint(dataset)}.")
    found: dict[str, _Scene] = {}
    for row in manifest(dataset):
        scene, path = row["scene"], folder / row["path"]
        if row["ev"] == "radiance":
            found[scene] = replace(found[scene], radiance=path)
        else:
            entry = found.setdefault(scene, _Scene(row["dataset"], scene, row["split"], {}))
            entry.frames[int(row["ev"])] = path
    return list(found.values())


def vds_scenes(folder: str | Path) -> list[_Scene]:
    """List the scenes of the paper's own data set, the train tree first, without decoding them.

    Two layouts are in use, with EV written -3 ... 3:

    * ``{train,test}/set/tNN/tNN_{EV}EV_true.jpg.png``
    * ``{train,test}_set/tNN/tNN_{EV}EV_true.jpg.png``, ``{train,test}_hdr_set/tNN/target_hdr.hdr``

    A scene is called ``train-tNN`` or ``test-tNN``, since both trees count from t01. There is no
    validation tree: 30 % of the train tree (7 : 3, Section 4.4), picked by a hash of the scene
    name, is split "val". The authors' merged HDR is the radiance where the tree has it.

    Parameters
    ----------
    folder : path
        Holds ``train`` and ``test``, or ``train_set`` and ``test_set``.

    Raises
    ------
    ReplicationError
        If there is no such tree, or two pictures of a scene have the same EV.
    """
    folder, found = Path(folder), []
    for tree, pictures, maps in (
        ("train", "train/set", "train/hdr_set"),
        ("train", "train_set", "train_hdr_set"),
        ("test", "test/set", "test/hdr_set"),
        ("test", "test_set", "test_hdr_set"),
    ):
        names = sorted(path.name for path in (folder / pictures).glob("*") if path.is_dir())
        validation = _vds_validation(names) if tree == "train" else set()
        for name in names:
            frames = _frames_by_name((folder / pictures / name).iterdir())
            radiance = folder / maps / name / "target_hdr.hdr"
            split = "val" if name in validation else tree
            radiance = radiance if radiance.is_file() else None
            found.append(_Scene("vds", f"{tree}-{name}", split, frames, radiance))
    if not found:
        raise ReplicationError(
            f"The data set vds is not in {folder}: {fetch_hint('vds')} with a copy of the "
            "authors' train and test folders."
        )
    return found


def _vds_validation(names: list[str]) -> set[str]:
    """Pick the validation scenes of the train tree: those whose names hash lowest, for ever."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ranked[: round(VDS_VALIDATION_SHARE * len(names))])


def _ev_of_name(name: str) -> int | None:
    """EV written in a file name: ``ev-3.png``, ``t01_-3EV_true.jpg.png``; None if there is none."""
    match = _EV_IN_NAME.search(name)
    return int(match[1] or match[2]) if match else None


def _frames_by_name(paths: Iterable[Path]) -> dict[int, Path]:
    """Picture files by the EV that their names tell; others are left out."""
    pictures = sorted(path for path in paths if path.suffix.lower() in _PHOTO_SUFFIXES)
    frames: dict[int, Path] = {}
    for path in pictures:
        ev = _ev_of_name(path.name)
        if ev is not None and ev in frames:
            raise ReplicationError(f"{frames[ev]} and {path.name} are both named EV {ev:+d}.")
        if ev is not None:
            frames[ev] = path
    return frames


def read_folder(
    path: str | Path, scene: str | None = None, *, neighbours: int = 0
) -> ExposureStack:
    """Read a folder of bracketed photos of one static scene, at least two.

    The EVs come from EXIF (light recorded, `exposure.relative_ev`, rounded to whole stops), with
    EV 0 at the middle exposure (most even histogram). If any photo lacks EXIF, file names with
    EV (``ev-3.png``, ``x_-3EV.png``) are used as they are.

    Parameters
    ----------
    path : path
        Folder with JPEG, PNG, TIFF, WebP, BMP or PPM photos; other files are ignored.
    scene : str, optional
        Name of the stack (default: the folder's name).
    neighbours : int
        EV 0 must have this many frames on each side (see `exposure.middle_exposure`).

    Returns
    -------
    ExposureStack
        Data set "folder", split "", without radiance; its EVs may differ from -3 ... +3.

    Raises
    ------
    ReplicationError
        If there are fewer than two photos, one cannot be read, the sizes differ, or the exposures
        are unknown, repeated, not whole stops apart or not evenly spaced.

    Source: Section 4.4; Eq. 1 for the exposure.
    """
    path = Path(path)
    if not path.is_dir():
        raise ReplicationError(f"There is no folder {path}.")
    scene = scene or path.resolve().name
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in _PHOTO_SUFFIXES)
    if len(files) < 2:
        raise ReplicationError(f"A stack needs at least two photos; {path} has {len(files)}.")
    try:
        stops = [float(relative_ev(*exif_exposure(file))) for file in files]
    except ReplicationError as error:
        frames = _frames_by_name(files)
        if len(frames) < len(files):
            raise ReplicationError(
                f"The exposures of {path} are unknown: the photos need EXIF data (F-number, "
                f"exposure time, ISO) or names with EV such as ev-1.jpg. {error}"
            ) from error
        images = {ev: read_image(file) for ev, file in sorted(frames.items())}
        if 0 not in images:
            raise ReplicationError(f"No photo in {path} is named EV 0.") from error
    else:
        order = np.argsort(stops, kind="stable")
        pictures = [read_image(files[i]) for i in order]
        relative = np.array(stops)[order]
        relative = relative - relative[middle_exposure(pictures, neighbours=neighbours)]
        evs = np.rint(relative).astype(int).tolist()
        if np.abs(relative - evs).max() > 0.25:
            listed = ", ".join(f"{value:+.2f}" for value in relative)
            raise ReplicationError(
                f"The photos in {path} are not whole stops apart: EV {listed} by their EXIF data."
            )
        if len(set(evs)) < len(evs):
            ev = next(ev for ev in evs if evs.count(ev) > 1)
            raise ReplicationError(
                f"Two photos in {path} have the same exposure, EV {ev:+d}, by their EXIF data."
            )
        images = dict(zip(evs, pictures, strict=True))
    if len(set(np.diff(sorted(images)))) > 1:
        listed = ", ".join(f"{ev:+d}" for ev in sorted(images))
        raise ReplicationError(f"The exposures in {path} are not evenly spaced: EV {listed}.")
    return ExposureStack("folder", scene, "", images)


def dataset_hash(stacks: Iterable[ExposureStack]) -> str:
    """Fingerprint of stacks for provenance: names, splits, EVs, all pixels and radiance.

    The order of the stacks does not matter.

    Parameters
    ----------
    stacks : iterable of ExposureStack

    Returns
    -------
    str
        16 hex digits (the head of a SHA-256).
    """
    lines = []
    for stack in stacks:
        parts = [stack.dataset, stack.scene, stack.split]
        parts += [f"{ev} {sha256_array(stack.images[ev])}" for ev in stack.evs]
        if stack.radiance is not None:
            parts.append(sha256_array(stack.radiance))
        lines.append(" ".join(parts))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
