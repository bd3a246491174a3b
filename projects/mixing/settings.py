"""The comparison's models and methods, and the config of each pair of them."""

from pathlib import Path

from mmengine.config import Config

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]
RECIPE = '2xb64-9e_fashion-mnist-32px'
MODELS = {
    'scopevit-xtiny': ROOT / 'configs' / 'classification' / f'scopevit-xtiny_{RECIPE}.py',
    'p2t-tiny': PROJECT / 'configs' / f'p2t-tiny_{RECIPE}.py',
    'convnext-v2-pico': PROJECT / 'configs' / f'convnext-v2-pico_{RECIPE}.py',
}
METHODS = (
    'none',
    'mixup',
    'cutmix',
    'resizemix',
    'fmix',
    'gridmix',
    'smoothmix',
    'saliencymix',
    'attentivemix',
    'manifoldmix',
    'automix',
)
OF_MODELS = ('backbone', 'neck', 'head', 'data_preprocessor', 'init_cfg')
"""Settings of a classifier that a method leaves alone."""


def config_of(model: str, method: str) -> Config:
    """A model's config with a method, which is read from the method's config of ScopeViT-xtiny."""
    cfg = Config.fromfile(MODELS[model])
    if method == 'none':
        return cfg
    mixed = Config.fromfile(PROJECT / 'configs' / f'scopevit-xtiny_{method}_{RECIPE}.py')
    cfg.model.update({key: value for key, value in mixed.model.items() if key not in OF_MODELS})
    cfg.custom_hooks = mixed.custom_hooks
    imports = [name for part in (cfg, mixed) for name in part.get('custom_imports', {}).get('imports', ())]
    cfg.custom_imports = dict(imports=imports, allow_failed_imports=False)
    return cfg
