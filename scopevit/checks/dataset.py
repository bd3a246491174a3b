"""All checks of the data of a config: paths, counts, classes, annotations, and a sample of files."""

import os
from collections.abc import Iterator

from mmengine.config import Config

from ..apis.model import build_model
from ..utils.errors import UserError
from .classes import check_same_labels, check_softmax
from .classification import check_same_folders
from .findings import Finding
from .loaders import check_settings
from .loading import check_loading
from .part import Part
from .paths import check_evaluator_files, exists, paths_of
from .rules import check_part, parts_of

SPLITS = ('train', 'val', 'test')


def check_dataset(cfg: Config, sample: int = 50, seed: int = 0) -> Iterator[Finding]:
    """Check the data of all splits against each other, the model and themselves; nothing is changed or downloaded.

    Args:
        sample: How many images of each split are opened.
        seed: Which ones.

    Raises:
        UserError: If the config has no data.
    """
    splits = {split: (cfg.get(f'{split}_dataloader') or {}).get('dataset') for split in SPLITS}
    splits = {split: settings for split, settings in splits.items() if settings is not None}
    if not splits:
        raise UserError('this config has no data: no train_dataloader, val_dataloader or test_dataloader')
    # A config whose model cannot be built still has data to check.
    model = None
    try:
        model = build_model(cfg)
    except UserError as error:
        yield Finding('error', 'model', f'{error}; correct the config')
    if 'train' in splits:
        yield from check_softmax(model)
    those: list[Part] = []
    for i, (split, settings) in enumerate(splits.items()):
        # Validation and test are often the same files, which would be read and reported twice.
        same = next((other for other in list(splits)[:i] if splits[other] == settings), None)
        if same:
            yield Finding('info', split, f'the same data as {same}')
            continue
        # Rules come before loading: they name the remedy, where loading ends in an exception of a toolbox.
        problems = 0
        for finding in check_settings(cfg, split):
            problems += 1
            yield finding
        for part in parts_of(cfg, split, model, sample=sample, seed=seed):
            if isinstance(part, Part):
                those.append(part)
            for finding in [part] if isinstance(part, Finding) else check_part(part):
                problems += finding.is_problem
                yield finding
        if problems:
            text = f'{problems} to correct, see the end; not loaded as in training before that'
            yield Finding('info', split, text)
        else:
            yield from check_loading(Part(split, '', None, model, sample, seed), cfg)
    yield from check_across(cfg, those)


def check_across(cfg: Config, those: list[Part]) -> Iterator[Finding]:
    """What splits have to do with each other and with the metrics, and where all files belong if one is missing."""
    yield from check_same_folders(those)
    yield from check_same_labels(those)
    paths = {path for part in those for path in paths_of(part.dataset)}
    yield from check_evaluator_files(cfg, paths)
    if not all(map(exists, paths)):
        tree = '\n'.join(f'  {path}' + ('' if exists(path) else '  (missing)') for path in sorted(paths))
        yield Finding('info', 'files', f'this config expects, seen from {os.getcwd()}:\n{tree}')
