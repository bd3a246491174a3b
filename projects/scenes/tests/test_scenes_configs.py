"""The configs for synthetic scenes: pretraining and fine-tuning in miniature, in two processes."""

import csv
import json
import pickle
import re

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from helpers import ROOT, fails_cleanly, tool, tool_here
from scopevit.analysis import count
from scopevit.apis.model import build_model, tensor_call

PROJECT = ROOT / 'projects' / 'scenes'
CONFIGS = {path.stem: path for path in (PROJECT / 'configs').glob('*.py')}
ENTRIES = {model['Name']: model for model in yaml.safe_load((PROJECT / 'metafile.yml').read_text())['Models']}
PRETRAINING, *DENSE = ENTRIES


def load(name):
    cfg = Config.fromfile(CONFIGS[name])
    init_default_scope(cfg.default_scope)
    return cfg


def test_there_is_one_for_each_head():
    heads = ('retinanet', 'mask-rcnn', 'upernet', 'scopevit-xtiny_fpn', 'td-hm')
    assert len(DENSE) == len(heads)
    assert all(any(head in name for name in DENSE) for head in heads)
    quickstart = (ROOT / 'tools' / 'quickstart.sh').read_text()
    assert all(f'$scenes/configs/{path.name}' in quickstart for path in CONFIGS.values())


@pytest.mark.parametrize('name', sorted(CONFIGS))
def test_metafile_tells_size_and_macs(name):
    entry = ENTRIES[name]
    assert entry['Config'] == str(CONFIGS[name].relative_to(ROOT))
    torch.manual_seed(0)
    model = build_model(load(name))
    height, width = map(int, entry['Metadata']['Image Size'].split('x'))
    counted = count(model, torch.rand(1, 3, height, width), call=tensor_call(model))
    assert (entry['Metadata']['Parameters'], entry['Metadata']['FLOPs']) == (counted.parameters, counted.macs)


@pytest.mark.parametrize('name', DENSE)
def test_names_and_schedules_agree(name):
    cfg = load(name)
    gpus, batch, epochs = map(int, re.search(r'_(\d+)xb(\d+)-(\d+)e_', name).groups())
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == epochs
    assert 'SyncBuffersHook' in [hook.type for hook in cfg.custom_hooks]


@pytest.mark.parametrize('name', DENSE)
def test_layers_near_the_image_learn_more_slowly(name):
    cfg = load(name)
    model = MODELS.build(cfg.model)
    base = cfg.optim_wrapper.optimizer.lr
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    rate = {id(group['params'][0]): group['lr'] for group in groups if group['params']}
    early = next(parameter for parameter in model.backbone.parameters() if parameter.requires_grad)
    last = model.backbone.stages[-1].norm.weight
    head = next(iter((getattr(model, 'decode_head', None) or getattr(model, 'head', None) or model.neck).parameters()))
    assert rate[id(early)] < 0.6 * rate[id(last)] < rate[id(head)] == base


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """A folder whose data/scenes has a few images of each layout, an odd number of them to validate."""
    root = tmp_path_factory.mktemp('run')
    tool_here(PROJECT / 'make_scenes.py', '--out-dir', root / 'data' / 'scenes', '--count', 12, 5, check=True)
    return root


@pytest.fixture(scope='module')
def published(scenes):
    """The pretrained backbone, trained for an epoch and published."""
    work_dir = scenes / 'pretraining'
    options = ('train_cfg.max_epochs=1', 'train_dataloader.batch_size=6')
    tool('dist_train.sh', CONFIGS[PRETRAINING], 2, '--work-dir', work_dir, '--cfg-options', *options, cwd=scenes)
    tool_here('converters/publish_model.py', work_dir / 'epoch_1.pth', scenes / 'published.pth', check=True)
    (path,) = scenes.glob('published-*.pth')
    return path


def mean_of(column, table):
    """The mean of a CSV's column, of the rows that have it."""
    with table.open() as file:
        return np.mean([float(row[column]) for row in csv.DictReader(file) if row[column]])


def numbers(value):
    """All numbers of a prediction, in order."""
    if isinstance(value, dict):
        return [n for key in sorted(value) for n in numbers(value[key])]
    if isinstance(value, (list, tuple)):
        return [n for item in value for n in numbers(item)]
    if isinstance(value, (str, bytes, type(None))):
        return []
    return np.asarray(value, dtype=np.float64).flatten().tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('head', 'threshold'),
    [
        ('mask-rcnn', ['model.test_cfg.rcnn.score_thr=0.0', 'model.test_cfg.rcnn.max_per_img=10']),
        ('upernet', []),
        ('td-hm', []),
    ],
)
def test_two_processes_fine_tune_and_evaluate(head, threshold, scenes, published, tmp_path):
    """Every key of the backbone matches; both processes' predictions are gathered, each once and in order."""
    config = next(CONFIGS[name] for name in DENSE if head in name)
    loaders = [f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')]
    loaders += [f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')]
    options = ['--cfg-options', *loaders, 'train_dataloader.batch_size=3', 'train_cfg.max_epochs=1', *threshold]
    options += ['val_dataloader.batch_size=1', 'test_dataloader.batch_size=1']
    one_thread = dict(OMP_NUM_THREADS='1')  # sums in the same order everywhere
    run = dict(cwd=scenes, env=one_thread)
    words = ('--work-dir', tmp_path, '--seed', 0, '--pretrained', published)
    result = tool('dist_train.sh', config, 2, *words, *options, **run)
    log = result.stdout + result.stderr
    (matched,) = set(re.findall(r'Backbone from .*: (\d+) matched, 0 missing, 0 unexpected, 0 of another shape', log))
    assert int(matched) > 200
    checkpoint = (tmp_path / 'last_checkpoint').read_text()
    tool('test.py', config, checkpoint, '--work-dir', tmp_path / 'one', *options, **run)
    tool('dist_test.sh', config, checkpoint, 2, '--work-dir', tmp_path / 'two', *options, **run)
    one, two = (
        (
            json.loads((tmp_path / kind / 'metrics.json').read_text()),
            pickle.loads((tmp_path / kind / 'predictions.pkl').read_bytes()),
        )
        for kind in ('one', 'two')
    )
    assert one[0]
    assert one[0] == two[0]
    assert len(one[1]) == len(two[1])
    for first, second in zip(one[1], two[1]):
        assert first['img_path'] == second['img_path']
        assert numbers(first) == numbers(second)
    table = 'per_keypoint.csv' if head == 'td-hm' else 'per_class.csv'
    assert len({(tmp_path / kind / 'analysis' / table).read_text() for kind in ('one', 'two')}) == 1
    # The rest of the analysis.
    words = ('analysis/analyze_predictions.py', config, tmp_path / 'two' / 'predictions.pkl', '--count', 2)
    result = tool_here(*words, '--out-dir', tmp_path / 'read', cwd=scenes)
    assert result.returncode == 0, result.stderr[-3000:]
    files = {'per_image.csv', 'worst.jpg', table} | (set() if head == 'td-hm' else {'confusion_matrix.png'})
    assert files <= {path.name for path in (tmp_path / 'read').iterdir()}
    if head == 'upernet':
        assert mean_of('IoU', tmp_path / 'read' / table) == pytest.approx(one[0]['mIoU'] / 100, abs=1e-4)
    # The figure of predictions beside the ground truth.
    out = tmp_path / 'predictions.png'
    tool(
        'visualization/draw_predictions.py',
        config,
        tmp_path / 'two' / 'predictions.pkl',
        '--out',
        out,
        '--count',
        2,
        cwd=scenes,
    )
    assert out.stat().st_size > 10_000
    assert tool_here('visualization/plot_curves.py', tmp_path).returncode == 0
    assert (tmp_path / 'curves.png').exists()


@pytest.mark.parametrize('name', sorted(CONFIGS))
def test_samples_of_every_config_can_be_looked_at(name, scenes, tmp_path):
    out = tmp_path / 'samples.png'
    fails_cleanly(tool_here('visualization/browse_dataset.py', CONFIGS[name], '--out', 'samples'), 'must end in .png')
    result = tool_here('visualization/browse_dataset.py', CONFIGS[name], '--out', out, '--count', 4, cwd=scenes)
    assert result.returncode == 0, result.stderr[-3000:]
    assert out.stat().st_size > 10_000
