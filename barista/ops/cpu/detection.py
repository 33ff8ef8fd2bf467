"""Detections from predictions of boxes and confidences (Liu et al. 2016, SSD)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...errors import DataError
from ..base import Detection, DetectionRule

Array = npt.NDArray[Any]

# Boxes whose overlaps with all others are computed at once.
BLOCK = 128


class CpuDetection(Detection):
    """Candidates of each image and class by score, then suppression of those that overlap better ones."""

    space = HOST

    def __init__(self, images: int, priors: int, rule: DetectionRule, dtype: np.dtype[Any]) -> None:
        self._images, self._priors = images, priors
        self._rule = rule
        self._dtype = dtype
        self._least = -np.finfo(np.float32).max if rule.least_score is None else rule.least_score

    def find(self, locations: Tensor, confidences: Tensor, priors: Tensor) -> Array:
        rule = self._rule
        targets = locations.read(HOST).reshape(self._images, self._priors, rule.boxes, 4)
        scores = confidences.read(HOST).reshape(self._images, self._priors, rule.classes)
        corners, variances = priors.read(HOST).reshape(-1)[:self._priors * 8].reshape(2, self._priors, 4)
        if rule.code != "CORNER":
            self._check(corners)
        found = []
        for image in range(self._images):
            by_class = np.ascontiguousarray(scores[image].T)
            rows = []
            for label in range(rule.classes):
                if label != rule.background:
                    chosen = self._candidates(by_class[label])
                    boxes = decode(targets[image, chosen, 0 if rule.shared else label], corners[chosen],
                                   variances[chosen], rule.code, rule.variance_in_target)
                    kept = suppress(boxes, rule.most_overlap, rule.eta)
                    rows.append(self._rows(image, label, by_class[label][chosen[kept]], boxes[kept]))
            found.append(self._best(rows))
        result = np.concatenate(found) if found else np.empty((0, 7), self._dtype)
        if not len(result):
            result = np.full((self._images, 7), -1, self._dtype)
            result[:, 0] = np.arange(self._images)
        return result

    def _check(self, corners: Array) -> None:
        """Sizes relative to a prior need one that has a size."""
        wrong = np.flatnonzero(~(corners[:, 2:] > corners[:, :2]).all(axis=1))
        if len(wrong):
            raise DataError(f"prior {wrong[0]} has the corners {corners[wrong[0]].tolist()}; with code_type "
                            f"{self._rule.code} xmax must be greater than xmin and ymax than ymin")

    def _candidates(self, scores: Array) -> npt.NDArray[np.intp]:
        """Places of the scores that count, by falling score, of equal ones the first ahead."""
        places = np.flatnonzero(scores > self._least)
        values, most = scores[places], self._rule.most_of_class
        if most and most < len(places):  # sort only what may stay
            places = places[values >= np.partition(values, -most)[-most]]
            values = scores[places]
        return places[np.argsort(-values, kind="stable")][:most]

    def _rows(self, image: int, label: int, scores: Array, boxes: Array) -> Array:
        rows = np.empty((len(scores), 7), self._dtype)
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3:] = image, label, scores, boxes
        return rows

    def _best(self, rows: list[Array]) -> Array:
        """The rows of an image, or the best of them in the same order."""
        together = np.concatenate(rows) if rows else np.empty((0, 7), self._dtype)
        most = self._rule.most_of_image
        if most is None or len(together) <= most:
            return together
        return together[np.sort(np.argsort(-together[:, 2], kind="stable")[:most])]


def decode(targets: Array, corners: Array, variances: Array, code: str, variance_in_target: bool) -> Array:
    """Corners of boxes (n, 4) from what was predicted relative to priors.

    Parameters
    ----------
    targets, corners, variances : (n, 4) each
    code : CORNER, distances of corners; CORNER_SIZE, these in sizes of the prior; CENTER_SIZE, distance of the centres
        in sizes of the prior and logarithm of the factor on its size
    variance_in_target : whether the targets are in units of the image already, not of the variances
    """
    scaled = targets if variance_in_target else variances * targets
    if code == "CORNER":
        result: Array = corners + scaled
        return result
    size = corners[:, 2:] - corners[:, :2]
    if code == "CORNER_SIZE":
        result = corners + scaled * np.concatenate([size, size], axis=1)
        return result
    with np.errstate(over="ignore", invalid="ignore"):
        center = scaled[:, :2] * size + (corners[:, :2] + corners[:, 2:]) / 2
        half = np.exp(scaled[:, 2:]) * size / 2
        return np.concatenate([center - half, center + half], axis=1)


def suppress(boxes: Array, most_overlap: float, eta: float) -> list[int]:
    """Places of the boxes that overlap no better one that stays by more than allowed; `boxes` (n, 4), best first.

    After each that stays what is allowed shrinks by `eta` while it is above a half.  It only ever shrinks, so that
    a box that once overlaps too much is out for good.
    """
    allowed = np.float32(most_overlap)
    kept: list[int] = []
    places = np.arange(len(boxes))
    worst = np.zeros(len(boxes), boxes.dtype)
    while len(places):
        head = places[:BLOCK]
        overlaps = overlap(boxes[head], boxes[places])
        for row, place in enumerate(head.tolist()):
            if worst[row] <= allowed:
                kept.append(place)
                np.maximum(worst, overlaps[row], out=worst)
                if eta < 1 and allowed > 0.5:
                    allowed *= np.float32(eta)
        stays = worst[len(head):] <= allowed
        places, worst = places[len(head):][stays], worst[len(head):][stays]
    return kept


def overlap(some: Array, others: Array) -> Array:
    """Areas that boxes (m, 4) and (n, 4) share, divided by what both cover together (Jaccard): (m, n)."""
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = some.T[:, :, np.newaxis], np.ascontiguousarray(others.T)[:, np.newaxis, :]
        width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
        height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
        shared = width * height
        covered = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
        return np.divide(shared, covered, out=np.zeros_like(shared), where=(width > 0) & (height > 0))
