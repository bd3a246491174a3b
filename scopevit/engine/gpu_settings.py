"""What training and testing on a GPU set for speed, each with a switch in the config's ``gpu``, and ``--compile``.

``--cfg-options gpu.tf32=False`` switches one off; docs/gpu.md lists them.
"""

import os
from collections.abc import Container
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args, get_type_hints

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from torch import nn

from ..apis.model import backbone_of
from ..models.backbones.scopevit import ScopeViTStage
from ..models.ops.gpu import SWITCH, lacking_for_triton
from ..utils.config import type_name
from ..utils.cores import usable_cores
from ..utils.errors import UserError
from ..utils.wrappers import unwrap
from .console import log_first

# Toolboxes whose models compute in bfloat16. mmdet would round the boxes of RoIs to it, by up to 4 pixels at 1,333, and
# its operators, if they are mmcv's compiled ones, know no bfloat16, as NumPy, which gets mmpose's heatmaps.
# The same goes for what mmseg takes from mmdet: Mask2Former.
_IN_BFLOAT16 = ('mmpretrain', 'mmseg')
_FUSED = ('AdamW', 'Adam', 'SGD')
# Transforms after which images have one size, and those after which they do not.
_ONE_SIZE = (
    'RandomResizedCrop', 'CenterCrop', 'EfficientNetRandomCrop', 'EfficientNetCenterCrop', 'MAERandomResizedCrop',
    'RandomResizedCropAndInterpolationWithTwoPic', 'TopdownAffine', 'BottomupRandomAffine',
)  # fmt: skip
_MANY_SIZES = ('ResizeEdge', 'RandomResize', 'RandomChoiceResize', 'ResizeShortestEdge', 'BottomupResize')
_MOST_WORKERS = 16  # more than feed any GPU of today; each holds two batches


@dataclass(frozen=True)
class GPUSettings:
    """The config's ``gpu``.

    Args:
        tf32: Multiply float32 matrices and convolve in TF32.
        amp_dtype: Number format of mixed precision where the config's ``optim_wrapper`` names none.
        fused_optimizer: Update all parameters of equal settings in one kernel.
        cudnn_benchmark: Let cuDNN try its algorithms for each new shape.
        cudnn_attention: Let attention use cuDNN, which plans for each new shape.
        workers: Whether the data loaders have as many workers as the config says or as the cores allow.

    Raises:
        UserError: If a value is none of its choices.
    """

    tf32: Literal[True, False] = True
    amp_dtype: Literal['auto', 'bfloat16', 'float16'] = 'auto'
    fused_optimizer: Literal[True, False] = True
    cudnn_benchmark: Literal['auto', True, False] = 'auto'
    cudnn_attention: Literal['auto', True, False] = 'auto'
    workers: Literal['config', 'auto'] = 'config'

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(GPUSettings).items():
            if getattr(self, name) not in get_args(kind):
                legal = ', '.join(map(str, get_args(kind)))
                raise UserError(f'gpu.{name} must be one of {legal}, but is {getattr(self, name)!r}')


def gpu_settings(cfg: Config) -> GPUSettings:
    """The settings of a config's ``gpu``, those that it lacks by default.

    Raises:
        UserError: If there is no such setting or value.
    """
    given = cfg.get('gpu') or {}
    known = [field.name for field in fields(GPUSettings)]
    unknown = ', '.join(map(str, set(given) - set(known))) if isinstance(given, dict) else repr(given)
    if unknown:
        raise UserError(f'the config sets gpu: {unknown}; the settings of gpu are {", ".join(known)}')
    return GPUSettings(**given)


def settle_gpu(cfg: Config, split: str = 'train', given: Container[str] = ()) -> None:
    """Set what the config's ``gpu`` says, with a log line for each setting that changes something.

    ``gpu`` itself is completed by its defaults, with 'auto' left in it: a test with the saved
    config decides by its own images. What 'auto' came to is in ``optim_wrapper`` and ``env_cfg``.

    Args:
        split: What is about to run, 'train' or 'test'.
        given: Keys that the command line has set, which stay.

    Raises:
        UserError: If there is no such setting or value.
    """
    settings = gpu_settings(cfg)
    cfg.gpu = ConfigDict(asdict(settings))
    lacking = lacking_for_triton()
    if lacking and SWITCH != '0':
        log_first(
            f"ScopeViT's kernels for GPUs stay off, since Triton lacks {lacking} (apt-get install gcc python3-dev)"
        )
    _set_tf32(settings.tf32)
    if split == 'train':
        _set_amp_dtype(cfg, settings.amp_dtype)
        if settings.fused_optimizer:
            _fuse_optimizer(cfg)
    one_size = has_one_size(cfg, split)
    _set_cudnn_benchmark(cfg, settings.cudnn_benchmark, one_size)
    _set_cudnn_attention(settings.cudnn_attention, one_size)
    if settings.workers == 'auto':
        _set_workers(cfg, given)


def _set_tf32(wanted: bool) -> None:
    # Read by this: reading allow_tf32 raises where someone has used torch's newer fp32_precision. Writing it does not.
    before = torch.get_float32_matmul_precision() != 'highest'
    torch.backends.cuda.matmul.allow_tf32 = wanted
    torch.backends.cudnn.allow_tf32 = wanted
    if wanted and not before:
        log_first('float32 matrices are multiplied in TF32 (gpu.tf32=False: in full precision)')
    elif not wanted:
        log_first('float32 matrices and convolutions in full precision')


def _set_amp_dtype(cfg: Config, wanted: str) -> None:
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') != 'AmpOptimWrapper' or wrapper.get('dtype') is not None:
        return
    why = "--amp-dtype or the config's gpu.amp_dtype"
    if wanted == 'auto':
        wanted, why = _amp_dtype_for(cfg)
    wrapper['dtype'] = wanted
    if wanted == 'bfloat16':  # it has float32's range; not to scale saves waiting for the gradients' check at each step
        wrapper['loss_scale'] = dict(enabled=False)
    scaling = ', without loss scaling' if wanted == 'bfloat16' else ''
    log_first(f'Mixed precision runs in {wanted}{scaling} ({why})')


def _amp_dtype_for(cfg: Config) -> tuple[str, str]:
    scope = cfg.get('default_scope')
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return 'float16', 'this GPU has no bfloat16'
    if scope not in _IN_BFLOAT16 or 'mmdet.' in str(cfg.get('model')):
        of = 'mmdet' if scope in _IN_BFLOAT16 else scope
        return 'float16', f'models of {of} need it; --amp-dtype bfloat16 to try the other'
    return 'bfloat16', '--amp-dtype float16 for the other'


def require_loss_scale(cfg: Config, checkpoint: dict) -> None:
    """Make sure that a training with loss scaling does not go on from one without, whose checkpoint has no scale.

    Args:
        checkpoint: The content of the config's ``load_from``.

    Raises:
        UserError: If it would.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    scales = wrapper.get('type') == 'AmpOptimWrapper' and wrapper.get('loss_scale') != dict(enabled=False)
    if scales and (checkpoint.get('optimizer') or {}).get('loss_scaler') == {}:
        raise UserError(
            f'--resume: {cfg.get("load_from")} was trained in bfloat16, without loss scaling, and now it would be '
            f'{wrapper.get("dtype") or "float16"} with it; go on with --amp-dtype bfloat16, or '
            'without --amp'
        )


def _fuse_optimizer(cfg: Config) -> None:
    """Let one of torch's optimizers update many parameters at once; several optimizers stay as they are."""
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer') or {}
    kind = optimizer.get('type')
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper') or kind not in _FUSED:
        return
    if not {'fused', 'foreach', 'differentiable'} & set(optimizer):
        optimizer['fused'] = True
        log_first(f'{kind} updates parameters of equal settings in one kernel (gpu.fused_optimizer=False: in several)')


def _set_cudnn_benchmark(cfg: Config, wanted: bool | str, one_size: bool) -> None:
    env = cfg.setdefault('env_cfg', ConfigDict())
    before = bool(env.get('cudnn_benchmark'))
    if wanted == 'auto':
        deterministic = (cfg.get('randomness') or {}).get('deterministic')  # for which MMEngine switches it off
        wanted = (before or one_size) and not deterministic
    env['cudnn_benchmark'] = wanted
    if wanted and not before:
        keep = 'gpu.cudnn_benchmark=False keeps that'
        log_first(f'cuDNN tries its algorithms for each shape, in place of env_cfg.cudnn_benchmark=False ({keep})')
    elif before and not wanted:
        log_first('cuDNN does not try its algorithms, in place of env_cfg.cudnn_benchmark=True')


def _set_cudnn_attention(wanted: bool | str, one_size: bool) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    wanted = before and one_size if wanted == 'auto' else bool(wanted)
    torch.backends.cuda.enable_cudnn_sdp(wanted)
    if before and not wanted:
        log_first(
            'Attention leaves cuDNN out, which would plan for each size of images (gpu.cudnn_attention=True uses it)'
        )
    elif wanted and not before:
        log_first('Attention may use cuDNN')


def _set_workers(cfg: Config, given: Container[str]) -> None:
    """As many as this process has cores beside the one that it runs on itself."""
    cores = usable_cores() // int(os.environ.get('LOCAL_WORLD_SIZE', 1))  # of torchrun; others give each its own cores
    number = min(max(cores - 1, 1), _MOST_WORKERS)
    before = set()
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(key) or {}
        if loader.get('num_workers', 0) not in (0, number) and f'{key}.num_workers' not in given:
            before.add(loader['num_workers'])
            loader['num_workers'] = number
    if before:
        kept = ' and '.join(map(str, sorted(before)))
        log_first(f'Data loaders have {number} workers, for {cores} cores a process (gpu.workers=config: {kept})')


def has_one_size(cfg: Config, split: str = 'train') -> bool:
    """Whether all images of a split reach the model in one size, as far as the config tells.

    Args:
        split: 'train', 'val' or 'test'.
    """
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    augments = preprocessor.get('batch_augments') or ()
    augments = augments if isinstance(augments, (list, tuple)) else ()  # mmpretrain's mix images, and leave their size
    resizes = any('RandomResize' in str(augment.get('type')) for augment in augments)
    if cfg.get('default_scope') == 'mmdet' or resizes:  # padded to the largest image of the batch, or resized with it
        return False
    padding = preprocessor if split == 'train' else preprocessor.get('test_cfg') or {}
    if padding.get('size') is not None:  # of mmseg
        return True
    loader = cfg.get(f'{split}_dataloader') or {}
    return isinstance(loader, dict) and _gives_one_size(loader.get('dataset') or {})


def _gives_one_size(dataset: dict) -> bool:
    if _ends_in_one_size(dataset.get('pipeline') or []):
        return True
    within = dataset.get('datasets') or [dataset[key] for key in ('dataset',) if key in dataset]
    return bool(within) and all(map(_gives_one_size, within))


def _ends_in_one_size(pipeline: list) -> bool:
    """Whether the last transform that decides about an image's size gives all one size."""
    for transform in reversed(pipeline):
        kind = type_name(transform)
        if kind in _ONE_SIZE:
            return True
        if kind == 'Resize':
            return 'scale' in transform and not transform.get('keep_ratio')
        if kind == 'TestTimeAug':  # the last step of each way is a flip
            ways = [way.get('transforms', []) for way in transform['transforms'][0]]
            return all(map(_ends_in_one_size, ways)) and len({repr(way[:-1]) for way in ways}) == 1
        if kind in _MANY_SIZES:
            return False
    return False


def compile_backbone(model: nn.Module, cfg: Config, *splits: str, batch_varies: bool = False) -> str:
    """Compile the backbone in place, so that checkpoints keep their names; call it just before the run.

    Args:
        splits: Whose images the model will see, of 'train', 'val' and 'test'.
        batch_varies: Whether batches are of any size, as those of an image's persons.

    Returns:
        What the log says of it.

    Raises:
        UserError: If the model has no backbone.
    """
    try:
        _, backbone = backbone_of(unwrap(model))
    except UserError as error:
        raise UserError(f'--compile compiles the backbone, but {error}: leave --compile out') from None
    if 'train' in splits:
        _require_trainable_compiled(backbone)
    backbone.compile(dynamic=_varying_sizes(cfg, splits, batch_varies))
    message = 'Compiling the backbone; the first images may take minutes'
    MMLogger.get_current_instance().info(message)
    return message


def _require_trainable_compiled(backbone: nn.Module) -> None:
    if any(isinstance(module, ScopeViTStage) and module.with_cp for module in backbone.modules()):
        raise UserError('--compile chooses itself what to compute again, and has no with_cp: leave one of them out')
    if get_world_size() > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in backbone.modules()):
        MMLogger.get_current_instance().warning(
            'The compiler cannot look into synchronised batch norms: the backbone falls into pieces, and gains little; '
            '--cfg-options sync_bn=None, where that is what synchronises them, changes the results, too'
        )


def _varying_sizes(cfg: Config, splits: tuple[str, ...], batch_varies: bool) -> bool | None:
    """Value for torch.compile's ``dynamic``.

    None if one split alone has one size, or batches alone vary: compiled for the first ones, later for all.
    """
    used = {has_one_size(cfg, split) for split in splits if cfg.get(f'{split}_dataloader')}
    if len(used) == 2 or (batch_varies and used == {True}):
        return None
    return used != {True}
