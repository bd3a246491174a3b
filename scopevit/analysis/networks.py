"""Models from configs, from timm and from Python files, all as plain networks that take a batch of images."""

import argparse
import difflib
import importlib.util
import logging
import os
import re
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterator, Optional, Tuple

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..engine.errors import UserError
from ..engine.launch import load_config
from ..swap.probe import in_scope, without_weights
from ..swap.trial import first_value, runnable, walk

Size = Tuple[int, int]
"""Height and width."""


def build_model(cfg: Config) -> nn.Module:
    """The model of a config of any toolbox, without pretrained weights; of a tracker, its detector.

    Raises:
        UserError: If it cannot be built.
    """
    if not isinstance(cfg.get('model'), dict):
        raise UserError('this config has no model')
    settings = ConfigDict(without_weights(cfg.model.to_dict()))
    if cfg.get('data_preprocessor') is not None:  # as the Runner does
        settings.setdefault('data_preprocessor', cfg.data_preprocessor.to_dict())
    for part in walk(settings):
        if part.get('type') in ('SyncBN', 'MMSyncBN'):  # one process has nothing to synchronise with
            part['type'] = 'BN'
    try:
        with in_scope(cfg.get('default_scope', 'mmengine')), _silence():
            return runnable(cfg, MODELS.build(settings))[1]
    except Exception as error:  # whatever a constructor raises
        raise UserError(f'the model cannot be built: {type(error).__name__}: {error}') from error


@contextmanager
def _silence() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


def tensor_call(model: nn.Module) -> Callable[[nn.Module, Tensor], object]:
    """How a toolbox's model is run on preprocessed images without losses and post-processing (its mode 'tensor')."""
    if any(kind.__module__.startswith('mmdet.') for kind in type(model).__mro__):
        return _detect
    head = getattr(model, 'decode_head', None)
    if type(head).__name__ in ('MaskFormerHead', 'Mask2FormerHead'):  # which mmseg's mode does not serve
        return _classify_masks
    return _plain


def _plain(model: nn.Module, images: Tensor) -> object:
    return model(images, None, mode='tensor')


def _detect(model: nn.Module, images: Tensor) -> object:
    from mmdet.structures import DetDataSample

    return model(images, [DetDataSample(metainfo=meta) for meta in _metas(images)], mode='tensor')


def _classify_masks(model: nn.Module, images: Tensor) -> object:
    return model.encode_decode(images, _metas(images))


def _metas(images: Tensor) -> list:
    size = tuple(images.shape[2:])
    shapes = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    return [dict(shapes) for _ in images]


class Network(nn.Module):
    """A toolbox's model as a plain network: preprocessed images (B, C, H, W) in, what its heads make of them out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.call = tensor_call(model)

    def forward(self, images: Tensor) -> object:
        return self.call(self.model, images)


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes: those of its backbone, else of its first convolution, else 3."""
    for module in (getattr(model, 'backbone', None), *model.modules()):
        channels = getattr(module, 'in_channels', None)
        if isinstance(channels, int):
            return channels
    return 3


def image_size(cfg: Config) -> Optional[Size]:
    """Size of the images that a config tests with, padded as its model pads them; None if it does not say.

    Of sizes that depend on the image it is that of a wide image, which just fits: 800x1344 for
    COCO's usual 1333x800.
    """
    size = first_value(cfg.get('codec'), 'input_size')  # of poses: width, height
    if size is not None:
        return size[1], size[0]
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if preprocessor.get('size') is not None:  # mmseg's crops
        return _height_and_width(preprocessor['size'])
    steps = list(walk(cfg.get('test_dataloader')))
    crop = next((step['crop_size'] for step in steps if 'CenterCrop' in str(step.get('type'))), None)
    if crop is not None:
        return _height_and_width(crop)
    scale = next((step['scale'] for step in steps if 'Resize' in str(step.get('type')) and step.get('scale')), None)
    if scale is None:
        return None
    height, width = sorted(_height_and_width(scale)) if isinstance(scale, (list, tuple)) else (scale, scale)
    divisor = preprocessor.get('pad_size_divisor') or 1
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def _height_and_width(size: object) -> Size:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


@dataclass(frozen=True)
class Spec:
    """Which model, and how: ``[LABEL=]MODEL[@SIZE][:deploy][?KEY=VALUE&KEY=VALUE...]``.

    Attributes:
        label: What tables call it.
        name: A config file, a config of an installed toolbox (``mmdet::...``), ``timm:NAME``, or
            ``FILE.py:FUNCTION``, a function that returns a model.
        size: Height and width of its images; None: the usual ones.
        deploy: Whether to take its form for deployment.
        options: Settings of the config to override (``model.backbone.with_cp``), else arguments
            of the function or of timm's ``create_model``.
    """

    label: str
    name: str
    size: Optional[Size] = None
    deploy: bool = False
    options: Dict[str, object] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> 'Spec':
        """Read what a user wrote.

        Raises:
            UserError: If it does not have this form.
        """
        which, mark, options = text.strip().partition('?')
        found = re.fullmatch(
            r'(?:(?P<label>[^=]+)=)?(?P<name>[^=]+?)(?:@(?P<size>[^@:/]*))?(?P<deploy>:deploy)?', which
        )
        if not found:
            raise UserError(f'model {text!r} is not of the form [LABEL=]MODEL[@SIZE][:deploy][?KEY=VALUE&...]')
        name, size = found['name'], found['size']
        label = found['label'] or _short(name) + (found['deploy'] or '') + mark + options
        size = None if size is None else parse_size(size)
        return cls(label, name, size, bool(found['deploy']), parse_options(options) if mark else {})


def parse_options(text: str) -> Dict[str, object]:
    """``KEY=VALUE&KEY=VALUE``, values as --cfg-options takes them.

    Raises:
        UserError: If it is something else.
    """
    pairs = text.split('&')
    for pair in pairs:
        if not re.fullmatch(r'[^=]+=.+', pair) or pair.endswith(':deploy'):
            raise UserError(f'option {pair!r} is not of the form KEY=VALUE; SIZE and :deploy stand before the "?"')
    parsed = argparse.Namespace()
    try:
        DictAction([], 'options')(None, parsed, pairs)
    except Exception as error:  # of brackets that do not close
        raise UserError(f'the values of {text!r} cannot be read: {error}') from None
    return parsed.options


def parse_size(text: str) -> Size:
    """``256`` or ``768x1280``: height and width.

    Raises:
        UserError: If it is something else.
    """
    found = re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', text)
    if not found:
        raise UserError(f'size {text!r} is neither a number of pixels nor HEIGHTxWIDTH, as 256 or 768x1280')
    return int(found[1]), int(found[2] or found[1])


def _short(name: str) -> str:
    is_config = '::' in name or name.endswith('.py')
    return os.path.splitext(os.path.basename(name))[0] if is_config else name.rsplit(':', 1)[-1]


def load_network(name: str, options: Optional[Dict[str, object]] = None) -> Tuple[nn.Module, Optional[Size]]:
    """Build a model (see ``Spec``) with random weights; returns it and its usual size, if that is known.

    Raises:
        UserError: If there is no such model, or it cannot be built.
    """
    options = options or {}
    if name.startswith('timm:'):
        return _from_timm(name[len('timm:') :], options)
    if '::' not in name and re.search(r'\.py:\w+$', name):
        return _from_function(*name.rsplit(':', 1), options), None
    cfg = load_config(name, options)
    try:
        return Network(build_model(cfg)), image_size(cfg)
    except UserError as error:
        raise UserError(f'{name}: {error}') from error


def _from_timm(name: str, options: Dict[str, object]) -> Tuple[nn.Module, Size]:
    try:
        import timm
    except ImportError:
        raise UserError(
            f'timm:{name} needs timm, which is not installed here; install it with --no-deps, and pyyaml, '
            'huggingface_hub and safetensors beside it, so that it does not replace torch'
        ) from None
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise UserError(f'timm has no model {name}' + (f'; did you mean {" or ".join(close)}?' if close else ''))
    try:
        model = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # whatever a constructor raises
        raise UserError(f'timm:{name} cannot be built: {type(error).__name__}: {error}') from error
    return model, tuple(model.pretrained_cfg['input_size'][1:])


def _from_function(path: str, function: str, options: Dict[str, object]) -> nn.Module:
    if not os.path.isfile(path):
        raise UserError(f'{path} does not exist; models in Python are given as FILE.py:FUNCTION')
    spec = importlib.util.spec_from_file_location(f'networks_in_{os.path.basename(path)[:-3]}', path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))  # for what lies beside it
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            raise UserError(f'{path} has no function {function}')
        model = getattr(module, function)(**options)
    except UserError:
        raise
    except Exception as error:  # it is a program: whatever it raises, it is the program's
        raise UserError(f'{path}:{function} failed: {type(error).__name__}: {error}') from error
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise UserError(f'{path}:{function} returned a {type(model).__name__}, not a torch.nn.Module')
    return model


def switch_to_deploy(model: nn.Module) -> nn.Module:
    """Bring all parts of a model that have a form for deployment into it.

    The toolboxes call that ``switch_to_deploy``; timm knows its own models.

    Raises:
        UserError: If no part has one.
    """
    if type(model).__module__.startswith('timm.'):
        from timm.utils.model import reparameterize_model

        if not any(hasattr(m, name) for m in model.modules() for name in ('fuse', 'reparameterize')):
            raise UserError(f'{type(model).__name__} has no form for deployment')
        return reparameterize_model(model)
    if not _switch(model):
        raise UserError(f'{type(model).__name__} has no part with a switch_to_deploy method')
    return model


def _switch(module: nn.Module) -> bool:
    if hasattr(module, 'switch_to_deploy'):  # it sees to what is in it
        module.switch_to_deploy()
        return True
    return any([_switch(child) for child in list(module.children())])
