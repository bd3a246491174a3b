"""Optimizer wrappers for MMEngine's Runner."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ..apis.model import backbone_of
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from ..utils.errors import UserError

UPDATE_EACH_ALONE = (AdamW, Adam, SGD)
"""Optimizers that update each parameter by itself, whatever others are in its group."""


def step_as_few_groups(optimizer: Optimizer) -> None:
    """Let the steps of an optimizer take groups of equal settings for one; the results are the same.

    torch steps group by group, and with ``paramwise_cfg`` MMEngine makes a group of each parameter: some 500 for two
    or three kinds of settings, each with launches of its own. Between steps the groups are as they were, for
    schedulers, logs and checkpoints.

    Args:
        optimizer: One of ``UPDATE_EACH_ALONE``; others, and one that steps so already, stay as they are.
    """
    hooks = [getattr(hook, '__self__', None) for hook in optimizer._optimizer_step_pre_hooks.values()]
    if type(optimizer) in UPDATE_EACH_ALONE and not any(isinstance(hook, _FewGroups) for hook in hooks):
        few = _FewGroups(optimizer)
        optimizer.register_step_pre_hook(few.join)
        optimizer.register_step_post_hook(few.part)
        optimizer.register_state_dict_pre_hook(few.part)
        optimizer.register_load_state_dict_pre_hook(few.part)


class _FewGroups:
    """The groups of an optimizer, and what takes their place in a step."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.settings_of = itemgetter(*optimizer.defaults)
        self.groups: list[dict] = optimizer.param_groups
        self.joined: list[dict] | None = None

    def join(self, optimizer: Optimizer, *_: object) -> None:
        self.part(optimizer)  # if the step before has failed
        self.groups = optimizer.param_groups
        kinds: list[tuple[tuple, dict]] = []
        for group in self.groups:
            # SGD's fused kernel does not take parameters with and without a momentum at once.
            begun = any('momentum_buffer' in optimizer.state.get(p, ()) for p in group['params'])
            settings = (*self.settings_of(group), begun)
            whole = next((whole for known, whole in kinds if known == settings), None)
            if whole is None:
                whole = {**group, 'params': []}
                kinds.append((settings, whole))
            whole['params'].extend(group['params'])
        optimizer.param_groups = self.joined = [whole for _, whole in kinds]

    def part(self, optimizer: Optimizer, *_: object) -> None:
        if optimizer.param_groups is self.joined:
            optimizer.param_groups = self.groups


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
