"""Fashion-MNIST with few images of each class, in three channels."""

from typing import Any

import mmpretrain.datasets as mmpretrain
import numpy as np
from mmengine.registry import DATASETS

from scopevit.utils.errors import UserError


@DATASETS.register_module()
class FewFashionMNIST(mmpretrain.FashionMNIST):
    """So many images of each class, in three equal channels for a backbone that has learnt from colours.

    Args:
        per_class: Images of a class.
        fold: Which of them: the first ``per_class``, the next, and so on; after the last whole fold it begins again.
        kwargs: As mmpretrain's ``FashionMNIST``.

    Raises:
        UserError: If a class has fewer images.
    """

    def __init__(self, per_class: int, fold: int = 0, **kwargs: Any) -> None:
        self.per_class, self.fold = per_class, fold
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """The chosen images (H, W, 3) and labels, in the order of the file."""
        items = super().load_data_list()
        labels = np.array([int(item['gt_label']) for item in items])
        chosen: list[int] = []
        for label in range(len(self.METAINFO['classes'])):
            those = np.flatnonzero(labels == label)
            folds = len(those) // self.per_class
            if not folds:
                raise UserError(f'per_class of FewFashionMNIST is {self.per_class}, but class {label} has {len(those)}')
            start = self.fold % folds * self.per_class
            chosen += those[start : start + self.per_class].tolist()
        return [dict(items[i], img=np.repeat(items[i]['img'][..., None], 3, axis=2)) for i in sorted(chosen)]
