"""The page on full runs: its commands fit the configs and keep the recipes, and its lengths are the configs'."""

import functools
import re
import shlex
from unittest import mock

import pytest
import yaml

from helpers import ROOT, load_tool
from scopevit.engine.options import accumulate
from scopevit.utils.config import load_config

PAGE = (ROOT / 'docs' / 'reproduce.md').read_text()
LINES = ''.join(re.findall(r'```bash\n(.*?)```', PAGE, flags=re.DOTALL)).replace('\\\n', ' ').splitlines()
EIGHT_GPUS = [line for line in LINES if line.startswith('bash ')]
ONE_GPU = [line for line in LINES if line.startswith('python ')]
TABLE = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in PAGE.splitlines()
    if re.search(r'\d+ (images|persons)', line) and line.startswith('|')
]


def parsed(line):
    # The page's placeholder stands for a file that there is.
    words = [__file__ if word == 'CHECKPOINT' else word for word in shlex.split(line)]
    options = words[4 if words[0] == 'bash' else 3 :]  # after the number of GPUs
    with mock.patch('sys.argv', ['train.py', words[2], *options]):
        return words[2], load_tool('train.py').parse_args()


def lengths(cfg):
    """What is counted in batches, and what in epochs."""
    by_iter, by_epoch = [], []
    loop = cfg.train_cfg
    (by_iter if 'max_iters' in loop else by_epoch).extend(
        [loop.get('max_iters') or loop.max_epochs, loop.get('val_interval', 1)]
    )
    for scheduler in cfg.param_scheduler:
        place = by_epoch if scheduler.get('by_epoch', True) else by_iter
        place.extend([scheduler.get('begin', 0), scheduler.end, *scheduler.get('milestones', [])])
    checkpoint = cfg.default_hooks.checkpoint
    (by_epoch if checkpoint.get('by_epoch', True) else by_iter).append(checkpoint.interval)
    by_iter.extend(number for pair in loop.get('dynamic_intervals', []) for number in pair)
    return by_iter, by_epoch


def test_every_family_has_both_commands():
    eight, one = ([parsed(line) for line in lines] for lines in (EIGHT_GPUS, ONE_GPU))
    assert [config for config, _ in eight] == [config for config, _ in one]
    benchmarks = {
        str(path.relative_to(ROOT))
        for path in (ROOT / 'configs').glob('*/*scopevit-tiny*.py')
        if re.search('_(in1k|coco|ade20k)', path.stem) and '-as-run' not in path.stem
    }
    assert {config for config, _ in eight} == benchmarks
    for config, args in [*eight, *one]:
        assert bool(args.pretrained) == ('classification' not in config)


@pytest.mark.parametrize('line', ONE_GPU, ids=lambda line: line.split()[2].rpartition('/')[2])
def test_accumulation_keeps_the_recipe(line):
    config, args = parsed(line)
    eight, one = load_config(str(ROOT / config)), load_config(str(ROOT / config), args.cfg_options)
    accumulate(one, args.accumulate)
    assert one.optim_wrapper.accumulative_counts == 8
    assert one.train_dataloader.batch_size == eight.train_dataloader.batch_size  # on each GPU
    by_iter, by_epoch = lengths(eight)
    assert lengths(one) == ([8 * length for length in by_iter], by_epoch)
    for before, after in zip(eight.get('custom_hooks', []), one.get('custom_hooks', [])):
        assert after.get('interval') == (8 if before.type == 'EMAHook' else before.get('interval'))


def named_in(row):
    """The configs that a row of the table stands for."""
    key = {
        'ImageNet': '_in1k-256px',
        '384 px': '_in1k-384px',
        'RetinaNet': '_1x_',
        'DINO': 'dino-',
        'instances': 'lsj',
        'ms-3x': '_ms-3x_',
        '80k': '_fpn_8xb4',
        '160k': '-160k_',
        'RTMPose': 'rtmpose',
        'pose': 'td-hm',
    }
    name = next(value for words, value in key.items() if words in row[0])
    configs = [config for config, _ in map(parsed, EIGHT_GPUS) if name in config]
    assert configs
    return configs


@pytest.mark.parametrize('row', TABLE, ids=lambda row: re.findall(r'\w[^,\]]*', row[0])[0])
def test_lengths_are_the_configs(row):
    images, batch, per_epoch, epochs, total = (float(re.sub('[^0-9.]', '', cell)) for cell in row[1:-1])
    for config in named_in(row):
        cfg = load_config(str(ROOT / config))
        loader = cfg.train_dataloader
        of_process = -(-images // 8)
        size = loader.batch_size
        assert batch == 8 * size
        assert per_epoch == (of_process // size if loader.get('drop_last') else -(-of_process // size))
        if 'max_iters' in cfg.train_cfg:
            assert total == cfg.train_cfg.max_iters
            assert epochs == pytest.approx(total * batch / images, abs=0.05)
        else:
            assert epochs == cfg.train_cfg.max_epochs
            assert total == per_epoch * epochs


@pytest.mark.parametrize('row', TABLE, ids=lambda row: re.findall(r'\w[^,\]]*', row[0])[0])
def test_disk_is_what_the_configs_keep(row):
    assert {f'{gigabytes(config):.1f}' for config in named_in(row)} == set(row[-1].split(', '))


def gigabytes(config):
    """Of the checkpoints that a training leaves: weights in 4 bytes, AdamW's two moments, averaged weights.

    The best one has no moments.
    """
    cfg = load_config(str(ROOT / config))
    hook, length = cfg.default_hooks.checkpoint, cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs
    keep = hook.get('max_keep_ckpts', -1)
    kept = keep if keep > 0 else length // hook.interval
    weights = 8 if any(custom.type.endswith('EMAHook') for custom in cfg.get('custom_hooks', [])) else 4
    of_best = weights if hook.get('save_best') else 0
    return parameters()[config] * (kept * (weights + 8) + of_best) / 1e9


@functools.cache
def parameters():
    """Of each config, as its metafile has them."""
    files = (yaml.safe_load(path.read_text()) for path in (ROOT / 'configs').glob('*/metafile.yml'))
    return {model['Config']: model['Metadata'].get('Parameters') for file in files for model in file['Models']}


def test_the_table_has_all_families():
    assert len(TABLE) == 10
