"""Optimizer wrappers for MMEngine's Runner."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from ..apis.model import backbone_of
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from ..utils.errors import UserError


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16 on the CPU, where MMEngine's AmpOptimWrapper refuses to run.

    bfloat16 has float32's range, so no loss scaling is needed.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise learning-rate decay for a model of any toolbox.

    The head learns at the full rate; a backbone's layer learns the more slowly the further it
    is from the head: by ``layer_decay_rate`` for each layer that the backbone's
    ``get_layer_depth`` counts. All other options of ``paramwise_cfg`` work as in MMEngine. In a
    config::

        optim_wrapper = dict(
            constructor='scopevit.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.8))

    Raises:
        UserError: If ``layer_decay_rate`` is missing or not in (0, 1], the optimizer has no
            ``lr``, or the model no backbone with ``get_layer_depth``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        rate = (paramwise_cfg or {}).get('layer_decay_rate')
        if rate is None or not 0 < rate <= 1:
            raise UserError(f'paramwise_cfg.layer_decay_rate must be above 0 and at most 1, but is {rate}')
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        if self.base_lr is None:
            raise UserError('layer-wise decay needs a learning rate: set optim_wrapper.optimizer.lr')

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        super().add_params(params, module, prefix, **kwargs)
        if prefix:  # MMEngine comes here for every module; at the end, for the whole model
            return
        rate = self.paramwise_cfg['layer_decay_rate']
        name, backbone = backbone_of(module)
        depth_of = getattr(backbone, 'get_layer_depth', None)
        if depth_of is None:
            raise UserError(
                f'layer-wise decay needs a backbone with get_layer_depth, which {type(backbone).__name__} lacks'
            )
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            depth, num_layers = depth_of(names[id(group['params'][0])], f'{name}.')
            group['lr'] = group.get('lr', self.base_lr) * rate ** (num_layers - 1 - depth)
