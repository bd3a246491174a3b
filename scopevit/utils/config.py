"""Configs of the toolboxes and of this package: loading them, overriding their settings, walking through them."""

import argparse
import copy
import difflib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from .errors import UserError
from .shipped import shipped
from .toolboxes import TOOLBOXES


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, which every tool that takes a config has."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for example train_dataloader.batch_size=64 or model.backbone.arch=small',
    )


def load_config(name: str, cfg_options: dict | None = None) -> Config:
    """Load a config file, or one of an installed toolbox or of this package (``mmdet::retinanet/...``).

    Raises:
        UserError: If there is no such config, or an override does not fit it.
    """
    given, (scope, _, path) = name, name.partition('::')
    if scope == 'scopevit':
        name = str(shipped('configs') / path)
    if '::' in name:
        _check_toolbox(name, scope)
    elif not os.path.isfile(name):
        raise UserError(f'config {given} does not exist{_suggestion(given)}')
    try:
        if '::' in name:
            cfg = Config.fromstring(f'_base_ = {name!r}', '.py')
            # Under its own name the config is saved beside the results.
            cfg = Config(cfg._cfg_dict, cfg_text=cfg.text, filename=os.path.basename(name))
        else:
            cfg = Config.fromfile(name)
    except Exception as error:  # a config is a program: whatever it raises, it is the config's
        raise UserError(f'config {name} cannot be loaded: {type(error).__name__}: {error}') from error
    if cfg_options:
        try:
            cfg.merge_from_dict(cfg_options)
        except (KeyError, TypeError, AssertionError) as error:
            raise UserError(f'--cfg-options does not fit config {name}: {error}') from error
    return cfg


def _check_toolbox(name: str, scope: str) -> None:
    """Make sure that the toolbox of a config's name is one, is installed, and has the config."""
    if scope not in TOOLBOXES:
        raise UserError(f'config {name}: {scope} is none of scopevit, {", ".join(TOOLBOXES)}')
    spec = importlib.util.find_spec(scope)
    if spec is None:
        install = 'scopevit install-mmpose' if scope == 'mmpose' else f'pip install {TOOLBOXES[scope]}'
        raise UserError(f'config {name}: {scope} is not installed: {install}')
    folder = Path(spec.origin).parent / '.mim' / 'configs'
    path = name.partition('::')[2]
    if folder.is_dir() and not (folder / path).is_file():
        known = {file.name: file.relative_to(folder).as_posix() for file in folder.rglob('*.py')}
        close = difflib.get_close_matches(os.path.basename(path), known, n=3)
        hint = f'; did you mean {" or ".join(f"{scope}::{known[c]}" for c in close)}?' if close else ''
        raise UserError(f'config {name} does not exist{hint}')


def _suggestion(name: str) -> str:
    here, folder = Path('configs'), shipped('configs')
    known = {path.name: str(path) for path in here.rglob('*.py')} or {
        path.name: f'scopevit::{path.relative_to(folder).as_posix()}' for path in folder.rglob('*.py')
    }
    close = difflib.get_close_matches(os.path.basename(name), known, n=3, cutoff=0.4)
    return f'; did you mean {" or ".join(known[c] for c in close)}?' if close else '; check the path'


def walk(node: object) -> Iterator[dict]:
    """Every dict of nested settings."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from walk(item)


def as_list(value: object) -> list:
    """The items of a setting that may be one, several or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def first_value(node: object, key: str) -> Any:
    """The first value of a key in nested settings that is not None; None if there is none."""
    return next((found[key] for found in walk(node) if found.get(key) is not None), None)


def without_weights(node: Any) -> Any:
    """A copy of nested settings that loads no pretrained weights when it is built or initialised."""
    node = copy.deepcopy(node)
    forget_pretrained(node)
    return node


def innermost(dataset: dict) -> dict:
    """A data set's settings, without those that wrap it or join it to others."""
    while 'type' not in dataset or 'pipeline' not in dataset:
        if dataset.get('dataset'):
            dataset = dataset['dataset']
        elif dataset.get('datasets'):
            dataset = dataset['datasets'][0]
        else:
            break
    return dataset


def forget_pretrained(node: object) -> None:
    """Keep a model's parts from loading weights when they are built or initialised."""
    if isinstance(node, (list, tuple)):
        for item in node:
            forget_pretrained(item)
    elif isinstance(node, dict):
        for key in ('pretrained', 'teacher_ckpt'):
            if node.get(key) and not isinstance(node[key], dict):
                node[key] = False if node[key] is True else None
        init_cfg = node.get('init_cfg')
        if is_checkpoint(init_cfg):
            node['init_cfg'] = None
        elif isinstance(init_cfg, (list, tuple)):
            node['init_cfg'] = [item for item in init_cfg if not is_checkpoint(item)] or None
        for item in node.values():
            forget_pretrained(item)


def is_checkpoint(init_cfg: object) -> bool:
    """Whether an ``init_cfg`` loads weights."""
    return isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
