"""xtcocotools from its Python files and pycocotools: the same evaluation as that of its compiled wheel."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from scopevit.stack import mmpose

# The compiled wheel that is downloaded is for Python 3.11, with numpy 1.
COMPILED_RUNS = sys.version_info[:2] == (3, 11) and int(np.__version__.split('.')[0]) < 2
SCRIPT = """
import json, sys
import numpy as np
from xtcocotools.coco import COCO
from xtcocotools.cocoeval import COCOeval
from xtcocotools import mask
results = {}
for kind in ('bbox', 'segm', 'keypoints', 'keypoints_crowd'):
    coco = COCO('annotations.json')
    sigmas = None if 'keypoints' not in kind else np.full(17, 0.07)
    evaluation = COCOeval(coco, coco.loadRes('results.json'), kind, sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    results[kind] = list(evaluation.stats)
polygon = [[3.0, 3.0, 30.0, 4.0, 18.0, 40.0]]
encoded = mask.frPyObjects(polygon, 50, 60)
results['area'] = mask.area(encoded).tolist()
results['pixels'] = int(mask.decode(encoded).sum())
results['box'] = mask.toBbox(encoded).tolist()
results['iou'] = mask.iou(encoded, mask.frPyObjects([[0.0, 0.0, 20.0, 0.0, 20.0, 20.0]], 50, 60), [0]).tolist()
json.dump(results, open(sys.argv[1], 'w'))
"""


def write_people(folder):
    """Forty people in ten images, some of them crowds or hidden, and detections some way off."""
    rng = np.random.default_rng(0)
    images, annotations, results = [], [], []
    for i in range(10):
        images.append(dict(id=i, file_name=f'{i}.jpg', height=200, width=300, crowdIndex=i / 10))
        for _ in range(4):
            x, y, w, h = rng.uniform(0, 150), rng.uniform(0, 80), rng.uniform(30, 150), rng.uniform(30, 120)
            points = np.stack([rng.uniform(x, x + w, 17), rng.uniform(y, y + h, 17), rng.integers(0, 3, 17)], 1)
            polygon = [[x, y, x + w, y, x + w / 2, y + h]]
            common = dict(image_id=i, category_id=1, bbox=[x, y, w, h])
            annotations.append(
                dict(
                    common,
                    id=len(annotations) + 1,
                    area=w * h / 2,
                    iscrowd=int(rng.random() < 0.15),
                    segmentation=polygon,
                    keypoints=points.ravel().tolist(),
                    num_keypoints=int((points[:, 2] > 0).sum()),
                )
            )
            moved = points[:, :2] + rng.normal(0, 4, (17, 2))
            keypoints = np.concatenate([moved, np.ones((17, 1))], 1).ravel().tolist()
            segmentation = [[x + 3, y, x + w, y + 2, x + w / 2, y + h]]
            score = float(rng.random())
            results.append(dict(common, score=score, keypoints=keypoints, segmentation=segmentation))
    category = dict(id=1, name='person', keypoints=[str(k) for k in range(17)], skeleton=[])
    content = dict(images=images, annotations=annotations, categories=[category])
    (folder / 'annotations.json').write_text(json.dumps(content))
    # Results hold one kind each: loadRes looks at the first entry.
    (folder / 'results.json').write_text(json.dumps(results))


def evaluate(site, folder, name):
    # In a process of its own: two packages of one name.
    script = f'import sys; sys.path.insert(0, {str(site)!r}); {SCRIPT}'.replace('; \nimport', '\nimport')
    result = subprocess.run([sys.executable, '-c', script, name], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / name).read_text())


@pytest.fixture(scope='module')
def compiled(tmp_path_factory):
    """The wheel that the installation starts from."""
    folder = tmp_path_factory.mktemp('wheel')
    mmpose.download_xtcocotools(folder)
    return next(folder.glob('xtcocotools-*.whl'))


def unpacked(wheel, folder):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def test_pure_wheel_is_for_every_python(compiled, tmp_path):
    wheel = mmpose.make_pure_wheel(compiled, tmp_path)
    assert wheel.name.endswith('-py3-none-any.whl')
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        record = file.read(next(name for name in names if name.endswith('/RECORD'))).decode()
    assert not any(name.endswith('.so') for name in names)
    assert {line.split(',')[0] for line in record.split()} == set(names)
    site = tmp_path / 'site'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', site, wheel], check=True)
    write_people(tmp_path)
    results = evaluate(site, tmp_path, 'pure')
    assert 0.2 < results['keypoints'][0] < 1
    assert results['pixels'] == results['area'][0]


if COMPILED_RUNS:

    def test_poses_crowds_boxes_and_masks_are_evaluated_as_by_the_compiled_one(compiled, tmp_path):
        write_people(tmp_path)
        pure = unpacked(mmpose.make_pure_wheel(compiled, tmp_path), tmp_path / 'pure_site')
        assert evaluate(pure, tmp_path, 'pure') == evaluate(
            unpacked(compiled, tmp_path / 'compiled_site'), tmp_path, 'compiled'
        )


def test_versions_are_those_of_the_tested_stack(root):
    tested = (root / 'requirements' / 'constraints.txt').read_text().splitlines()
    assert {f'xtcocotools=={mmpose.XTCOCOTOOLS}', f'mmpose{mmpose.MMPOSE}'} <= set(tested)


def test_what_is_there_needs_no_network(monkeypatch):
    calls = []
    monkeypatch.setattr(mmpose, 'pip', lambda *words: calls.append(words[0]))
    mmpose.install(mmpose.MMPOSE)
    assert calls == ['install']  # of mmpose itself, by which pip looks whether it is there
    assert not mmpose.works('xtcocotools', '1.0', 'xtcocotools.mask')
    assert not mmpose.works('xtcocotools', mmpose.XTCOCOTOOLS, 'xtcocotools.no_such_module')
    assert not mmpose.works('no-such-package', '1.0', 'sys')


def test_an_environment_without_pip_gets_it(monkeypatch):
    calls = []
    monkeypatch.setattr(mmpose.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(mmpose.subprocess, 'run', lambda command, check: calls.append(command))
    monkeypatch.setattr(mmpose, 'install', lambda version: calls.append(version))
    monkeypatch.setattr(sys, 'argv', ['install-mmpose'])
    mmpose.main()
    assert calls == [[sys.executable, '-m', 'ensurepip'], mmpose.MMPOSE]


def test_a_pip_that_fails_is_named(monkeypatch):
    def fail(command, check):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(mmpose, 'works', lambda *words: False)
    monkeypatch.setattr(mmpose.subprocess, 'run', fail)
    monkeypatch.setattr(sys, 'argv', ['install-mmpose'])
    with pytest.raises(SystemExit, match='error: pip could not do this: pip download --no-deps.*xtcocotools') as end:
        mmpose.main()
    assert 'scopevit doctor' in str(end.value)
