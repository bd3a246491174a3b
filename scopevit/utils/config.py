"""Configs of the toolboxes and of this package: loading them, overriding their settings, walking through them."""

import ast
import copy
import os
import re
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Any

from mmengine.config import Config, DictAction

from .errors import UserError, chain, did_you_mean, one_line, own_error, raise_own
from .toolboxes import config_path

# What settings at the top of a config have to be.
_DICTS = (
    'model data_preprocessor train_cfg val_cfg test_cfg train_dataloader val_dataloader test_dataloader optim_wrapper '
    'auto_scale_lr default_hooks env_cfg randomness visualizer log_processor model_wrapper_cfg'
)
_KINDS = dict.fromkeys(_DICTS.split(), (dict,)) | {
    'val_evaluator': (dict, list, tuple),
    'test_evaluator': (dict, list, tuple),
    'param_scheduler': (dict, list, tuple),
    'custom_hooks': (list, tuple),
}
_OF_HOOKS = {
    'interval': (Real, 'a number'),
    'max_keep_ckpts': (int, 'a whole number'),
    'filename_tmpl': (str, 'a text with {} for the number'),
}
# What a Runner and the tools read at the top of a config beside these.
_TOP = tuple(_KINDS) + (
    'work_dir',
    'load_from',
    'resume',
    'launcher',
    'default_scope',
    'log_level',
    'experiment_name',
    'compile',
    'sync_bn',
    'tta_model',
    'gpu',
    'custom_imports',
    'vis_backends',
    'find_unused_parameters',
)


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings of a config by key, of texts ``KEY=VALUE``.

    MMEngine's DictAction deletes all spaces and splits at all commas; here values may have both: spaces stay,
    ``KEY="'a, b'"`` is one text, ``KEY="['a, b', 'c']"`` a list of two.

    Raises:
        UserError: If a value has brackets that do not close.
    """
    try:
        return {key: _parse_value(value) for key, _, value in (pair.partition('=') for pair in pairs)}
    except AssertionError as error:
        raise UserError(f'the values of {" ".join(pairs)!r} cannot be read: {error}') from None


def _parse_value(text: str) -> Any:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        value = None
    if isinstance(value, tuple) and not text.strip().startswith('('):
        return list(value)
    if isinstance(value, (str, list, tuple, dict)):
        return value
    if ',' in text or text.strip()[:1] in ('[', '('):
        return DictAction._parse_iterable(text)
    return DictAction._parse_int_float_bool(text)


def load_config(name: str, cfg_options: dict | None = None) -> Config:
    """Load a config file, or one of an installed toolbox or of this package (``mmdet::retinanet/...``).

    Raises:
        UserError: If there is no such config, it has wrong syntax or names a module that there is not,
            or an override does not fit it.
        Exception: What the config itself or a module that it imports raises, as it is.
    """
    path = config_path(name)
    try:
        if '::' in name and not name.startswith('scopevit::'):
            cfg = Config.fromstring(f'_base_ = {name!r}', '.py')
            # Under its own name the config is saved beside the results.
            cfg = Config(cfg._cfg_dict, cfg_text=cfg.text, filename=os.path.basename(name))
        else:
            cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is a program, and imports others
        reason = _missing_import(error) or _wrong_syntax(error, name)
        if reason is None:
            raise_own(error)
        raise UserError(f'config {name} cannot be loaded: {reason or one_line(error)}') from error
    if cfg_options:
        _require_known(cfg, cfg_options)
        try:
            cfg.merge_from_dict(cfg_options)
        except (KeyError, TypeError, AssertionError) as error:
            raise UserError(f'--cfg-options does not fit config {name}: {error}') from error
    _require_kinds(cfg)
    _require_counts(cfg)
    _require_statistics(cfg)
    _require_hooks(cfg)
    return cfg


def _require_kinds(cfg: Config) -> None:
    """Make sure that what all tools look into is of the kind that MMEngine's Runner takes."""
    for key, value in cfg.items():
        kinds = _KINDS.get(key)
        if value is not None and kinds is not None and not isinstance(value, kinds):
            raise UserError(f'{key} is {value!r}, but has to be a {" or ".join(kind.__name__ for kind in kinds)}')
        if not key.endswith('_dataloader') or not isinstance(value, dict):
            continue
        if not isinstance(value.get('dataset'), dict):
            raise UserError(f'{key}.dataset is {value.get("dataset")!r}, but has to be a dict with a type')
        if not isinstance(value.get('sampler'), (dict, NoneType)):
            raise UserError(f'{key}.sampler is {value["sampler"]!r}, but has to be a dict with a type, or None')


def _require_known(cfg: Config, cfg_options: dict) -> None:
    """Make sure that an override makes no new setting of a misspelt name, which nothing would read."""
    for key in cfg_options:
        top = key.partition('.')[0]
        hint = '' if top in cfg or top in _TOP else did_you_mean(top, _TOP, cutoff=0.8)
        if hint:
            raise UserError(
                f'--cfg-options {key}: the config has no {top}{hint} A setting of your own has to stand in the config'
            )


def _require_counts(cfg: Config) -> None:
    """Make sure that a training has a length, and a batch images: MMEngine ends the one at once without a word."""
    counts = [('train_cfg', 'max_epochs'), ('train_cfg', 'max_iters')]
    counts += [(key, 'batch_size') for key in cfg if key.endswith('_dataloader')]
    if cfg.get('val_cfg'):
        counts.append(('train_cfg', 'val_interval'))  # 0 would be divided by
    for top, name in counts:
        value = cfg[top].get(name) if isinstance(cfg.get(top), dict) else None
        if isinstance(value, (int, float)) and value < 1:
            raise UserError(f'{top}.{name} is {value}, but has to be at least 1')


def _require_statistics(cfg: Config) -> None:
    """Make sure that there are as many means as deviations, which a training's first batch would meet."""
    for key, settings in walk_keys(cfg._cfg_dict):
        if not isinstance(settings, dict):
            continue
        for one, other in (('mean', 'std'), ('target_means', 'target_stds')):
            counts = [len(settings[name]) for name in (one, other) if isinstance(settings.get(name), (list, tuple))]
            if len({*counts} - {1}) > 1:  # one number is for all channels
                there = f'{key}.'.lstrip('.')
                raise UserError(f'{there}{one} and {there}{other} have {" and ".join(map(str, counts))} numbers')


def _require_hooks(cfg: Config) -> None:
    """Make sure of the kinds of the usual hooks' settings, which they would meet when they are first at work."""
    for name in ('checkpoint', 'logger', 'visualization'):
        settings = (cfg.get('default_hooks') or {}).get(name)
        if not isinstance(settings, dict):
            continue
        for key, (kind, called) in _OF_HOOKS.items():
            if not isinstance(settings.get(key), (kind, NoneType)):
                raise UserError(f'default_hooks.{name}.{key} is {settings[key]!r}, but has to be {called}')


def _missing_import(error: Exception) -> str | None:
    """What to do if a config's ``custom_imports`` names a module that there is not."""
    imported, missing = _local(error, 'import_modules_from_strings', 'imp'), [*chain(error)][-1]
    if imported is None or not isinstance(missing, ModuleNotFoundError) or own_error(missing) is not None:
        return None
    place = _place(_local(error, 'fromfile', 'filename'), imported)
    return (
        f'{place}custom_imports names {imported}, but there is no module {missing.name}: install it, or start from the '
        'folder that it lies in with PYTHONPATH=.'
    )


def _place(path: str | None, word: str) -> str:
    """File and line in which a config names something; the empty text if it only inherits that."""
    lines = Path(path).read_text().splitlines() if path and os.path.isfile(path) else []
    number = next((i for i, line in enumerate(lines, 1) if re.search(rf'\b{re.escape(word)}\b', line)), None)
    return f'{path}, line {number}: ' if number else ''


def _wrong_syntax(error: Exception, name: str) -> str | None:
    """File, line and what is wrong there, if a config or a module that it imports is not Python."""
    found = next((link for link in reversed(list(chain(error))) if isinstance(link, SyntaxError)), None)
    if found is None:
        return None
    # MMEngine parses configs as texts without a name.
    path = found.filename if found.filename and os.path.isfile(found.filename) else None
    path = path or _local(error, None, 'filename') or name
    return f'{path}, line {found.lineno}: {type(found).__name__}: {found.msg}'


def _local(error: BaseException, function: str | None, name: str) -> str | None:
    """A text among the variables of MMEngine's last function that an error, or what led to it, passed through.

    Args:
        function: Which function; None: any that has such a variable.
    """
    for link in chain(error):
        for frame, _ in reversed(list(traceback.walk_tb(link.__traceback__))):
            is_wanted = function in (None, frame.f_code.co_name)
            value = frame.f_locals.get(name) if is_wanted else None
            if isinstance(value, str) and frame.f_globals.get('__name__', '').startswith('mmengine.'):
                return value
    return None


def walk(node: object) -> Iterator[dict]:
    """Every dict of nested settings."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from walk(item)


def walk_keys(node: object, key: str = '') -> Iterator[tuple[str, object]]:
    """Settings within others with their keys, the outer ones first."""
    queue = deque([(key, node)])
    while queue:
        key, node = queue.popleft()
        yield key, node
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
        queue += [(f'{key}.{name}'.lstrip('.'), item) for name, item in items]


def type_name(settings: object) -> str:
    """The name of the class of settings with a type, without its toolbox or module; empty if they have none."""
    kind = settings.get('type', '') if isinstance(settings, dict) else ''
    return getattr(kind, '__name__', None) or re.split('[./]', str(kind))[-1]


def as_list(value: object) -> list:
    """The items of a setting that may be one, several or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def first_value(node: object, key: str) -> Any:
    """The first value of a key in nested settings that is not None; None if there is none."""
    return next((found[key] for found in walk(node) if found.get(key) is not None), None)


def changed_settings(before: object, now: object, key: str = '') -> Iterator[str]:
    """Keys under which two configs of plain data differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from changed_settings(before.get(name), now.get(name), f'{key}.{name}' if key else name)
    elif before != now:
        yield key


def without_weights(node: Any) -> Any:
    """A copy of nested settings that loads no pretrained weights when it is built or initialised."""
    node = copy.deepcopy(node)
    for part in walk(node):
        for key in ('pretrained', 'teacher_ckpt'):
            if part.get(key) and not isinstance(part[key], dict):
                part[key] = False if part[key] is True else None
        init_cfgs = as_list(part.get('init_cfg'))
        if any(map(is_checkpoint, init_cfgs)):
            part['init_cfg'] = [init_cfg for init_cfg in init_cfgs if not is_checkpoint(init_cfg)] or None
    return node


def replace_sync_bn(node: object) -> int:
    """Turn every SyncBN of nested settings into BN, where no processes can be synchronised; returns how many."""
    found = [part for part in walk(node) if part.get('type') in ('SyncBN', 'MMSyncBN')]
    for part in found:
        part['type'] = 'BN'
    return len(found)


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


def is_checkpoint(init_cfg: object) -> bool:
    """Whether an ``init_cfg`` loads weights."""
    kind = init_cfg.get('type') if isinstance(init_cfg, dict) else None
    return getattr(kind, '__name__', kind) in ('Pretrained', 'mmengine.Pretrained', 'PretrainedInit')
