"""Training with faulty data: it goes on, or ends with what is wrong with them and what to do."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import COMPILED_MMCV, ROOT, fails_cleanly, image_folders, tool_here, write_image

pytestmark = pytest.mark.slow
CONFIGS = ROOT / 'configs'
LOADERS = """
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, batch_size=2)
val_dataloader = dict(**loader)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
default_hooks = dict(checkpoint=dict(interval=1))
arch = dict(_delete_=True, embed_dims=(16, 16, 16, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4))
"""
MASK_RCNN = f"""
_base_ = '{CONFIGS}/detection/mask-rcnn_scopevit-tiny_fpn_1xb8-20e-ft_custom.py'
{LOADERS}
model = dict(
    backbone=dict(arch=arch),
    neck=dict(in_channels=[16, 16, 16, 32], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32, num_classes=2),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=2),
    ),
)
metainfo = dict(classes=('cat', 'dog'))
train_pipeline = _base_.train_pipeline
train_pipeline[2].scales = [(96, 64)]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (96, 64)
train_dataloader.update(dataset=dict(metainfo=metainfo, pipeline=train_pipeline))
val_dataloader.update(dataset=dict(metainfo=metainfo, pipeline=test_pipeline))
"""
SEMANTIC_FPN = f"""
_base_ = '{CONFIGS}/segmentation/scopevit-tiny_fpn_1xb8-60e-ft_custom-512x512.py'
{LOADERS}
model = dict(
    backbone=dict(arch=arch),
    data_preprocessor=dict(size=(64, 64)),
    neck=dict(in_channels=[16, 16, 16, 32], out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16),
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (128, 64)
train_pipeline[3].crop_size = (64, 64)
train_dataloader.update(dataset=dict(pipeline=train_pipeline))
val_dataloader.update(dataset=dict(pipeline=test_pipeline))
"""
POSE = f"""
_base_ = '{CONFIGS}/pose/td-hm_scopevit-tiny_1xb32-40e-ft_custom-256x192.py'
{LOADERS}
codec = dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=1)
model = dict(
    backbone=dict(arch=arch), head=dict(in_channels=32, deconv_out_channels=(16, 16, 16), decoder=codec)
)
train_pipeline, val_pipeline = _base_.train_pipeline, _base_.val_pipeline
for step in train_pipeline + val_pipeline:
    if 'input_size' in step:
        step.input_size = codec['input_size']
    if 'encoder' in step:
        step.encoder = codec
del step
train_dataloader.update(dataset=dict(pipeline=train_pipeline))
val_dataloader.update(dataset=dict(pipeline=val_pipeline))
"""
CLASSIFIER = f"""
_base_ = '{CONFIGS}/classification/scopevit-tiny_1xb64-30e-ft_custom-256px.py'
{LOADERS}
model = dict(backbone=dict(arch=arch), head=dict(in_channels=32, num_classes=3))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].scale = test_pipeline[2].crop_size = 64
test_pipeline[1].scale = 71
train_dataloader.update(dataset=dict(pipeline=train_pipeline))
val_dataloader.update(dataset=dict(pipeline=test_pipeline))
data_preprocessor = dict(num_classes=3)
"""


def train(config, folder, *options):
    path = folder / 'own.py'
    path.write_text(config)
    words = ['--cfg-options', *options] if options else []
    result = tool_here('train.py', path, '--work-dir', folder / 'run', *words, cwd=folder)
    result.log = result.stdout + result.stderr
    return result


def trained(result, folder):
    assert result.returncode == 0, result.log[-4000:]
    assert (folder / 'run' / 'epoch_1.pth').is_file()
    assert 'nan' not in ''.join(line for line in result.log.splitlines() if ' loss: ' in line)


def fails_with(result, *says):
    """A failure within a training: its traceback, and at the end what the checks found."""
    assert result.returncode != 0
    assert 'Traceback' in result.stderr, result.stderr[-3000:]
    last = result.stderr.rpartition('error: the run failed, see above')[2]
    for words in says:
        assert words in last, result.stderr[-3000:]


def annotation(number, image, category=1, box=(10, 10, 30, 40)):
    x, y, w, h = box
    joints = [[x + k, y + k, 2] for k in range(17)]
    return dict(
        id=number,
        image_id=image,
        category_id=category,
        iscrowd=0,
        area=w * h,
        bbox=list(box),
        segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
        num_keypoints=17,
        keypoints=np.ravel(joints).tolist(),
    )


@pytest.fixture
def coco(tmp_path):
    """Four images a split of a cat and a dog (or two people)."""
    for split in ('train', 'val'):
        images, annotations = [], []
        for i in range(4):
            write_image(tmp_path / 'data/custom' / split / f'{i}.jpg', seed=i, size=(60, 80))
            images.append(dict(id=i, file_name=f'{i}.jpg', width=80, height=60))
            annotations += [annotation(2 * i + 1, i), annotation(2 * i + 2, i, 2, (30, 5, 40, 30))]
        categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
        path = tmp_path / 'data/custom/annotations' / f'{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return tmp_path


@pytest.fixture
def maps(tmp_path):
    """Four images a split with label maps of two classes."""
    for split in ('train', 'val'):
        for i in range(4):
            write_image(tmp_path / 'data/custom/images' / split / f'{i}.jpg', seed=i, size=(60, 80))
            write_labels(tmp_path, split, i, np.random.default_rng(i).integers(0, 2, (6, 8), dtype=np.uint8))
    return tmp_path


def write_labels(folder, split, i, labels):
    path = folder / 'data/custom/masks' / split / f'{i}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), labels.repeat(10, 0).repeat(10, 1))


def edit(folder, change, split='train'):
    path = folder / 'data/custom/annotations' / f'{split}.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# Files that are missing


@pytest.mark.parametrize('config', [MASK_RCNN, POSE], ids=['detection', 'pose'])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_missing_annotation_file(config, split, coco):
    (coco / 'data/custom/annotations' / f'{split}.json').unlink()
    result = train(config, coco)
    fails_cleanly(result, f'data/custom/annotations/{split}.json', 'check_dataset.py', 'own.py')
    assert not list((coco / 'run').glob('*.pth'))


def test_file_that_is_no_annotation_file(coco):
    path = coco / 'data/custom/annotations/train.json'
    path.write_text(path.read_text()[:500])
    fails_cleanly(train(MASK_RCNN, coco), 'cannot be loaded', 'JSONDecodeError', 'check_dataset.py')


def test_missing_image_and_missing_folder(coco):
    (coco / 'data/custom/train/2.jpg').unlink()
    for config in (MASK_RCNN, POSE):
        fails_cleanly(train(config, coco), '1 of 4 images looked for do not exist (data/custom/train/2.jpg)')
    (coco / 'data/custom/train').rename(coco / 'data/elsewhere')
    fails_cleanly(train(MASK_RCNN, coco), '4 of 4 images looked for do not exist (data/custom/train/')


def test_missing_label_map_and_missing_folders(maps):
    (maps / 'data/custom/masks/train/1.png').unlink()
    fails_cleanly(
        train(SEMANTIC_FPN, maps), '1 of 4 label maps looked for do not exist (data/custom/masks/train/1.png)'
    )
    # From a process of the loader the message comes within a traceback, and names the file all the same.
    (maps / 'data/custom/masks/train/1.png').write_bytes(b'not an image')
    result = train(SEMANTIC_FPN, maps, 'train_dataloader.num_workers=1')
    fails_cleanly(result, 'label map data/custom/masks/train/1.png cannot be decoded (UnidentifiedImageError')
    (maps / 'data/custom/images/train').rename(maps / 'data/elsewhere')
    fails_cleanly(train(SEMANTIC_FPN, maps), 'images/train', 'check_dataset.py')
    (maps / 'data/custom/images/train').mkdir()
    fails_cleanly(train(SEMANTIC_FPN, maps), 'no file of data/custom/images/train ends with', 'check_dataset.py')


def test_missing_class_folders(tmp_path):
    image_folders(tmp_path / 'data/custom')
    (tmp_path / 'data/custom/train').rename(tmp_path / 'data/elsewhere')
    fails_cleanly(train(CLASSIFIER, tmp_path), 'data/custom/train', 'check_dataset.py')


# Annotations that are odd


def _odd_boxes(content):
    content['annotations'][0]['bbox'] = [60, 40, 80, 80]  # partly outside
    content['annotations'][1]['bbox'] = [200, 200, 10, 10]  # wholly
    content['annotations'][2]['bbox'] = [-20, -20, 60, 60]
    content['annotations'][3].update(bbox=[10, 10, 0, 0], area=0)


@pytest.mark.parametrize('config', [MASK_RCNN, POSE], ids=['detection', 'pose'])
def test_boxes_outside_the_image_train(config, coco):
    edit(coco, _odd_boxes)
    trained(train(config, coco), coco)


def _odd_masks(content):
    content['annotations'][0]['segmentation'] = [[]]
    content['annotations'][1]['segmentation'] = [[1, 1, 2, 2]]
    content['annotations'][2]['segmentation'] = [[200, 200, 210, 200, 210, 210]]
    content['annotations'][3]['segmentation'] = [[10, 10, 10, 10, 10, 10]]


def test_masks_without_pixels_train(coco):
    edit(coco, _odd_masks)
    trained(train(MASK_RCNN, coco), coco)


@pytest.mark.parametrize('empty', [[], None], ids=['empty', 'missing'])
def test_missing_mask_is_named_with_its_image(empty, coco):
    edit(coco, lambda content: content['annotations'][2].update(segmentation=empty))
    result = train(MASK_RCNN, coco)
    fails_cleanly(result, '1 of 8 masks are missing', 'object in data/custom/train/1.jpg', 'boxes alone')


def _odd_joints(content):
    content['annotations'][0].update(keypoints=[0] * 51, num_keypoints=0)
    content['annotations'][1].update(keypoints=[0] * 51)  # counted wrongly
    content['annotations'][2]['keypoints'] = [500, 500, 2] * 17  # outside the image
    del content['annotations'][3]['keypoints']


def test_people_without_joints_are_passed_over(coco):
    edit(coco, _odd_joints)
    trained(train(POSE, coco), coco)


def _no_joints(content):
    for person in content['annotations']:
        person.update(keypoints=[0] * 51, num_keypoints=0)


def test_no_joints_at_all(coco):
    edit(coco, _no_joints)
    fails_cleanly(train(POSE, coco), 'no person in', 'train.json has a visible joint', 'check_dataset.py')


def test_other_number_of_joints(coco):
    def cut(content):
        for person in content['annotations']:
            person['keypoints'] = person['keypoints'][:9]

    result = train(POSE, coco, 'model.head.out_channels=5')
    fails_cleanly(result, 'have 17 joints, but model.head.out_channels is 5: set it to 17')
    edit(coco, cut)
    fails_cleanly(train(POSE, coco), 'annotations/train.json has 3 joints for each person', 'describes 17')


def test_boxes_in_fractions_of_the_image(coco):
    def shrink(content):
        for annotation in content['annotations']:
            annotation.update(bbox=[0.2, 0.1, 0.4, 0.6], area=0.24)

    edit(coco, shrink)
    result = train(MASK_RCNN, coco)
    fails_cleanly(result, 'no object of', 'annotations/train.json can be learnt', 'fractions', 'check_dataset.py')
    path = coco / 'data/custom/annotations/train.json'
    path.write_text(path.read_text().replace('"image_id": 3', '"image_id": 2'))
    result = train(MASK_RCNN, coco, 'train_dataloader.dataset.filter_cfg.filter_empty_gt=False')
    fails_cleanly(result, 'no object of')


# Classes that do not fit


def test_categories_of_other_names(coco):
    def rename(content):
        content['categories'] = [dict(id=1, name='wolf'), dict(id=2, name='lynx')]

    edit(coco, rename)
    for keep_empty in ((), ['train_dataloader.dataset.filter_cfg.filter_empty_gt=False']):
        result = train(MASK_RCNN, coco, *keep_empty)
        fails_cleanly(result, 'none of the classes of the config (cat, dog) is a category of', 'metainfo=dict(classes=')

    edit(coco, lambda content: content['categories'][0].update(name='cat'))
    result = train(MASK_RCNN, coco)
    trained(result, coco)
    assert 'has only 1 of the 2 classes of the config, not dog' in result.log


def test_heads_with_too_few_or_too_many_classes(coco):
    result = train(MASK_RCNN, coco, 'model.roi_head.bbox_head.num_classes=1')
    fails_cleanly(result, 'have label 1, but model.roi_head.bbox_head.num_classes is 1', '(cat, dog)')
    # More classes than there are data of can be learnt, but not evaluated once the model predicts one.
    result = train(MASK_RCNN, coco, 'model.roi_head.bbox_head.num_classes=9', 'model.roi_head.mask_head.num_classes=9')
    says = 'the data have 2 classes (cat, dog), but model.roi_head.bbox_head.num_classes is 9: set it to 2'
    assert f'train: {says}' in result.log
    fails_with(result, f'val: {says}', 'check_dataset.py')
    assert (coco / 'run' / 'epoch_1.pth').is_file()

    # The same of testing, and of a file that is missing or broken.
    classes = ('model.roi_head.bbox_head.num_classes=9', 'model.roi_head.mask_head.num_classes=9')
    words = (coco / 'own.py', coco / 'run' / 'epoch_1.pth', '--work-dir', coco / 'tested', '--cfg-options', *classes)
    fails_with(tool_here('test.py', *words, cwd=coco), f'test: {says}')
    path = coco / 'data/custom/annotations/val.json'
    path.write_text(path.read_text()[:500])
    fails_cleanly(tool_here('test.py', *words, cwd=coco), 'split test cannot be loaded', 'JSONDecodeError')
    path.unlink()
    fails_cleanly(tool_here('test.py', *words, cwd=coco), 'annotations/val.json', 'check_dataset.py')
    assert not (coco / 'tested' / 'metrics.json').exists()
    looked = tool_here('visualization/browse_dataset.py', coco / 'own.py', '--split', 'val', cwd=coco)
    fails_cleanly(looked, 'annotations/val.json', 'check_dataset.py')


def test_classifier_with_too_few_classes(tmp_path):
    image_folders(tmp_path / 'data/custom')
    result = train(CLASSIFIER, tmp_path, 'model.head.num_classes=2', 'data_preprocessor.num_classes=2')
    fails_cleanly(result, 'label 2, but model.head.num_classes is 2', 'class_0, class_1, class_2')


def test_a_hidden_folder_among_the_classes_is_named_and_no_class(tmp_path):
    image_folders(tmp_path / 'data/custom')
    write_image(tmp_path / 'data/custom/train/.ipynb_checkpoints/0.jpg')
    result = train(CLASSIFIER, tmp_path)
    fails_cleanly(result, 'has the hidden folders .ipynb_checkpoints, which would be classes: remove them')
    assert 'num_classes' not in result.stderr


def test_who_looks_at_images_of_12_bits_is_told(tmp_path):
    for split in ('train', 'val'):
        for c in range(3):
            values = np.random.default_rng(c).integers(0, 4096, (40, 50), dtype=np.uint16)
            values[0, 0] = 65535
            (tmp_path / 'data/custom' / split / f'class_{c}').mkdir(parents=True)
            cv2.imwrite(str(tmp_path / 'data/custom' / split / f'class_{c}' / '0.tif'), values)
    (tmp_path / 'own.py').write_text(CLASSIFIER)
    looked = tool_here('visualization/browse_dataset.py', tmp_path / 'own.py', cwd=tmp_path, check=True)
    assert 'warning: train: ' in looked.stderr
    assert 'class_0/0.tif has values up to 65535 of 16 bits' in looked.stderr
    assert (tmp_path / 'samples.png').is_file()


def test_label_maps_with_unknown_classes(maps):
    write_labels(maps, 'train', 1, np.full((6, 8), 7, dtype=np.uint8))
    says = 'masks/train/1.png has the values 7, but the classes of the config go from 0 to 1'
    fails_with(train(SEMANTIC_FPN, maps), says, 'num_classes', 'check_dataset.py')


@pytest.mark.parametrize('config', [MASK_RCNN, POSE], ids=['detection', 'pose'])
def test_mixed_precision_in_which_a_head_cannot_compute(config, coco):
    result = train(config, coco, 'optim_wrapper.type=AmpOptimWrapper', 'gpu.amp_dtype=bfloat16')
    if config == MASK_RCNN and not COMPILED_MMCV:  # whose RoIAlign cannot
        assert result.returncode == 0, result.stderr
    else:
        fails_with(result, 'cannot compute in bfloat16', 'leave --amp out')


# What would fail, or be wrong in silence, after the first epoch is said before it.


@pytest.mark.parametrize(
    ('split', 'change', 'says'),
    [
        ('val', lambda content: [a.update(id=f'a{a["id"]}') for a in content['annotations']], 'cannot be evaluated'),
        ('val', lambda content: [a.pop('iscrowd') for a in content['annotations']], 'without which they cannot be'),
        ('val', lambda content: content['categories'].reverse(), 'label 0 is dog in data/custom/annotations/val.json'),
        ('train', lambda content: content['categories'].append(dict(id=3, name='cat')), '2 categories of'),
        ('train', lambda content: content['annotations'][3].update(bbox=[float('nan'), 9, 9, 9]), 'boxes are not [x'),
        ('train', lambda content: content['images'][0].update(file_name='/dev/zero'), 'write file_name with /'),
    ],
    ids=['ids', 'iscrowd', 'order', 'names', 'NaN', 'device'],
)
def test_faults_of_annotation_files_are_said_before_the_first_epoch(split, change, says, coco):
    edit(coco, change, split)
    fails_cleanly(train(MASK_RCNN, coco), says, 'check_dataset.py')
    assert not list((coco / 'run').glob('*.pth'))


def test_label_maps_in_colour_are_named_at_the_start(maps):
    for path in (maps / 'data/custom/masks/train').iterdir():
        cv2.imwrite(str(path), np.zeros((60, 80, 3), np.uint8))
    says = 'data/custom/masks/train/0.png is RGB, but must have one channel'
    fails_cleanly(train(SEMANTIC_FPN, maps), says, 'convert the colours')


def test_label_maps_of_another_size_are_named_at_the_start(maps):
    write_labels(maps, 'train', 2, np.zeros((3, 4), np.uint8))
    says = 'label map data/custom/masks/train/2.png has 40x30 pixels, but its image 80x60 (1 of 4 looked at)'
    fails_cleanly(train(SEMANTIC_FPN, maps), says)


def test_batches_that_cannot_be_made_are_named_at_the_start(maps):
    write_image(maps / 'data/custom/images/val/1.jpg', size=(60, 100))
    write_labels(maps, 'val', 1, np.zeros((6, 10), np.uint8))
    result = train(SEMANTIC_FPN, maps, 'val_dataloader.batch_size=2')
    fails_cleanly(result, 'images of several sizes', 'set val_dataloader.batch_size=1')
    result = train(SEMANTIC_FPN, maps, 'train_dataloader.batch_size=5', 'train_dataloader.drop_last=True')
    fails_cleanly(result, '4 images are fewer than a batch has (5 on')
    result = train(SEMANTIC_FPN, maps, 'val_dataloader.persistent_workers=True')
    fails_cleanly(result, 'val_dataloader.persistent_workers=True needs workers')


def test_turned_and_deep_images_and_other_suffixes_are_named_at_the_start(maps):
    folder = maps / 'data/custom/images/train'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (80, 60)).save(folder / '0.jpg', exif=exif)
    (folder / '3.jpg').rename(folder / '3.jpeg')
    result = train(SEMANTIC_FPN, maps)
    fails_cleanly(result, '1 of 3 images looked at are turned', '0.jpg', 'mogrify -auto-orient')
    assert '1 images of data/custom/images/train are passed over because of their suffix (1 .jpeg)' in result.log
    for path in folder.iterdir():
        cv2.imwrite(str(path.with_suffix('.png')), np.full((60, 80, 3), 4080, np.uint16))
        path.unlink()
    result = train(SEMANTIC_FPN, maps, 'train_dataloader.dataset.img_suffix=.png')
    fails_cleanly(result, '4080 becomes 15', 'to 8 bits')


def test_folders_that_a_program_left_are_named(tmp_path):
    image_folders(tmp_path / 'data/custom')
    write_image(tmp_path / 'data/custom/train/.ipynb_checkpoints/0.jpg')
    write_image(tmp_path / 'data/custom/val/.ipynb_checkpoints/0.jpg')
    result = train(CLASSIFIER, tmp_path, 'model.head.num_classes=4', 'data_preprocessor.num_classes=4')
    fails_cleanly(result, 'has the hidden folders .ipynb_checkpoints, which would be classes: remove them')


# Images of every kind


def odd_images(folder):
    """Grey, RGBA and CMYK, 16 bits deep, and smaller than the deepest stride."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    noise.convert('L').save(folder / '0.jpg')
    noise.convert('CMYK').save(folder / '1.jpg')
    # PNG under the names of the data set: what counts is the content.
    noise.convert('RGBA').save(folder / '2.jpg', format='PNG')
    noise.resize((9, 7)).save(folder / '3.jpg')


@pytest.mark.parametrize('config', [MASK_RCNN, POSE], ids=['detection', 'pose'])
def test_grey_rgba_cmyk_and_tiny_images_train_with_boxes(config, coco):
    odd_images(coco / 'data/custom/train')

    def shrink(content):
        content['images'][3].update(width=9, height=7)
        for number, box in ((6, [1, 1, 5, 4]), (7, [3, 2, 5, 4])):
            content['annotations'][number] = annotation(number + 1, 3, 1, box)

    edit(coco, shrink)
    # The smallest images are left out of detection as the toolbox does: under 32 pixels.
    trained(
        train(config, coco, *(['train_dataloader.dataset.filter_cfg.min_size=1'] if config is MASK_RCNN else [])), coco
    )


def test_grey_rgba_cmyk_and_tiny_images_train_with_label_maps(maps):
    odd_images(maps / 'data/custom/images/train')
    cv2.imwrite(str(maps / 'data/custom/masks/train/3.png'), np.zeros((7, 9), dtype=np.uint8))
    trained(train(SEMANTIC_FPN, maps), maps)


def test_grey_rgba_cmyk_and_tiny_images_train_with_classes(tmp_path):
    image_folders(tmp_path / 'data/custom')
    for c in range(3):
        odd_images(tmp_path / 'data/custom/train' / f'class_{c}')
    trained(train(CLASSIFIER, tmp_path), tmp_path)


def test_no_resizing_of_images_smaller_than_the_stride(tmp_path):
    """Even at their own size: nine by seven pixels are less than one cell of the last stage."""
    image_folders(tmp_path / 'data/custom')
    for path in (tmp_path / 'data/custom').rglob('*.jpg'):
        write_image(path, size=(7, 9))
    pipeline = "pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]\n"
    pipeline += 'train_dataloader.update(dataset=dict(pipeline=pipeline))\n'
    # Whose normalisation a single one does not allow: found by trying, not by the error's words.
    result = train(CLASSIFIER + pipeline, tmp_path, 'train_dataloader.batch_size=1')
    fails_with(result, 'a batch of one image fails', 'set train_dataloader.batch_size to 2 or more')
    trained(train(CLASSIFIER + pipeline, tmp_path), tmp_path)


# Channels that do not fit are named before any data are loaded: there are none here.


def test_channel_mismatch_is_named_before_the_data(tmp_path):
    result = train(MASK_RCNN, tmp_path, 'model.neck.in_channels=[256,512,1024,2048]')
    says = 'set model.neck.in_channels=[16, 16, 16, 32]'
    fails_cleanly(result, 'model.neck.in_channels is [256, 512, 1024, 2048]', 'the backbone ScopeViT', says)
