"""Keypoints."""

from collections import defaultdict
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from ...utils.errors import UserError
from .common import Analysis, Judged


def analyze_keypoints(cfg: Config, dataset: Any, results: list[dict]) -> Analysis:
    """Compare predicted keypoints with the labelled ones, by COCO's object keypoint similarity (OKS).

    Each labelled person has the prediction of the greatest OKS, among those of its sample or, where a
    detector's boxes were tested, of its image.

    Raises:
        UserError: If the data set has no sigmas, without which there is no OKS.
    """
    meta = dataset.metainfo
    sigmas = np.asarray(meta.get('sigmas', ()), float)
    if not len(sigmas):
        raise UserError('the data set has no sigmas, without which keypoints cannot be compared by OKS')
    ground_truth, by_image = dataset, None
    if getattr(dataset, 'bbox_file', None):  # then the samples are a detector's boxes, which have no labels
        ground_truth = DATASETS.build({**cfg.test_dataloader.dataset, 'bbox_file': None})
        by_image = defaultdict(list)
        for result in results:
            by_image[result['img_id']].append(result)
    similar, errors, images = [], [], []
    for i in range(len(ground_truth)):
        info = ground_truth.get_data_info(i)
        of_sample = []
        for person in _people(info):
            candidates = [results[i]] if by_image is None else by_image[info['img_id']]
            oks, similarity, error, best = _best(*person, candidates, sigmas)
            similar.append(similarity)
            errors.append(error)
            of_sample.append((oks, best))
        if of_sample:
            mean = float(np.mean([oks for oks, _ in of_sample]))
            images.append(Judged(i, info['img_path'], mean, f'OKS {mean:.2f}', of_sample[0][1]))
    if not images:
        raise UserError('the test set has no labelled keypoints')
    images.sort(key=lambda image: image.score)
    rows = _rows(np.stack(similar), np.stack(errors), [meta['keypoint_id2name'][k] for k in range(len(sigmas))])
    people = f'{len(similar):,} people'
    return Analysis(ground_truth, 'keypoint', rows, 'similarity', 'OKS', images, people)


def _people(info: dict) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Keypoints (K, 2) in pixels, whether they are labelled (K,), and area of a sample's people with labels."""
    if info.get('keypoints') is None:
        return []
    areas = np.atleast_1d(np.asarray(info['area'], float))
    people = zip(np.asarray(info['keypoints'], float), np.asarray(info['keypoints_visible']) > 0, areas)
    return [(points, labelled, area) for points, labelled, area in people if labelled.any()]


def _best(
    points: np.ndarray, labelled: np.ndarray, area: float, candidates: list[dict], sigmas: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, dict | None]:
    """The prediction with the greatest OKS for a person.

    Returns:
        OKS; similarity and error in pixels of each keypoint (K,), NaN where it is not labelled or nothing
        was predicted; the candidate.
    """
    best: tuple[float, np.ndarray, np.ndarray, dict | None] | None = None
    for candidate in candidates:
        for predicted in np.asarray(candidate['pred_instances']['keypoints'], float).reshape(-1, *points.shape):
            distance = np.where(labelled, np.linalg.norm(predicted - points, axis=1), np.nan)
            similarity = np.exp(-(distance**2) / (2 * (2 * sigmas) ** 2 * (area + np.spacing(1))))
            oks = float(np.nanmean(similarity))
            if best is None or oks > best[0]:
                best = oks, similarity, distance, candidate
    return best or (0.0, np.where(labelled, 0.0, np.nan), np.full(len(points), np.nan), None)


def _rows(similar: np.ndarray, errors: np.ndarray, names: list[str]) -> list[dict]:
    rows = []
    for k, name in enumerate(names):
        known = similar[:, k][np.isfinite(similar[:, k])]
        error = errors[:, k][np.isfinite(errors[:, k])]
        rows.append(
            {
                'keypoint': name,
                'labelled': len(known),
                'similarity': float(known.mean()) if len(known) else None,
                'within 0.5': float((known >= 0.5).mean()) if len(known) else None,
                'median error (px)': float(np.median(error)) if len(error) else None,
            }
        )
    return rows
