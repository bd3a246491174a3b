"""A data set for mmpretrain whose images are made by formulas when they are asked for."""

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from projects.formula_pretraining.formulas import FAMILIES, make_image
from scopevit.utils.errors import UserError

SIZES = (16, 256)  # least and most, in pixels


@DATASETS.register_module()  # of MMEngine's registry, so that configs of every toolbox find it by its name
class FormulaImages(BaseDataset):
    """Classes of formulas: ``img`` (size, size, 3) in uint8 and ``gt_label``, as after loading an image.

    Item i is of class i modulo ``num_classes``, so that a part of the data has all classes. Images follow from
    ``seed``, class and index of the instance; nothing is stored but the parameters of classes that were asked for.

    Args:
        num_classes: How many classes; they take the families in turn.
        instances: How many images each class has.
        first: Index of a class's first instance. Data sets of one seed share images only where their indices overlap.
        families: Names of the kinds of formulas.
        size: Side of the images in pixels.
        seed: Of the classes and instances; another one gives other classes.
        kwargs: As MMEngine's ``BaseDataset``: ``pipeline``, ``indices``, ``test_mode``, ``metainfo``.

    Raises:
        UserError: If there are no classes, instances or families, a family is unknown, or the size is out of range.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        instances: int = 200,
        first: int = 0,
        families: Sequence[str] = tuple(FAMILIES),
        size: int = 32,
        seed: int = 0,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        unknown = [name for name in families if name not in FAMILIES]
        if unknown or not families:
            raise UserError(f'families are {", ".join(FAMILIES)}, but got {", ".join(map(str, families)) or "none"}')
        if num_classes < 1 or instances < 1 or first < 0 or seed < 0:
            raise UserError(
                'FormulaImages takes num_classes and instances of at least 1, first and seed of at least 0, but got '
                f'{num_classes}, {instances}, {first} and {seed}'
            )
        if not SIZES[0] <= size <= SIZES[1]:
            raise UserError(f'size of FormulaImages is from {SIZES[0]} to {SIZES[1]} pixels, but is {size}')
        self.num_classes, self.instances, self.first = num_classes, instances, first
        self.families, self.size, self.seed = tuple(families), size, seed
        names = tuple(' '.join(map(str, self.formula(label))) for label in range(num_classes))
        metainfo = {'classes': names, **(metainfo or {})}
        super().__init__(metainfo=metainfo, serialize_data=False, **kwargs)

    def formula(self, label: int) -> tuple[str, int]:
        """Family of a class, and its number there."""
        number, family = divmod(label, len(self.families))
        return self.families[family], number

    def load_data_list(self) -> Sequence[int]:
        """The numbers of all items; there is nothing else to know about them."""
        return range(self.num_classes * self.instances)

    def get_data_info(self, idx: int) -> dict:
        """An item, whose image is made now."""
        if not self._fully_initialized:
            self.full_init()
        item = self.data_list[idx]
        index, label = divmod(item, self.num_classes)
        image = make_image(*self.formula(label), self.first + index, self.size, self.seed)
        shape = image.shape[:2]
        return dict(
            img=image,
            img_shape=shape,
            ori_shape=shape,
            gt_label=label,
            sample_idx=idx % len(self),
        )
