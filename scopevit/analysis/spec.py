"""Models from configs, from timm and from Python files, all as plain networks that take a batch of images."""

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from ..apis.model import Network, Size, build_model, image_size, runnable, switch_to_deploy
from ..utils.config import load_config, parse_pairs
from ..utils.errors import UserError, did_you_mean, one_line
from .measuring import Entry


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
    size: Size | None = None
    deploy: bool = False
    options: dict[str, object] = field(default_factory=dict)

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


def parse_options(text: str) -> dict[str, object]:
    """``KEY=VALUE&KEY=VALUE``, values as --cfg-options takes them.

    Raises:
        UserError: If it is something else.
    """
    pairs = text.split('&')
    for pair in pairs:
        if not re.fullmatch(r'[^=]+=.+', pair) or pair.endswith(':deploy'):
            raise UserError(f'option {pair!r} is not of the form KEY=VALUE; SIZE and :deploy stand before the "?"')
    return parse_pairs(pairs)


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


def load_network(name: str, options: dict[str, object] | None = None) -> tuple[nn.Module, Size | None]:
    """Build a model (see ``Spec``) with random weights; returns it and its usual size, if that is known.

    Raises:
        UserError: If there is no such model, or it cannot be built.
    """
    options = options or {}
    if name.startswith('timm:'):
        return _from_timm(name[len('timm:') :], options)
    if '::' not in name and re.search(r'\.py:\w+$', name):
        path, function = name.rsplit(':', 1)
        return _from_function(path, function, options), None
    cfg = load_config(name, options)
    try:
        return Network(runnable(cfg, build_model(cfg))[1]), image_size(cfg)
    except UserError as error:
        raise UserError(f'{name}: {error}') from error


def _from_timm(name: str, options: dict[str, object]) -> tuple[nn.Module, Size]:
    try:
        from ..timm import ScopeViTClassifier  # noqa: F401, I001  # registers ScopeViT; tells what is missing

        import timm
    except ImportError as error:
        raise UserError(f'timm:{name} cannot be built: {error}') from error
    if not timm.is_model(name):
        raise UserError(f'timm has no model {name}{did_you_mean(name, timm.list_models(), most=3, cutoff=0.4)}')
    try:
        model = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # whatever a constructor raises
        raise UserError(f'timm:{name} cannot be built: {one_line(error)}') from error
    return model, tuple(model.pretrained_cfg['input_size'][1:])


def _from_function(path: str, function: str, options: dict[str, object]) -> nn.Module:
    if not os.path.isfile(path):
        raise UserError(f'{path} does not exist; models in Python are given as FILE.py:FUNCTION')
    spec = importlib.util.spec_from_file_location(f'networks_in_{os.path.basename(path)[:-3]}', path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))  # for what lies beside it
    try:
        spec.loader.exec_module(module)
        make = getattr(module, function, None)
        if not callable(make):
            raise UserError(f'{path} has no function {function}')
        try:
            inspect.signature(make).bind(**options)
        except TypeError as error:
            raise UserError(f'{path}:{function} {error}') from None
        model = make(**options)
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise UserError(f'{path}:{function} returned a {type(model).__name__}, not a torch.nn.Module')
    return model


def load_entries(spec: Spec, sizes: Sequence[Size], deploy: bool) -> list[Entry]:
    """What is measured of one model: its form of one size, or of each of several.

    Args:
        sizes: Instead of its usual one, unless the spec names one.
        deploy: Take the form for deployment of a model that has one.

    Raises:
        UserError: If it cannot be built, has no such form though the spec asks for it, or nothing says a size.
    """
    model, usual = load_network(spec.name, spec.options)
    if spec.deploy or deploy:
        try:
            model = switch_to_deploy(model.eval())
        except UserError as error:
            if spec.deploy:
                raise UserError(f'{spec.label}: {error}') from error
    if spec.size is not None:
        sizes = [spec.size]
    elif not sizes:
        if usual is None:
            raise UserError(f'{spec.label} does not say what size its images have; write {spec.name}@SIZE, or --size')
        sizes = [usual]
    return [Entry(spec.label, model, size) for size in sizes]
