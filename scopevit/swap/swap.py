"""Putting ScopeViT in place of a config's backbone.

The outputs of the old backbone are found by running it. Which way to give the rest of the model
what it expects works is not guessed: each is built and run.
"""

import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..models import ScopeViT
from ..models.ops import MissingOperator
from ..utils.building import failing_key
from ..utils.config import as_list, load_config
from ..utils.errors import UserError, one_line, own_error, raise_own
from ..utils.files import whole_file
from ..utils.toolboxes import toolbox_of
from .probe import ProbeError, probe_backbone
from .recipe import adapt_recipe, get_node, list_notes
from .trial import SettingError, gpu_operator, try_model
from .ways import Adapt, ways


class SwapError(UserError):
    """A backbone cannot be replaced.

    Attributes:
        problems: Pairs of a key of the config and what is wrong there.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = list(problems)
        super().__init__('the backbone cannot be replaced: ' + '; '.join(f'{key}: {why}' for key, why in problems))


def swap_backbone(
    cfg: Config,
    arch: str | dict = 'tiny',
    *,
    scope: str | None = None,
    check: Callable[[Config], object] | None = None,
    **backbone_options,
) -> Config:
    """A copy of a config whose backbone is ScopeViT, with everything adapted that depends on it.

    Args:
        cfg: A config of mmpretrain, mmdet, mmseg or mmpose; it is not changed.
        scope: The toolbox whose names the config uses, if it has no ``default_scope``.
        check: Raises if a candidate does not work; by default it is built and run on a small batch.
        backbone_options: More options of ScopeViT, for example ``drop_path_rate=0.1``.

    Raises:
        SwapError: If the config has no backbone whose outputs are feature maps of images, or
            nothing that was tried works.
    """
    if isinstance(arch, str) and arch not in ScopeViT.arch_settings:
        raise SwapError([('arch', f'unknown {arch!r}; choose one of {", ".join(ScopeViT.arch_settings)}')])
    path = find_backbone(cfg)
    where = '.'.join(path)
    site = get_node(cfg, path[:-1])
    default_scope = cfg.get('default_scope') or scope
    scope = site.get('_scope_') or site.backbone.get('_scope_') or default_scope or 'mmengine'
    in_channels = _image_channels(cfg, site)
    backbone = dict(type='scopevit.ScopeViT', arch=arch, out_indices=(3,), **backbone_options)
    if in_channels != 3:
        backbone['in_channels'] = in_channels
    if site.backbone.get('with_cp'):
        backbone['with_cp'] = True
    _refuse_second_backbone(site, '.'.join(path[:-1]))
    candidates = _candidates(site, where, scope, in_channels)
    problems, failures = [], []
    for name, adapt in candidates:
        # Through plain dicts: a setting that stands in two places is copied for each.
        new = Config(cfg.to_dict(), cfg_text=cfg.text or ' ', filename=cfg.filename)
        if default_scope is not None:
            new.default_scope = default_scope
        try:
            _swap(new, path[:-1], ConfigDict(backbone), adapt, scope)
            (check or try_model)(new)
            return new
        except Exception as error:  # a candidate may fail in any way; the ways left are tried
            failures.append(error)
            key, why, is_final = _explain(error, new)
            if is_final:
                raise SwapError([(key or where, why)]) from error
            problems.append((key or where, f'{name}: {why}'))
    raise SwapError(problems) from next(filter(own_error, failures), None)


def _candidates(site: ConfigDict, where: str, scope: str, in_channels: int) -> list[tuple[str, Adapt]]:
    """The ways that there are, by the outputs of the old backbone."""
    try:
        return list(ways(site, probe_backbone(site.backbone.to_dict(), scope, in_channels)))
    except ProbeError as error:
        raise_own(error)
        problems = [(where, str(error))]
        if scope == 'mmengine':  # which has no backbones
            problems.append(('default_scope', 'names no toolbox; set it to that of the model, for example mmdet'))
        raise SwapError(problems) from error


def _swap(cfg: Config, path: Sequence[str], backbone: ConfigDict, adapt: Adapt, scope: str) -> None:
    """Replace the backbone of the model at ``path``, and adapt the rest."""
    site = get_node(cfg, path)
    old_type = site.backbone.type
    site.backbone = backbone
    adapt(site, backbone.arch, scope)
    adapt_recipe(cfg, site, old_type, scope)


def _explain(error: Exception, cfg: Config) -> tuple[str | None, str, bool]:
    """The key of a config where a trial failed, why, and whether other ways would fail alike."""
    if isinstance(error, (ProbeError, SettingError)):
        return getattr(error, 'key', None), str(error), False
    key = failing_key(error, cfg)
    # What an adapter holds is the neck of the user's config.
    key = key.replace('.neck.neck', '.neck') if key and key != 'model' else None
    cause: BaseException = error
    while isinstance(cause, UserError) and not isinstance(cause, MissingOperator) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, MissingOperator):
        return key, str(cause), True
    operator = gpu_operator(cause)
    if operator:
        return key, f'cannot be tried without a GPU: its operator {operator} has no implementation for CPUs', True
    frame = traceback.extract_tb(cause.__traceback__)[-1]  # as assertions often say nothing
    return key, f'{one_line(cause)} ({frame.name} in {Path(frame.filename).name})', False


def load_and_swap(name: str, arch: str, cfg_options: dict | None = None) -> Config:
    """Load a config of any toolbox, override settings of it, and swap its backbone.

    Overrides of the backbone (``model.backbone.drop_path_rate``) are meant for ScopeViT; all
    others come before the swap, so that what is tried is what runs. What the swap could not
    settle is logged.
    """
    own, others = split_options(cfg_options)
    cfg = swap_backbone(load_config(name, others), own.pop('arch', arch), scope=toolbox_of(name), **own)
    for note in list_notes(cfg):
        print_log(note, logger='current', level=logging.WARNING)
    return cfg


def split_options(cfg_options: dict | None) -> tuple[dict, dict]:
    """Overrides of the backbone, by its arguments, and all others."""
    own, others = {}, {}
    for key, value in (cfg_options or {}).items():
        before, _, option = key.rpartition('.backbone.')
        if before in ('model', 'model.detector'):
            own[option] = value
        else:
            others[key] = value
    return own, others


def find_backbone(cfg: Config) -> tuple[str, ...]:
    """Where the backbone stands in a config, for example ``('model', 'backbone')``.

    Trackers and semi-supervised methods hold a whole model as their ``detector``.
    """
    if cfg.get('model') is None:
        raise SwapError([('model', 'this config has none')])
    if not isinstance(cfg.model, dict) or not isinstance(cfg.model.get('type'), str):
        raise SwapError([('model', "is not written as dicts with a type's name; new-style configs are not supported")])
    for path in (('model',), ('model', 'detector')):
        holder = get_node(cfg, path)
        if isinstance(holder, dict) and isinstance(holder.get('backbone'), dict):
            return (*path, 'backbone')
    if cfg.model.get('image_encoder'):
        raise SwapError([('model.image_encoder', 'holds the backbone; only one in model.backbone can be replaced')])
    raise SwapError([('model', f'{cfg.model["type"]} has no backbone')])


def _image_channels(cfg: Config, site: ConfigDict) -> int:
    if site.backbone.get('in_channels') is not None:
        return site.backbone.in_channels if isinstance(site.backbone.in_channels, int) else 3
    for holder in (site, cfg.model, cfg):
        mean = (holder.get('data_preprocessor') or {}).get('mean')
        if mean:
            return len(mean)
    return 3


def _refuse_second_backbone(site: ConfigDict, key: str) -> None:
    """DetectoRS' neck feeds its own copy of the old backbone with the image, which is an output of the old one."""
    for neck in as_list(site.get('neck')):
        for name in neck:
            if name.endswith('backbone'):
                raise SwapError(
                    [(f'{key}.neck.{name}', 'the neck runs a second backbone, made to share the image with the first')]
                )


def write_config(cfg: Config, path: str) -> None:
    """Write a config so that the file, loaded again, is this config.

    Raises:
        UserError: If it holds what no file can; nothing is written then.
    """
    with whole_file(path) as draft:
        cfg.dump(draft)
        if Config.fromfile(draft).to_dict() != cfg.to_dict():
            raise UserError('this config holds values that cannot be written to a file; swap in Python instead')
