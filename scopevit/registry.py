"""ScopeViT's own registries, children of MMEngine's.

A config reaches them by prefix, ``type='scopevit.ScopeViT'``, under any toolbox's default
scope: MMEngine imports ``scopevit.registry`` when it meets the prefix, and each registry
imports its ``locations`` when it is first asked.
"""

from mmengine import registry
from mmengine.registry import Registry


def _child(parent: Registry, location: str) -> Registry:
    return Registry(parent.name, parent=parent, scope='scopevit', locations=[f'scopevit.{location}'])


MODELS = _child(registry.MODELS, 'models')
DATASETS = _child(registry.DATASETS, 'datasets.imagenet_variants')
TRANSFORMS = _child(registry.TRANSFORMS, 'datasets.transforms')
DATA_SAMPLERS = _child(registry.DATA_SAMPLERS, 'engine')
HOOKS = _child(registry.HOOKS, 'engine')
METRICS = _child(registry.METRICS, 'engine')
OPTIM_WRAPPERS = _child(registry.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(registry.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
