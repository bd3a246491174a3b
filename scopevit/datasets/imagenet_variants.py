"""Test sets of ImageNet's classes: ImageNetV2, ImageNet-A, -R, -Sketch and -C.

Which class a folder is, and which 200 of the 1,000 classes ImageNet-A and -R have, is read from lists that timm ships.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

import mmpretrain.datasets as mmpretrain

from ..registry import DATASETS
from ..utils.errors import UserError

SUBSETS = {'a': 'imagenet_a_synsets.txt', 'r': 'imagenet_r_synsets.txt'}


def synsets(name: str = 'imagenet_synsets.txt') -> list[str]:
    """A list of classes by their WordNet ids, ``n01440764``; those of ImageNet in the order of their labels.

    Raises:
        UserError: If timm is not installed.
    """
    timm = importlib.util.find_spec('timm')  # its lists alone: importing it takes seconds
    if timm is None or timm.origin is None:
        raise UserError("the labels of ImageNet's variants are read from lists of timm: pip install timm")
    return (Path(timm.origin).parent / 'data' / '_info' / name).read_text().split()


@DATASETS.register_module()
class ImageNetVariant(mmpretrain.CustomDataset):
    """A folder of images for each class, with ImageNet's labels: by WordNet ids, or by 0 to 999 as in ImageNetV2.

    Args:
        subset: 'a' or 'r' for the 200 classes of ImageNet-A or -R; None: all 1,000. ``metainfo['subset']`` has their
            labels.
        kwargs: As mmpretrain's ``CustomDataset``.

    Raises:
        UserError: If the folders are others than these classes', or timm is not installed.
    """

    METAINFO = mmpretrain.ImageNet.METAINFO

    def __init__(self, subset: str | None = None, **kwargs: Any) -> None:
        if subset is not None and subset not in SUBSETS:
            raise UserError(f'subset of an ImageNetVariant is {" or ".join(SUBSETS)}, but is {subset!r}')
        labels = {synset: label for label, synset in enumerate(synsets())}
        self.labels = {synset: labels[synset] for synset in synsets(SUBSETS[subset])} if subset else labels
        metainfo = dict(kwargs.pop('metainfo', None) or {})
        if subset:
            metainfo['subset'] = tuple(self.labels.values())
        super().__init__(metainfo=metainfo, **kwargs)

    def _find_samples(self) -> list[tuple[str, int]]:
        root = self.img_prefix
        if not os.path.isdir(root):
            raise FileNotFoundError(2, 'No such file or directory', root)
        folders = {entry.name for entry in os.scandir(root) if entry.is_dir()}
        numbered = {str(label): label for label in range(1000)}
        # Sorted as texts, 10 would come before 2: these names are labels, not an order.
        self.folder_to_idx = numbered if len(self.labels) == 1000 and folders & set(numbered) else self.labels
        differing = sorted(folders ^ set(self.folder_to_idx))
        if differing:
            raise UserError(
                f'{root} has {len(folders)} folders, which are not those of the {len(self.folder_to_idx)} classes '
                f'({", ".join(differing[:3])} only in one of them): unpack it again, with nothing else beside them'
            )
        samples, _ = mmpretrain.custom.get_samples(root, self.folder_to_idx, is_valid_file=self.is_valid_file)
        return samples
