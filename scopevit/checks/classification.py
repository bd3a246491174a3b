"""Rules for labelled images, which mmpretrain reads from class folders or a list."""

import os
from collections.abc import Iterator, Sequence

from ..utils.errors import one_line
from .classes import check_class_count, check_labels
from .findings import Finding, faulty, first
from .images import check_files, check_passed_over
from .part import Part, is_a
from .paths import check_image_count, exists, source_of


def check_class_folders(part: Part) -> Iterator[Finding]:
    """A folder for each class of the model, with images in it."""
    where, dataset, root = part.where, part.dataset, part.dataset.img_prefix
    if not dataset.with_label:
        return
    folders = class_folders(part)
    hidden = list(check_hidden(part, folders))
    if hidden:  # the numbers that follow would be wrong
        yield from hidden
        return
    if type(dataset).__name__ == 'ImageNet' and len(folders) != 1000:
        source = source_of('ImageNet', root)
        remedy = f'unpack {source}' if source else 'unpack it again'
        yield part.error(f'{root} has {len(folders)} class folders, ImageNet has 1,000: {remedy}')
        return
    if not folders:
        yield part.error(f'{root} has no class folders: put the images of each class into one')
        return
    yield from check_class_count(where, dataset.CLASSES or folders, part.model)
    extensions = tuple(dataset.extensions)
    images = {
        folder: [
            os.path.join(parent, file)
            for parent, _, files in os.walk(os.path.join(root, folder), followlinks=True)
            for file in sorted(files)
            if file.lower().endswith(extensions) and not file.startswith('.')
        ]
        for folder in folders
    }
    yield from check_image_count(where, type(dataset).__name__, root, sum(map(len, images.values())))
    empty = [folder for folder, files in images.items() if not files]
    yield from faulty(where, empty, len(folders), f'class folders of {root} are empty', 'fill them', is_fatal=True)
    yield from check_suffixes(part)
    yield from check_files(part, [dict(img_path=path) for files in images.values() for path in files])


def check_hidden(part: Part, folders: Sequence[str]) -> Iterator[Finding]:
    """No folder that a program left there counts as a class."""
    hidden = [folder for folder in folders if folder.startswith('.')]
    if hidden:
        text = f'{part.dataset.img_prefix} has the hidden folders {first(hidden)}, which would be classes: remove them'
        yield part.error(text)


def check_suffixes(part: Part) -> Iterator[Finding]:
    """All images of the class folders are used, whatever their suffix."""
    extensions = tuple(part.dataset.extensions)
    remedy = f'extensions of the data set are {" ".join(sorted(extensions))}; convert them, or add theirs'
    yield from check_passed_over(part, part.dataset.img_prefix, lambda path: path.lower().endswith(extensions), remedy)


def class_folders(part: Part) -> list[str]:
    """The class folders of a data set whose labels are their order."""
    return sorted(entry.name for entry in os.scandir(part.dataset.img_prefix) if entry.is_dir())


def check_same_folders(those: Sequence[Part]) -> Iterator[Finding]:
    """All splits have the same class folders: labels follow their order."""
    those = [part for part in those if is_of_folders(part)]
    for i, part in enumerate(those):
        for other in those[:i]:
            differing = set(class_folders(part)) ^ set(class_folders(other))
            only = sorted(folder for folder in differing if not folder.startswith('.'))  # hidden ones are told
            if only:
                yield part.warning(
                    f'the class folders are not those of {other.where} ({first(only)} only in one of them), so the '
                    'labels would not agree: make the folders the same'
                )
                break


def is_of_folders(part: Part) -> bool:
    """Whether a data set's labels are the order of its class folders."""
    is_custom = is_a(part.dataset, 'CustomDataset', 'load_data_list')
    return (
        is_custom and not part.dataset.ann_file and part.dataset.with_label and os.path.isdir(part.dataset.img_prefix)
    )


def check_list(part: Part) -> Iterator[Finding]:
    """A list of images and their labels; mmpretrain takes ImageNet's ``meta/train.txt`` by itself."""
    where, dataset, path = part.where, part.dataset, part.dataset.ann_file
    try:
        items = dataset.load_data_list()
    except ValueError as error:
        yield part.error(f'a line of {path} is not "image label" ({one_line(error)}): correct the list')
        return
    yield from check_image_count(where, type(dataset).__name__, dataset.img_prefix, len(items))
    missing = {item['img_path']: None for item in items if not exists(item['img_path'])}
    remedy = 'unpack them again, or remove them from the list'
    yield from faulty(where, list(missing), len(items), f'images in {path} do not exist', remedy, is_fatal=True)
    yield from check_files(part, [item for item in items if item['img_path'] not in missing])
    yield from check_class_count(where, dataset.CLASSES, part.model)
    labels = {item['gt_label'] for item in items if isinstance(item.get('gt_label'), int)}
    yield from check_labels(where, labels, dataset.CLASSES, part.model)
