"""Running a model of any toolbox on a small image, to find out whether its parts fit together."""

import re
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from ..apis.model import Size, build_model, image_channels, in_scope, model_settings, runnable, tensor_call
from ..models.ops import MissingOperator
from ..utils.config import first_value, walk
from ..utils.silence import silence

SIZES = (96, 224, 320, 512)  # some heads only run on images as large as those of their recipe


class SettingError(ValueError):
    """A model runs, but not as a setting of its config says.

    Attributes:
        key: The setting.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def small_model(cfg: Config) -> ConfigDict:
    """Settings of the model for a trial: fewer proposals, no resizing of batches, no weights to load."""
    model = model_settings(cfg)
    for settings in walk(model):
        for key, most in (('nms_pre', 64), ('max_per_img', 8), ('num', 16)):
            if isinstance(settings.get(key), int) and (key != 'num' or 'Sampler' in settings.get('type', '')):
                settings[key] = min(settings[key], most)
        if settings.get('batch_augments'):
            settings['batch_augments'] = None
    return model


def try_model(cfg: Config) -> tuple[nn.Module, int]:
    """Build a config's model and run it on a small image; raises what goes wrong.

    It runs on the CPU, and on the GPU if there is one and an operator runs only there.

    Returns:
        The model, in evaluation mode, and the size of the image.
    """
    scope = cfg.get('default_scope', 'mmengine')
    with torch.random.fork_rng(devices=[]), in_scope(scope), torch.no_grad():
        torch.manual_seed(0)  # whether proposals are left may depend on the initial weights
        model: Any = build_model(Config(dict(default_scope=scope, model=small_model(cfg))))
        with silence():
            model.init_weights()  # MMEngine logs every value that it sets
        model.eval()  # not all models return themselves
        try:
            return model, run_tensor(cfg, model)
        except Exception as error:
            if not (gpu_operator(error) and torch.cuda.is_available()):
                raise
        model.to('cuda')
        return model, run_tensor(cfg, model)


def run_tensor(cfg: Config, model: nn.Module) -> int:
    """Run a model without post-processing, on the smallest image that it takes; returns its size.

    Raises:
        Exception: What the run on the smallest size raised, if none works.
    """
    part = runnable(cfg, model)[1]
    device = next(part.parameters()).device
    problems = []
    for size in SIZES:
        try:
            image = torch.rand(1, image_channels(part), *_image_size(cfg, part, size), device=device)
            _check_heatmaps(cfg, tensor_call(part)(part, image))
            return size
        except Exception as error:  # heads for large images run out of pixels in many ways
            problems.append(error)
            if gpu_operator(error) or isinstance(error, MissingOperator):
                break
    raise problems[0]


def _image_size(cfg: Config, model: nn.Module, size: int) -> Size:
    """Of a square, unless the model is for another."""
    if type(model).__module__.startswith('mmpose.'):
        codec = cfg.get('codec')
        width, height = first_value(codec, 'input_size') or first_value(codec, 'image_size') or (size, size)
        return height, width
    return (256, 128) if 'ReID' in type(model).__name__ else (size, size)  # upright crops of people


def gpu_operator(error: BaseException) -> str | None:
    """The operator of mmcv that an error says has no implementation for CPUs; mmcv has no type for that."""
    found = re.match(r'(\w+?)(_forward)?(_impl)?: implementation for device cpu not found', str(error))
    return found and found.group(1)


def _check_heatmaps(cfg: Config, output: object) -> None:
    """A pose head's heatmaps must have the size of their targets."""
    size = (cfg.get('codec') or {}).get('heatmap_size') if isinstance(cfg.get('codec'), dict) else None
    if isinstance(output, torch.Tensor) and output.ndim == 4 and size and tuple(output.shape[:1:-1]) != tuple(size):
        made = tuple(output.shape[:1:-1])
        raise SettingError('codec.heatmap_size', f'is {tuple(size)}, but the heatmaps are {made}')
