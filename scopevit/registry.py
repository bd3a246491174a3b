"""ScopeViT's own registries, children of MMEngine's.

A config reaches them by prefix, ``type='scopevit.ScopeViT'``, under any toolbox's default
scope: MMEngine imports ``scopevit.registry`` when it meets the prefix, and each registry
imports its ``locations`` when it is first asked.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='scopevit', locations=['scopevit.models'])
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='scopevit', locations=['scopevit.datasets.imagenet_variants']
)
DATA_SAMPLERS = Registry('data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='scopevit', locations=['scopevit.engine'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='scopevit', locations=['scopevit.engine'])
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope='scopevit', locations=['scopevit.engine'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='scopevit', locations=['scopevit.engine']
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='scopevit',
    locations=['scopevit.engine'],
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='scopevit', locations=['scopevit.datasets.transforms']
)
