"""Running the tools as a user does, and small data for them."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'classification'
TOY = ROOT / 'tests' / 'data' / 'toy_classifier.py'


def tool(name, *words, cwd=None, timeout=300, env=None, check=True):
    """Run a Python tool or shell script of tools/ to its end; returns the finished process."""
    path = ROOT / 'tools' / name
    command = ['bash', path] if path.suffix == '.sh' else [sys.executable, path]
    environment = {**os.environ, 'PYTHON': sys.executable, **(env or {})}
    result = subprocess.run(
        [str(word) for word in [*command, *words]],
        cwd=cwd or ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    if check and result.returncode:
        raise AssertionError(
            f'{name} ended with {result.returncode}:\n{result.stdout[-3000:]}\n{result.stderr[-5000:]}'
        )
    return result


def fails_cleanly(result, *says):
    """A failure that tells what to do: a status, one message with these words, no traceback."""
    assert result.returncode != 0
    assert 'Traceback' not in result.stderr, result.stderr[-3000:]
    assert result.stderr.count('error: ') == 1, result.stderr[-3000:]
    for words in says:
        assert words in result.stderr, result.stderr[-3000:]


def write_image(path, seed=0, size=(40, 48)):
    """A small picture of coloured noise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(small, size[::-1]))
    return path


def image_folders(root, classes=3, train=4, val=2):
    """One's own images as mmpretrain's CustomDataset reads them: root/{train,val}/<class>/*.jpg."""
    for c in range(classes):
        for split, count in (('train', train), ('val', val)):
            for i in range(count):
                write_image(root / split / f'class_{c}' / f'{i}.jpg', seed=100 * c + i)
    return root


def imagenet_folders(root):
    """ImageNet's layout: 1,000 class folders in train and val, one (shared) picture in each."""
    picture = write_image(root / 'picture.jpeg', size=(300, 280))
    for split in ('train', 'val'):
        for c in range(1000):
            folder = root / split / f'n{c:08d}'
            folder.mkdir(parents=True)
            os.link(picture, folder / f'{split}_{c}.JPEG')
    return root
