"""Checks before a training leave its results as they are."""

import os
import signal

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from helpers import TOY, quiet_toolboxes
from scopevit.checks.channels import check_channels
from scopevit.checks.training import failures_explained, require_sound_data
from scopevit.utils.checkpoint import read_checkpoint
from scopevit.utils.errors import UserError


@pytest.mark.slow
def test_training_with_checks_gives_the_same_weights_as_without(fashion_mnist, toy_options, tmp_path):
    """Bit for bit: data in random order, random augmentation, stochastic depth."""
    random_parts = {
        'train_cfg.max_epochs': 1,
        'model.backbone.rel_pos_drop': 0.5,
        'model.backbone.drop_path_rate': 0.5,
        'train_dataloader.dataset.pipeline': [
            dict(type='RandomCrop', crop_size=28, padding=4),
            dict(type='Resize', scale=32),
            dict(type='PackInputs'),
        ],
    }
    data = dict(option.split('=') for option in toy_options[1:])
    weights = []
    for checked in (False, True):
        cfg = Config.fromfile(TOY)
        cfg.merge_from_dict({**data, **random_parts, 'work_dir': str(tmp_path / str(checked))})
        with quiet_toolboxes():
            runner = Runner.from_cfg(cfg)
            if checked:
                assert list(check_channels(runner.model)) == []
                require_sound_data(runner, 'toy')
            runner.train()
        weights.append(read_checkpoint(tmp_path / str(checked) / 'epoch_1.pth')['state_dict'])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


class Deadly(torch.utils.data.Dataset):
    """Its first item ends the process that reads it, as the system does when memory is short."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_data_loaders_process_that_is_gone_is_explained():
    loader = torch.utils.data.DataLoader(Deadly(), num_workers=1)
    with pytest.raises(UserError, match='DataLoader worker .* MiB free'), failures_explained(None, 'config.py'):
        next(iter(loader))
