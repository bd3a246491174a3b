"""tools/swap_backbone.py and train.py --swap-backbone, as a user runs them."""

import pytest
from mmengine.config import Config

from helpers import fails_cleanly, tool_here
from scopevit.swap.trial import try_model
from scopevit.utils.checkpoint import read_checkpoint

RESNET = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
pytestmark = pytest.mark.slow


def test_prints_changes_or_a_diff_and_writes_nothing(tmp_path):
    result = tool_here('swap_backbone.py', RESNET, '--arch', 'xtiny', cwd=tmp_path, check=True)
    assert 'model.head.in_channels: 512 -> 256' in result.stdout
    assert "'type': 'scopevit.ScopeViT', 'arch': 'xtiny'" in result.stdout
    assert result.stdout.count('\n') <= 4  # what changed, and no more
    assert 'note: data_preprocessor: mean [125.307' in result.stderr  # of CIFAR, which stays
    result = tool_here('swap_backbone.py', RESNET, '--show-diff', cwd=tmp_path, check=True)
    lines = result.stdout.splitlines()
    assert any(line[0] == '+' and "type='scopevit.ScopeViT'" in line for line in lines)
    assert any(line[0] == '-' and 'in_channels=512' in line for line in lines)
    words = ('--cfg-options', 'model.backbone.drop_path_rate=0.3', 'model.head.num_classes=7')
    result = tool_here('swap_backbone.py', RESNET, *words, '--show-diff', cwd=tmp_path, check=True)
    assert 'drop_path_rate=0.3' in result.stdout
    assert 'num_classes=7' in result.stdout
    assert not list(tmp_path.iterdir())


def test_written_config_stands_alone(tmp_path):
    out = tmp_path / 'swapped.py'
    tool_here('swap_backbone.py', 'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py', '--out', out, check=True)
    cfg = Config.fromfile(out)
    assert '_base_' not in out.read_text()
    assert cfg.model.neck.in_channels == [32, 64, 128, 256]
    assert 'pretrained' not in cfg.model
    try_model(cfg)  # builds and runs from the file, with nothing imported for it


def test_refuses_and_writes_nothing(tmp_path):
    out = tmp_path / 'out.py'
    lifter = 'mmpose::body_3d_keypoint/image_pose_lift/h36m/image-pose-lift_tcn_8xb64-200e_h36m.py'
    fails_cleanly(tool_here('swap_backbone.py', lifter, '--out', out), 'model.backbone: it cannot be run here')
    fails_cleanly(tool_here('swap_backbone.py', RESNET, '--arch', 'huge', '--out', out), "invalid choice: 'huge'")
    fails_cleanly(tool_here('swap_backbone.py', 'no.py', '--out', out), 'config no.py does not exist')
    assert not out.exists()
    out.write_text('precious')
    fails_cleanly(tool_here('swap_backbone.py', RESNET, '--out', out), 'exists already and is left as it is')
    assert out.read_text() == 'precious'
    fails_cleanly(tool_here('swap_backbone.py', RESNET, '--out', tmp_path / 'a.txt'), 'must end with .py')
    away = out / 'a.py'
    fails_cleanly(tool_here('swap_backbone.py', RESNET, '--out', away), 'cannot write to')


def test_training_with_a_swapped_backbone_and_testing_from_the_work_dir(fashion_mnist, tmp_path):
    """mmpretrain's LeNet for MNIST, whose files have the same names and form as Fashion-MNIST's."""
    options = [f'{loader}_dataloader.dataset.data_prefix={fashion_mnist}' for loader in ('train', 'val', 'test')]
    options += ['train_dataloader.dataset.indices=64', 'val_dataloader.dataset.indices=32']
    options += ['train_dataloader.batch_size=32', 'train_cfg.max_epochs=1', 'model.backbone.drop_path_rate=0.1']
    resnet = tmp_path / 'resnet_mnist.py'
    resnet.write_text(
        "_base_ = 'mmpretrain::lenet/lenet5_mnist.py'\n"
        "model = dict(backbone=dict(_delete_=True, type='ResNet', depth=18, in_channels=1, out_indices=(3,)),\n"
        "             neck=dict(_delete_=True, type='GlobalAveragePooling'),\n"
        "             head=dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=512))\n"
    )
    work_dir = tmp_path / 'run'
    tool_here(
        'train.py', resnet, '--swap-backbone', 'xtiny', '--work-dir', work_dir, '--cfg-options', *options, check=True
    )
    cfg = Config.fromfile(work_dir / 'resnet_mnist.py')
    assert cfg.model.backbone.type == 'scopevit.ScopeViT'
    assert cfg.model.backbone.drop_path_rate == 0.1
    weights = read_checkpoint(str(work_dir / 'epoch_1.pth'))['state_dict']
    assert weights['backbone.stages.0.patch_embed.0.weight'].shape[1] == 1
    # The saved config is the swapped one.
    tool_here(
        'test.py', work_dir / 'resnet_mnist.py', work_dir / 'epoch_1.pth', '--work-dir', tmp_path / 'test', check=True
    )
    assert (tmp_path / 'test' / 'metrics.json').is_file()
    result = tool_here('train.py', resnet, '--swap-backbone', 'huge', '--work-dir', tmp_path / 'no')
    fails_cleanly(result, "invalid choice: 'huge'")
