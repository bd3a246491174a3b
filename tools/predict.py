"""Predict with a model of any of the four toolboxes: pictures and JSON for images, folders and videos.

    python tools/predict.py CONFIG CHECKPOINT photos/ 'more/*.jpg' clip.mp4 --out results

For an image photos/a/x.jpg it writes results/photos/a/x.jpg, with the prediction drawn, and
results/photos/a/x.jpg.json (the folders below the one that all inputs share are kept; a picture
of another format than JPEG or PNG is written as x.tif.png). The JSON holds "image", "width",
"height" and, by the task of the config:

  classification  "predicted" and "top", the five best: {"label", "class", "score"}
  detection       "instances": {"label", "class", "score", "bbox": [x, y, width, height]} and, if
                  the model gives masks, "mask" in COCO's RLE
  segmentation    "classes": {"label", "class", "share" of the pixels}, and "class_map", the name of
                  a PNG beside it whose values are the labels
  pose            "instances": {"bbox", "score", "keypoints": {"name", "x", "y", "score"}}

A video gives a video (MPEG-4) and one JSON whose "frames" hold the same for each frame.

Top-down pose models find the joints of one person in a box. Say where the people are:

  --boxes whole   the whole image is one person
  --boxes FILE    JSON: {"image name": [[x, y, width, height], ...]}, or a list of detections or an
                  annotation file as COCO has them. Names may have folders (a/x.jpg, or x.jpg
                  for short). An image that is not in it has no people.
  --detector-config and --detector-checkpoint   a detector, of this repository or any of mmdet's

An input that cannot be read is reported and skipped; at the end the exit status is then 1.
"""

import argparse
import glob
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scopevit.apis.inferencer import Detector, PoseEstimator, Prediction, Predictor, build_predictor
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import check_writable
from scopevit.utils.image import read_image

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm', '.jp2')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.flv')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or a config of an installed toolbox such as mmdet::...')
    parser.add_argument('checkpoint', help='checkpoint of the model that the config describes')
    parser.add_argument(
        'inputs', nargs='+', metavar='INPUT', help='image, video, folder (with the folders in it) or pattern'
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the results: a new or empty one')
    parser.add_argument('--overwrite', action='store_true', help='write into a folder with files, over older results')
    parser.add_argument('--device', help='for example cpu or cuda:1 (default: the GPU if there is one)')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='leave out detections with a lower score, and do not draw such joints (default: %(default)s)',
    )
    parser.add_argument('--boxes', metavar='whole|FILE', help='where the people are, for pose models')
    parser.add_argument('--detector-config', metavar='CONFIG', help='a detector of people, for pose models')
    parser.add_argument('--detector-checkpoint', metavar='CKPT')
    parser.add_argument('--detector-category', default='person', help='its class to take (default: %(default)s)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
    )
    return parser.parse_args()


@dataclass
class Input:
    """A file to predict for, and the name of its results below the output folder."""

    path: str
    root: str  # the folder that was named on the command line, or that the file lies in
    name: str = ''

    @property
    def is_video(self) -> bool:
        return self.path.lower().endswith(VIDEOS)


def find_inputs(words: list[str], out: str, note: Callable[[str], None]) -> list[Input]:
    """The files that the command line names, in the order of the words, sorted within each.

    Raises:
        UserError: If a path does not exist or a pattern matches nothing.
    """
    found: dict[str, Input] = {}
    for word in words:
        if os.path.isdir(word):
            files, root = list(_files_of(word, out)), word
        elif os.path.exists(word):
            found.setdefault(os.path.realpath(word), Input(word, os.path.dirname(word)))
            continue
        elif glob.has_magic(word):
            files = sorted(path for path in glob.glob(word, recursive=True) if os.path.isfile(path))
            if not files:
                raise UserError(f'no file matches {word}; check the pattern, and put it in quotes')
            root = None
        else:
            raise UserError(f'input {word} does not exist; check the path')
        named = [path for path in files if path.lower().endswith(IMAGES + VIDEOS)]
        for path in files:
            if path not in named:
                note(f'note: {path} is passed over, its name is not that of an image or video')
        if not named:
            raise UserError(f'there are no images or videos in {word}; known are {" ".join(IMAGES + VIDEOS)}')
        for path in named:
            found.setdefault(os.path.realpath(path), Input(path, os.path.dirname(path) if root is None else root))
    return list(found.values())


def _files_of(folder: str, out: str) -> Iterator[str]:
    """All files in a folder and those in it; results of this program are not among them."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if os.path.realpath(os.path.join(parent, f)) != os.path.realpath(out))
        yield from (os.path.join(parent, file) for file in sorted(files))


def name_results(inputs: list[Input], out: str) -> None:
    """Give every input a name of its own for its results.

    Raises:
        UserError: If results would replace an input.
    """
    shared = os.path.commonpath([os.path.abspath(item.root) for item in inputs])
    taken = set()
    for item in inputs:
        name = os.path.relpath(os.path.abspath(item.path), shared)
        if item.is_video:
            name += '' if name.lower().endswith('.mp4') else '.mp4'
        elif not name.lower().endswith(('.jpg', '.jpeg', '.png')):
            name += '.png'
        stem, extension = os.path.splitext(name)
        number = 1
        while name in taken or f'{name}.classes.png' in taken:
            number += 1
            name = f'{stem}-{number}{extension}'
        taken |= {name, f'{name}.classes.png'}
        item.name = name
    sources = {os.path.realpath(item.path) for item in inputs}
    for item in inputs:
        if os.path.realpath(os.path.join(out, item.name)) in sources:
            raise UserError(f'--out {out} would replace the input {item.path}; choose another folder')


def prepare_out(out: str, overwrite: bool) -> None:
    check_writable(out, '--out')
    if os.listdir(out) and not overwrite:
        raise UserError(
            f'--out {out} has files in it; choose another folder, or add --overwrite to write over older results '
            '(files of other names stay)'
        )


def read_boxes(path: str) -> dict[str, list[list]]:
    """Boxes (x, y, width, height, score) by image name or COCO's image id, as a string.

    Raises:
        UserError: If the file is missing or not as documented.
    """
    try:
        with open(path) as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f'--boxes {path} cannot be read as JSON: {error}') from None
    boxes: dict[str, list[list]] = {}
    try:
        if isinstance(content, dict) and 'annotations' in content:
            names = {image['id']: image['file_name'] for image in content['images']}
            for annotation in content['annotations']:
                if not annotation.get('iscrowd'):
                    boxes.setdefault(names[annotation['image_id']], []).append([*annotation['bbox'], 1])
        elif isinstance(content, dict):
            boxes = {str(name): [[*box, 1][:5] for box in found] for name, found in content.items()}
        else:
            for found in content:
                if found.get('category_id', 1) == 1:  # COCO's person
                    boxes.setdefault(str(found['image_id']), []).append([*found['bbox'], found.get('score', 1)])
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f'--boxes {path} is neither {{"image name": [[x, y, width, height], ...]}} nor as COCO has it '
            f'({type(error).__name__}: {error})'
        ) from None
    for name, found in boxes.items():
        for box in found:
            numbers = len(box) == 5 and all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)
            if not numbers or min(box[2:4]) <= 0:
                raise UserError(f'--boxes {path}: {box[:4]} of {name} is not [x, y, width, height]')
    return boxes


def key_of(path: str, boxes: dict[str, list[list]]) -> str | None:
    """What boxes call an image: the end of its path, the longest there is, or the id in COCO's file names."""
    parts = path.split('/')
    stem = os.path.splitext(parts[-1])[0]
    keys = ['/'.join(parts[i:]) for i in range(len(parts))] + [stem]
    if stem.isdigit():
        keys.append(stem.lstrip('0') or '0')
    return next((key for key in keys if key in boxes), None)


def set_box_finder(predictor: Predictor, inputs: list[Input], args: argparse.Namespace, score_thr: float) -> None:
    """Tell a pose model where the people are.

    Raises:
        UserError: If the options do not fit one another or the model.
    """
    ways = [bool(args.boxes), bool(args.detector_config or args.detector_checkpoint)]
    if not isinstance(predictor, PoseEstimator) or not predictor.needs_boxes:
        if any(ways):
            raise UserError('--boxes and --detector-... are for top-down pose models; this model needs no boxes')
        return
    if sum(ways) != 1:
        raise UserError(
            'this pose model finds the joints of one person in a box: give either --boxes whole, --boxes FILE, '
            'or --detector-config with --detector-checkpoint'
        )
    if args.boxes == 'whole':
        predictor.find_boxes = lambda image, path: (np.array([[0, 0, *image.shape[1::-1]]], np.float32), np.ones(1))
    elif args.boxes:
        predictor.find_boxes = _boxes_from_file(args.boxes, inputs)
    else:
        if not (args.detector_config and args.detector_checkpoint):
            raise UserError('a detector needs both --detector-config and --detector-checkpoint')
        predictor.find_boxes = _boxes_from_detector(args, predictor.device, score_thr)


def _boxes_from_file(path: str, inputs: list[Input]) -> Callable:
    boxes = read_boxes(path)
    if any(item.is_video for item in inputs):
        raise UserError('--boxes FILE is for images; for a video use --boxes whole or a detector')
    keys = {item.path: key_of(item.path, boxes) for item in inputs}
    if not any(boxes.get(key) for key in keys.values()):
        some = ', '.join(list(boxes)[:3]) or 'none'
        raise UserError(f'--boxes {path} has no box for any input; its images are {some}, ...')
    images: dict[str, str] = {}
    for image, key in keys.items():
        if key is not None and images.setdefault(key, image) != image:
            raise UserError(
                f'--boxes {path} has one entry {key} for {images[key]} and {image}: write their folders before the name'
            )

    def find(image: np.ndarray, path: str) -> tuple[np.ndarray, np.ndarray]:
        found = np.array(boxes.get(keys[path], []), np.float32).reshape(-1, 5)
        return found[:, :4], found[:, 4]

    return find


def _boxes_from_detector(args: argparse.Namespace, device: str, score_thr: float) -> Callable:
    from mmpose.evaluation.functional import nms

    detector = build_predictor(load_config(args.detector_config), args.detector_checkpoint, device, score_thr)
    if not isinstance(detector, Detector):
        raise UserError(f'--detector-config {args.detector_config} is not a config of mmdet')
    category = args.detector_category
    if category not in detector.classes and not category.isdigit():
        known = ', '.join(detector.classes[:8]) or 'only numbered'
        raise UserError(f'the detector has no class {category}; its classes are {known}: choose --detector-category')
    label = detector.classes.index(category) if category in detector.classes else int(category)

    def find(image: np.ndarray, path: str) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = detector.boxes(image, label)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:], scores[:, None]], 1)
        kept = nms(corners, 0.3)  # as mmpose does: two boxes of one person would give two skeletons
        return boxes[kept], scores[kept]

    return find


def read_frames(path: str) -> Iterator[np.ndarray]:
    """The frames of a video, BGR.

    Raises:
        UserError: If there are none, or fewer than the video says it has.
    """
    video = cv2.VideoCapture(path)
    promised, count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0
    while True:
        there, frame = video.read()
        if not there:
            break
        count += 1
        yield frame
    video.release()
    if not count:
        raise UserError('is not a video that OpenCV can read')
    if count < promised - 1:  # some containers state a length that is one frame off
        raise UserError(f'is damaged: only {count} of {promised} frames could be read; their results were written')


def write_json(path: str, content: dict) -> None:
    with open(path, 'w') as file:
        json.dump(content, file, indent=1, ensure_ascii=False)


@contextmanager
def json_frames(path: str, video: str, rate: float) -> Iterator[Callable[[dict], None]]:
    """Write a video's JSON frame by frame: the masks of an hour would fill the memory."""
    with open(path, 'w') as file:
        head = json.dumps(dict(video=video, frames_per_second=rate), ensure_ascii=False)
        file.write(f'{head[:-1]}, "frames": [')
        separator = '\n'

        def write(frame: dict) -> None:
            nonlocal separator
            file.write(separator + json.dumps(frame, ensure_ascii=False))
            separator = ',\n'

        try:
            yield write
        finally:  # also close what there is of a damaged video
            file.write('\n]}\n')


def write_image(path: str, image: np.ndarray) -> None:
    if not cv2.imwrite(path, image):
        raise OSError(f'cannot write {path}')


def write_class_map(path: str, prediction: Prediction) -> None:
    if prediction.class_map is not None:
        write_image(path, prediction.class_map)


def predict_image(predictor: Predictor, item: Input, out: str) -> None:
    prediction = predictor(read_image(item.path, predictor.grey), item.path)
    target = os.path.join(out, item.name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    write_image(target, prediction.picture)
    write_class_map(f'{target}.classes.png', prediction)
    extra = {} if prediction.class_map is None else dict(class_map=os.path.basename(f'{target}.classes.png'))
    write_json(f'{target}.json', dict(image=item.path, **prediction.data, **extra))


def predict_video(predictor: Predictor, item: Input, out: str, progress: Progress) -> None:
    video = cv2.VideoCapture(item.path)
    length, rate = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    video.release()
    rate = rate if math.isfinite(rate) and rate > 0 else 25
    target = os.path.join(out, item.name)
    maps = f'{target}.classes'
    bar = progress.add_task(os.path.basename(item.path), total=max(length, 0) or None)
    writer = write_frame = None
    with ExitStack() as files:
        files.callback(progress.remove_task, bar)
        for number, frame in enumerate(read_frames(item.path)):
            if predictor.grey:
                frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            prediction = predictor(frame, item.path)
            extra = {}
            if prediction.class_map is not None:
                os.makedirs(maps, exist_ok=True)
                extra = dict(class_map=f'{os.path.basename(maps)}/{number:06d}.png')
                write_class_map(os.path.join(maps, f'{number:06d}.png'), prediction)
            height, width = prediction.picture.shape[:2]
            if writer is None:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                write_frame = files.enter_context(json_frames(f'{target}.json', item.path, rate))
                writer = cv2.VideoWriter(target, cv2.VideoWriter_fourcc(*'mp4v'), rate, (width, height))
                files.callback(writer.release)
                if not writer.isOpened():
                    raise UserError(f'cannot be written as a video of {width}x{height}')
            write_frame(dict(frame=number, **prediction.data, **extra))
            writer.write(np.ascontiguousarray(prediction.picture))
            progress.advance(bar)


def predict_all(predictor: Predictor, inputs: list[Input], out: str, console: Console) -> int:
    """Write the results of all inputs that can be read; returns how many could not."""
    failed = 0
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task('predicting', total=len(inputs))
        for item in inputs:
            try:
                if item.is_video:
                    predict_video(predictor, item, out, progress)
                else:
                    predict_image(predictor, item, out)
            except OSError as error:  # a full disk would fail every input
                raise UserError(f'the results of {item.path} cannot be written: {error}') from error
            except Exception as error:  # whatever is wrong with one input, the others are to be done
                failed += 1
                reason = str(error)
                if not isinstance(error, UserError):
                    reason = f'cannot be predicted: {type(error).__name__}: {(reason.splitlines() or [""])[0]}'
                progress.console.print(f'skipped: {item.path} {reason}', markup=False, highlight=False, soft_wrap=True)
            progress.advance(bar)
    return failed


def main() -> None:
    args = parse_args()
    # What the toolboxes have to say of their own settings would drown what is said of the inputs.
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('predict', log_level='ERROR')
    console = Console(stderr=True)

    def note(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with user_errors():
        cfg = load_config(args.config, args.cfg_options)
        inputs = find_inputs(args.inputs, args.out, note)
        name_results(inputs, args.out)
        predictor = build_predictor(cfg, args.checkpoint, args.device, args.score_thr)
        set_box_finder(predictor, inputs, args, args.score_thr)
        prepare_out(args.out, args.overwrite)
        failed = predict_all(predictor, inputs, args.out, console)
        print(f'wrote the results of {len(inputs) - failed} of {len(inputs)} inputs to {args.out}')
        if failed:
            raise UserError(f'{failed} of {len(inputs)} inputs could not be read or predicted; they are named above')


if __name__ == '__main__':
    main()
