"""ImageNet's variants in their real layouts, with tiny images: labels, the classes that count, errors."""

import json
import os
from pathlib import Path

import pytest
import torch

from helpers import CONFIGS, SMALL_BACKBONE, fails_cleanly, tool_here, write_image
from scopevit.apis.model import build_model
from scopevit.datasets.imagenet_variants import SUBSETS, ImageNetVariant, synsets
from scopevit.engine.imagenet_variants import ALEXNET, CorruptionError, SubsetAccuracy
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError

VARIANTS = sorted(path.stem for path in (CONFIGS / 'variants').glob('*.py'))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Each variant's folders, an image in each: of 1,000 classes, and all of ImageNet-C's are the same ones."""
    root = tmp_path_factory.mktemp('variants')
    image = write_image(root / 'image.jpeg')
    for folder, names in (
        ('imagenet-a', synsets(SUBSETS['a'])),
        ('imagenet-r', synsets(SUBSETS['r'])),
        ('imagenetv2/imagenetv2-matched-frequency-format-val', map(str, range(1000))),
        ('imagenet-sketch/sketch', synsets()),
    ):
        for name in names:
            (root / folder / name).mkdir(parents=True)
            os.link(image, root / folder / name / 'x.JPEG')
        (root / folder / 'README.txt').touch()
    for name in ALEXNET:
        (root / 'imagenet-c' / name).mkdir(parents=True)
        for severity in range(1, 6):
            (root / 'imagenet-c' / name / str(severity)).symlink_to(root / 'imagenet-sketch' / 'sketch')
    return root


def labels(data, folder, **options):
    dataset = ImageNetVariant(data_root=str(data / folder), lazy_init=True, **options)
    assert len(dataset.CLASSES) == 1000
    return dataset, {Path(item['img_path']).parent.name: item['gt_label'] for item in dataset.load_data_list()}


def test_labels_are_imagenets(data):
    _, found = labels(data, 'imagenetv2/imagenetv2-matched-frequency-format-val')
    assert found == {str(label): label for label in range(1000)}  # 10 is not the third
    for folder, options in (
        ('imagenet-sketch/sketch', {}),
        ('imagenet-c/fog/3', {}),
        ('imagenet-a', dict(subset='a')),
        ('imagenet-r', dict(subset='r')),
    ):
        dataset, found = labels(data, folder, **options)
        assert len(found) == (200 if options else 1000)
        assert all(synsets()[label] == name for name, label in found.items())
        assert dataset.metainfo.get('subset') == (tuple(sorted(found.values())) if options else None)
    # Facts that are known otherwise: the fourth class is the tiger shark; ImageNet-R begins with the goldfish.
    assert synsets()[3] == 'n01491361'
    assert min(found.values()) == 1
    assert dataset.CLASSES[1].startswith('goldfish')


def sample(scores, label, path=''):
    return dict(pred_score=torch.tensor(scores), gt_label=torch.tensor([label]), img_path=path)


def test_a_class_that_the_data_do_not_have_is_not_predicted():
    scores = [0.5, 0.1, 0.3, 0.0, 0.06, 0.02, 0.01, 0.01]
    for subset, top1, top5 in ((None, 0, 50), ((2, 3, 4, 5, 6, 7), 50, 50), ((2, 3), 50, 100)):
        metric = SubsetAccuracy()
        metric.dataset_meta = dict(subset=subset) if subset else {}
        metric.process(None, [sample(scores, 2), sample(scores, 3)])
        assert metric.evaluate(2) == {'accuracy/top1': top1, 'accuracy/top5': top5}


def test_errors_are_divided_by_alexnets():
    """A model that errs half as often as AlexNet under noise, always under blur, and never elsewhere."""
    metric, wrong = CorruptionError(), dict.fromkeys(ALEXNET, 0)
    wrong.update(brightness=3, zoom_blur=10)
    for name, count in wrong.items():
        samples = [
            sample([0.1, 0.9] if i < count else [0.9, 0.1], 0, f'data/imagenet-c/{name}/{severity}/n01440764/{i}.JPEG')
            for severity in range(1, 6)
            for i in range(10)
        ]
        metric.process(None, samples)
        assert all('pred_score' not in item for item in samples)
    found = metric.evaluate(750)
    assert found['corruption/CE_brightness'] == pytest.approx(30 / 0.564592)
    assert found['corruption/CE_zoom_blur'] == pytest.approx(100 / 0.798360)
    assert found['corruption/CE_fog'] == 0
    assert found['corruption/mCE'] == pytest.approx((30 / 0.564592 + 100 / 0.798360) / 15)
    assert found['corruption/top1'] == pytest.approx(100 * (1 - 13 / 150))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'model.pth'
    torch.manual_seed(0)
    torch.save(dict(state_dict=build_model(load_config(str(small('a', path.parent)))).state_dict()), path)
    return path


def small(variant, folder, dataset=''):
    """A variant's config with a narrow model, for a few of its images."""
    path = folder / f'{variant}.py'
    path.write_text(f"""
_base_ = '{CONFIGS}/variants/scopevit-tiny_imagenet-{variant}-256px.py'
model = dict({SMALL_BACKBONE}, head=dict(in_channels=64))
test_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict({dataset}))
""")
    return path


@pytest.mark.slow
@pytest.mark.parametrize('variant', ['a', 'c', 'r', 'sketch', 'v2'])
def test_a_checkpoint_is_tested(variant, data, checkpoint, tmp_path):
    root = data / dict(v2='imagenetv2').get(variant, f'imagenet-{variant}')
    dataset = f"data_root='{root}', indices=4"
    if variant == 'c':  # of one corruption: each severity has 1,000 folders
        dataset = f"""datasets=[
            dict(part, data_root='{root}', indices=1) for part in _base_.datasets
            if part['data_prefix'].startswith('fog/')]"""
    config = small(variant, tmp_path, dataset)
    result = tool_here('test.py', config, checkpoint, '--work-dir', tmp_path / 'run')
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((tmp_path / 'run' / 'metrics.json').read_text())
    expected = dict.fromkeys(('accuracy/top1', 'accuracy/top5'))
    if variant == 'c':
        expected = dict.fromkeys(('corruption/top1', 'corruption/CE_fog'))
    assert metrics.keys() == expected.keys()


def test_all_of_imagenet_c_is_in_its_config():
    parts = load_config(
        str(CONFIGS / 'variants' / 'scopevit-tiny_imagenet-c-256px.py')
    ).test_dataloader.dataset.datasets
    assert [part.data_prefix for part in parts] == [f'{name}/{level}' for name in ALEXNET for level in range(1, 6)]
    assert len(VARIANTS) == 5


def test_without_timm_there_are_no_lists(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install timm'):
        synsets()


def test_names_what_is_wrong(data, checkpoint, tmp_path):
    with pytest.raises(UserError, match='has 200 folders, which are not those of the 1000 classes .*unpack it again'):
        ImageNetVariant(data_root=str(data / 'imagenet-a'))
    with pytest.raises(UserError, match='has 200 folders, which are not those of the 200 classes'):
        ImageNetVariant(data_root=str(data / 'imagenet-a'), subset='r')
    with pytest.raises(UserError, match="subset of an ImageNetVariant is a or r, but is 'v'"):
        ImageNetVariant(data_root=str(data / 'imagenet-a'), subset='v')
    for variant, folder, says in (('a', 'imagenet-r', 'are not those of the 200 classes'), ('r', 'nowhere', 'nowhere')):
        config = small(variant, tmp_path, f"data_root='{data / folder}'")
        fails_cleanly(tool_here('test.py', config, checkpoint, '--work-dir', tmp_path / variant), says)
