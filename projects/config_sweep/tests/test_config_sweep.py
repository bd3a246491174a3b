"""The sweep over the benchmark configs: what it finds, and when it writes its table."""

import json

import pytest

from helpers import ROOT, fails_cleanly, load_tool, tool_here
from scopevit.utils.config import load_config, walk

PROJECT = ROOT / 'projects' / 'config_sweep'
SWEEP = PROJECT / 'config_sweep.py'


@pytest.fixture(scope='module')
def sweep():
    return load_tool(SWEEP)


def row(config, status='works'):
    return dict(
        config=config, status=status, date='2026-01-31', seconds=[10, 12], losses=[2, 1.5, 1.25, 1], validated=2
    )


@pytest.fixture
def folder(sweep, tmp_path):
    """A sweep's folder whose data are there already."""
    for name, write in sweep.DATA.items():
        write(str(tmp_path / 'data' / name), 0, 8, 4)
    return tmp_path


def test_it_knows_the_benchmarks_and_nothing_else(sweep):
    configs = sweep.benchmarks(sweep.OUR_CONFIGS)
    assert 'configs/detection/mask-rcnn_scopevit-tiny_fpn_1x_coco.py' in configs
    assert not [config for config in configs if 'scenes' in config or 'custom' in config or 'mnist' in config]


def test_the_committed_table_is_of_all_configs(sweep):
    lines = (PROJECT / 'README.md').read_text().splitlines()
    rows = [line.split(' | ') for line in lines if line.startswith('| configs/')]
    assert sorted(row[0].removeprefix('| ') for row in rows) == sorted(sweep.benchmarks(sweep.OUR_CONFIGS))
    assert {row[2] for row in rows} == {'works'}


def test_finished_configs_are_not_run_again_and_make_the_table(sweep, folder):
    rows = [row(config) for config in sweep.benchmarks(sweep.OUR_CONFIGS)]
    (folder / 'results.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    result = tool_here(SWEEP, '--work-dir', folder, '--table', folder / 'table.md')
    assert result.returncode == 0, result.stderr
    text = (folder / 'table.md').read_text()
    assert f'{len(rows)} of {len(rows)} work' in text
    assert f'| {rows[0]["config"]} | 2026-01-31 | works | 2, 1.5, 1.25, 1 | 10 + 12 |' in text


def test_unfinished_sweep_writes_no_table(sweep, folder):
    config = 'configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py'
    (folder / 'results.jsonl').write_text(json.dumps(row(config)) + '\n')
    words = ('--work-dir', folder, '--only', config, '--table', folder / 'table.md')
    fails_cleanly(tool_here(SWEEP, *words), 'were not run yet')
    assert not (folder / 'table.md').exists()


def test_failed_config_is_named(sweep, folder):
    config = 'configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py'
    (folder / 'results.jsonl').write_text(json.dumps(row(config, 'failed with 1')) + '\n')
    fails_cleanly(tool_here(SWEEP, '--work-dir', folder, '--only', config), '1 of 1', config)
    fails_cleanly(tool_here(SWEEP, '--work-dir', folder, '--only', 'xyz'), "'xyz'")
    fails_cleanly(tool_here(SWEEP, '--configs', 'configs/none/*.py'), 'configs/none', 'no config')


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    [
        'detection/retinanet_scopevit-xtiny_fpn_1x_coco',
        'detection/mask-rcnn_scopevit-xtiny_fpn_1x_coco',
        'segmentation/scopevit-xtiny_fpn_8xb4-80k_ade20k-512x512',
        'segmentation/scopevit-xtiny_upernet_8xb2-160k_ade20k-512x512',
        'pose/td-hm_scopevit-xtiny_8xb32-210e_coco-256x192',
    ],
)
def test_one_config_for_each_head_trains_validates_and_resumes(sweep, config, folder):
    """On the toolboxes' own data classes and metrics, with smaller images than the sweep has."""
    cfg = load_config(str(ROOT / 'configs' / f'{config}.py'))
    for settings in walk(cfg._cfg_dict):
        for key in ('scale', 'crop_size', 'size'):
            if isinstance(settings.get(key), tuple) and max(settings[key]) >= 512:
                settings[key] = tuple(-(-length // 128) * 32 for length in settings[key])
    cfg.dump(folder / f'{config.rpartition("/")[2]}.py')
    row = sweep.run(str(folder / f'{config.rpartition("/")[2]}.py'), folder)
    assert row['status'] == 'works', row
    assert len(row['losses']) == 4
