"""Whether the classes and labels of data are those of the model's heads."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from torch import nn

from ..apis.model import count_classes
from ..utils.wrappers import unwrap
from .findings import Finding, first
from .images import spread
from .part import Part

MOST_LOOKED_AT = 1000  # items of a data set whose labels are compared with the heads


def class_heads(model: nn.Module | None) -> dict[str, int]:
    """What tells the data's classes apart, by its key in the config, with its number of classes."""
    if model is None:
        return {}
    model = unwrap(model)
    modules = dict(model.named_modules())
    heads = {
        f'model.{name}': count
        for name, count in count_classes(model).items()
        # Others tell stuff from things, edges from the rest, or nothing apart.
        if not any(word in name for word in ('semantic', 'panoptic', 'fusion'))
        and not ('auxiliary' in name and count <= 2)
        and not getattr(modules[name], 'class_agnostic', False)
    }
    preprocessor = getattr(getattr(model, 'data_preprocessor', None), 'num_classes', None)
    if heads and preprocessor:  # mmpretrain mixes labels there
        heads['data_preprocessor'] = preprocessor
    return heads


def classes_of(dataset: object) -> Sequence[str] | None:
    """Names of the classes that a data set's objects or images have."""
    metainfo = getattr(dataset, 'metainfo', {})
    # Of panoptic data, detectors' heads tell the things apart; 'classes' are stuff as well.
    return metainfo.get('thing_classes', metainfo.get('classes'))


def check_names_are_listed(where: str, classes: object) -> Iterator[Finding]:
    """The classes are a list or tuple: of one name in brackets without a comma each letter would be a class."""
    if isinstance(classes, str):
        yield Finding('error', where, f'classes is a text: write classes=({classes!r},), with a comma')


def check_class_count(
    where: str, classes: Sequence[str] | None, model: nn.Module | None, in_file: Sequence[str] = ()
) -> Iterator[Finding]:
    """The heads tell as many classes apart as there are.

    Args:
        in_file: Those of the classes that the annotation file has, where that is known.
    """
    if not classes or isinstance(classes, str):
        return
    for key, count in class_heads(model).items():
        if count != len(classes):
            # Where the file has as many as the head, the config lists classes of other data.
            is_of_file = 0 < len(in_file) == count
            remedy = f'write {metainfo(in_file)} in the data sets' if is_of_file else f'set it to {len(classes)}'
            number = '1 class' if len(classes) == 1 else f'{len(classes)} classes'
            text = f'the data have {number} ({first(list(classes))}), but {key}.num_classes is {count}: {remedy}'
            yield Finding('warning', where, text)


def metainfo(names: Sequence[str]) -> str:
    """How a config lists classes; of many, the first."""
    listed = ', '.join(map(repr, names[:10])) + (', ...' if len(names) > 10 else ',' if len(names) == 1 else '')
    return f'metainfo=dict(classes=({listed}))'


def check_softmax(model: nn.Module | None) -> Iterator[Finding]:
    """No head has one class and a softmax over it, which is 1 whatever it is given: the loss is 0 from the start.

    mmdet's heads add one for the background.
    """
    if model is None:
        return
    model = unwrap(model)
    modules = dict(model.named_modules())
    for name in count_classes(model):
        head = modules[name]
        losses = getattr(head, 'loss_decode', None) or getattr(head, 'loss_module', None)
        losses = list(losses) if isinstance(losses, nn.ModuleList) else [losses]
        outputs = getattr(head, 'out_channels', None) or head.num_classes
        if outputs == 1 and any(_is_softmax(loss) for loss in losses):
            text = (
                f'model.{name} has one output, over which softmax is always 1 and the loss 0: set its num_classes to '
                '2, for background and object (labels 0 and 1), or use_sigmoid=True in its loss'
            )
            yield Finding('error', f'model.{name}', text)


def _is_softmax(loss: nn.Module | None) -> bool:
    return type(loss).__name__ in ('CrossEntropyLoss', 'LabelSmoothLoss') and not (
        getattr(loss, 'use_sigmoid', False) or getattr(loss, 'mode', '') == 'multi_label'
    )


def check_labels(
    where: str, labels: Iterable[int], classes: Sequence[str] | None, model: nn.Module | None
) -> Iterator[Finding]:
    """No label is beyond the classes of a head: it is an error or, in mmdet, would count as background."""
    labels = set(labels)
    if not labels:
        return
    names = f' ({first(list(classes))})' if classes and not isinstance(classes, str) else ''
    if min(labels) < 0:
        yield Finding('error', where, f'the data have label {min(labels)}: count the classes from 0')
    for key, count in class_heads(model).items():
        if max(labels) >= count:
            text = (
                f'the data have label {max(labels)}, but {key}.num_classes is {count}: set it to the number of classes '
                f'of the data{names}, counting from 0'
            )
            yield Finding('error', where, text)


def labels_of(dataset: BaseDataset) -> set[int]:
    """The labels of a sample of a loaded data set's items; label maps are not read."""
    labels: set[int] = set()
    for i in spread(range(len(dataset)), MOST_LOOKED_AT):
        info = dataset.get_data_info(i)
        found = [instance.get('bbox_label') for instance in info.get('instances') or []]
        found += np.ravel(info.get('gt_label', [])).tolist()
        labels.update(int(label) for label in found if isinstance(label, (int, np.integer)))
    return labels


def check_same_labels(those: Sequence[Part]) -> Iterator[Finding]:
    """A label is the same category in all files, which ``check_categories`` has gone through before."""
    those = [part for part in those if part.notes.get('labels')]
    for part in those[1:]:
        expected, found = those[0].notes['labels'], part.notes['labels']
        i = next((i for i, (a, b) in enumerate(zip(expected, found)) if a != b), None)
        if i is not None:
            text = (
                f'label {i} is {found[i]} in {part.dataset.ann_file}, but {expected[i]} in '
                f'{those[0].dataset.ann_file}: put the categories of both files in one order'
            )
            yield Finding('error', part.where, text)
