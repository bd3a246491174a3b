"""Which setting of a config is at fault when something cannot be built of it."""

import inspect
import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from torch import nn

from .config import type_name, walk_keys
from .errors import UserError, chain, did_you_mean, interruptions_kept, one_line, raise_own
from .shipped import PACKAGE

# What the Runner builds by methods of its own, by their names.
_KEYS = {
    'build_model': 'model',
    'wrap_model': 'model_wrapper_cfg',
    'build_train_loop': 'train_cfg',
    'build_val_loop': 'val_cfg',
    'build_test_loop': 'test_cfg',
    'build_optim_wrapper': 'optim_wrapper',
    'build_param_scheduler': 'param_scheduler',
    '_check_scheduler_cfg': 'param_scheduler',
    'build_visualizer': 'visualizer',
    'build_log_processor': 'log_processor',
    'build_logger': 'log_level',
    'register_default_hooks': 'default_hooks',
    'register_custom_hooks': 'custom_hooks',
    'set_randomness': 'randomness',
    'setup_env': 'env_cfg',
    'scale_lr': 'auto_scale_lr',
}
# Bugs if they happen in this package's own code, which checks settings by other exceptions.
_BUGS = (AttributeError, NameError, IndexError, ArithmeticError, RecursionError, NotImplementedError)


@contextmanager
def building(cfg: Config, what: str = '') -> Iterator[None]:
    """Name the setting at fault if something cannot be built of a config.

    Args:
        what: What is built, for the message.

    Raises:
        UserError: In place of what the building raised, unless that is a bug of this package or was
            raised by code of the user's own: that passes as it is.
    """
    try:
        with interruptions_kept():
            yield
    except UserError:
        raise
    except Exception as error:
        raise_own(error)
        setting = wrong_setting(error, cfg)
        if setting is None:
            raise
        raise UserError(f'{what} cannot be built: {setting}' if what else setting) from error


def wrong_setting(
    error: BaseException, cfg: Config, only_building: bool = False, only_registry: bool = False
) -> str | None:
    """The key at fault and what is wrong with it, in one line; None if the error is a bug of this package.

    Args:
        only_building: Whether errors that were raised later than while something was built are left.
        only_registry: Whether all are left but those of a registry: a wrong type, or a wrong argument.
    """
    passed = list(traceback.walk_tb(error.__traceback__))
    if not passed:
        return None
    frame, line = passed[-1]
    path = inspect.getsourcefile(frame) or frame.f_code.co_filename
    if isinstance(error, _BUGS) and path.startswith(str(PACKAGE)):
        return None
    functions = {other.f_code.co_name for other, _ in passed}
    if only_building and (not functions & {'build_from_cfg', *_KEYS} or functions & {'run_epoch', 'run_iter'}):
        return None
    if type(error).__module__.startswith('wandb.'):
        return f'wandb does not start: {one_line(error)} (`wandb login` keeps a key, WANDB_MODE=offline needs none)'
    key = failing_key(error, cfg) or 'the config'
    builders = [other for other, _ in passed if other.f_code.co_name == 'build_from_cfg']
    # Classes of which there is one for a name are made in MMEngine's manager.
    if frame in builders or (builders and frame.f_globals.get('__name__') == 'mmengine.utils.manager'):
        return _registry_message(error, key, builders[-1])
    if only_registry:
        return None
    says = one_line(error) if str(error) else f'{type(error).__name__}: {linecache.getline(path, line).strip()}'
    return f'{key}: {says} ({"/".join(path.split("/")[-3:])}, line {line})'


def _registry_message(error: BaseException, key: str, frame: FrameType) -> str:
    """What a registry could not build, in fewer words than it has itself."""
    settings, kind, known = (frame.f_locals.get(name) for name in ('cfg', 'obj_type', 'obj_cls'))
    if not isinstance(settings, dict):
        return f'{key} is {settings!r}, but has to be a dict with a type'
    if 'type' not in settings and kind is None:
        return f'{key} has no type'
    if not isinstance(kind, str) and known is None:
        return f'{key}.type is {kind!r}, but has to be the name of a class'
    if isinstance(kind, str) and known is None:
        registry = frame.f_locals['registry']
        hint = did_you_mean(kind.rpartition('.')[2], _registered(registry))
        return f'{key}.type: no {kind!r} in {registry.scope}, among what is registered as {registry.name}{hint}'
    # The argument's name, and what is said of it, are in the text alone.
    named = [word for word in str(error).split("'")[1::2] if word in settings]
    hint = did_you_mean(named[0], _arguments(known)) if named else ''
    says = one_line(error).partition(': ')[2].partition('. Did you mean')[0]  # Python 3.13's own guess
    return f'{key}: {says}{hint}'


def _registered(registry: Registry) -> set[str]:
    """Names of a registry's classes, those of its root and of the root's other scopes."""
    root = registry
    while root.parent is not None:
        root = root.parent
    return {name for part in (registry, root, *root.children.values()) for name in part.module_dict}


def _arguments(kind: Any) -> list[str]:
    try:
        return list(inspect.signature(kind).parameters)
    except ValueError:  # of what is not written in Python
        return []


def failing_key(error: BaseException | None, cfg: Config) -> str | None:
    """Key of the part of a config that was built or run when an error was raised, as far as its traceback tells."""
    root = cfg._cfg_dict if isinstance(cfg, Config) else cfg
    key, node = '', root
    for link in chain(error):
        for frame, line in traceback.walk_tb(link.__traceback__):
            key, node = _step(frame, line, key, node, root)
    return key or None


def _step(frame: FrameType, line: int, key: str, node: object, cfg: dict) -> tuple[str, object]:
    """From the part that was built so far to the one that a frame of the traceback builds or runs."""
    name = frame.f_code.co_name
    if name == 'build_from_cfg':
        wanted = frame.f_locals['cfg']
        return _find(node, key, wanted) or _find(cfg, '', wanted) or (key, node)
    top = _KEYS.get(name) or _called(frame, line)
    if name in ('build_dataloader', 'build_evaluator') and key.endswith('_cfg'):
        top = key.replace('_cfg', name.replace('build_', '_'))  # of a loop
    if top is not None and top in cfg and frame.f_globals['__name__'].startswith(('mmengine.', 'scopevit.')):
        return top, cfg[top]
    part = frame.f_locals.get('self')
    if isinstance(part, nn.Module):
        kind = type(part).__name__
        return _child(node, key, kind) or _child(cfg.get('model'), 'model', kind) or (key, node)
    return key, node


def _called(frame: FrameType, line: int) -> str | None:
    """What a line of MMEngine's Runner is about to build, which may fail for the arguments that it passes."""
    if not frame.f_globals.get('__name__', '').startswith('mmengine.runner'):
        return None
    text = linecache.getline(frame.f_code.co_filename, line)
    return next((key for method, key in _KEYS.items() if f'.{method}(' in text), None)


def _child(node: object, key: str, kind: str) -> tuple[str, dict] | None:
    """The part of a class among those that a part of a model holds."""
    for name, value in node.items() if isinstance(node, dict) else ():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if type_name(item) == kind:
                return f'{key}.{name}'.lstrip('.'), item
    return None


def _find(node: object, key: str, wanted: object) -> tuple[str, object] | None:
    """The settings within others that are equal to some or, if none are, of the same type."""
    nodes = list(walk_keys(node, key))
    same = next((found for found in nodes if type(found[1]) is type(wanted) and found[1] == wanted), None)
    if same is None and type_name(wanted):
        same = next((found for found in nodes if type_name(found[1]) == type_name(wanted)), None)
    return same
