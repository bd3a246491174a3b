"""What prediction reads and writes: images, folders and videos; figures and JSON."""

import glob
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from ..utils.errors import UserError
from ..utils.files import whole_file, write_json
from ..utils.image import MOST_PIXELS, SUFFIXES, require_file, write_image
from .inferencer import Predictor

LONGEST_NAME = 255  # bytes, in most file systems
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.flv')


@dataclass(frozen=True)
class Input:
    """An image or video.

    Attributes:
        name: Its path below the folder that was named, if one was; else the file's name.
    """

    path: str
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.lower().endswith(VIDEOS)

    @property
    def shown(self) -> str:
        """Its path, with what is no UTF-8 in it escaped: names of files are any bytes."""
        return printable(self.path)

    @property
    def figure(self) -> str:
        """What the image or video with the prediction drawn is called, below the folder of the results."""
        name, own = _short(self.name), ('.mp4',) if self.is_video else ('.jpg', '.jpeg', '.png')
        return name if name.lower().endswith(own) else f'{name}{own[-1]}'

    @property
    def results(self) -> set[str]:
        """All files that may be written for it."""
        return {self.figure, f'{self.figure}.json', f'{self.figure}.classes', f'{self.figure}.classes.png'}


def printable(path: str) -> str:
    """A path as text that can be written anywhere."""
    return path.encode(errors='backslashreplace').decode()


def _short(name: str) -> str:
    """A name to which those of results can be added: of a long one the beginning and a hash."""
    folder, name = os.path.split(name)
    whole = os.fsencode(name)
    if len(whole) > LONGEST_NAME - len('.png.classes.png'):
        suffix = os.path.splitext(name)[1]
        suffix = suffix if suffix.lower() in SUFFIXES + VIDEOS else ''
        beginning = whole[: LONGEST_NAME - len(f'{"." * 9}{suffix}.png.classes.png')].decode(errors='ignore')
        name = f'{beginning}~{hashlib.sha256(whole).hexdigest()[:8]}{suffix}'
    return os.path.join(folder, name)


def find_inputs(words: Sequence[str], out: str, note: Callable[[str], None]) -> list[Input]:
    """The images and videos that files, folders and patterns name, each once.

    Args:
        out: The folder for the results, which is passed over.
        note: Is told of files in folders that are passed over.

    Raises:
        UserError: If a word names none, or results of one would replace those of another or an input.
    """
    found: dict[str, Input] = {}
    for word in words:
        folder = word if os.path.isdir(word) else None
        for path in _files(word, out, note):
            name = os.path.relpath(path, folder) if folder else os.path.basename(path)
            found.setdefault(os.path.realpath(path), Input(path, name))
    owners: dict[str, Input] = {}
    for item in found.values():
        if os.path.realpath(os.path.join(out, item.figure)) in found:
            raise UserError(f'--out-dir {out} would replace the input {item.shown}; choose another folder')
        for result in item.results:
            other = owners.setdefault(result, item)
            if other is not item:
                raise UserError(
                    f'{other.shown} and {item.shown} would both write {printable(result)}; name a folder that '
                    'holds both, whose folders tell them apart, or predict for one at a time'
                )
    return list(found.values())


def _files(word: str, out: str, note: Callable[[str], None]) -> list[str]:
    if os.path.isdir(word):
        files = list(_files_below(word, out, note))
    elif os.path.exists(word):
        return [word]
    elif glob.has_magic(word):
        files = sorted(path for path in glob.glob(word, recursive=True) if not os.path.isdir(path))
        if not files:
            raise UserError(f'no file matches {word}; check the pattern, and put it in quotes')
    else:
        raise UserError(f'input {word} does not exist; check the path')
    known = [path for path in files if path.lower().endswith(SUFFIXES + VIDEOS)]
    for path in sorted(set(files) - set(known)):
        note(f'note: {printable(path)} is passed over, its name is not that of an image or video')
    for path in known:
        if not os.path.isfile(path):
            note(f'note: {printable(path)} is passed over, it is no file')
    known = [path for path in known if os.path.isfile(path)]
    if not known:
        raise UserError(f'there are no images or videos in {word}; known are {" ".join(SUFFIXES + VIDEOS)}')
    return known


def _files_below(folder: str, out: str, note: Callable[[str], None]) -> Iterator[str]:
    def unread(error: OSError) -> None:
        note(f'note: {printable(str(error.filename))} is passed over, it cannot be read ({error.strerror})')

    for parent, folders, files in os.walk(folder, onerror=unread):
        for name in sorted(folders):
            if os.path.islink(os.path.join(parent, name)):  # which may lead in circles
                link = printable(os.path.join(parent, name))
                note(f'note: the folder {link} is passed over, it is a link; name it to have it read')
        folders[:] = sorted(f for f in folders if os.path.realpath(os.path.join(parent, f)) != os.path.realpath(out))
        yield from (os.path.join(parent, file) for file in sorted(files))


def predict_image(predictor: Predictor, item: Input, out: str, most_pixels: int = MOST_PIXELS) -> None:
    """Write what a model says of an image.

    Args:
        most_pixels: An image that has more is not decoded.

    Raises:
        UserError: If the image cannot be read, or a result not be written.
    """
    prediction = predictor(predictor.read(item.path, most_pixels), item.path)
    target = os.path.join(out, item.figure)
    write_image(target, prediction.figure)
    extra = {}
    if prediction.class_map is not None:
        write_image(f'{target}.classes.png', prediction.class_map)
        extra['class_map'] = os.path.basename(f'{target}.classes.png')
    write_json(f'{target}.json', dict(image=item.path, **prediction.data, **extra))


@contextmanager
def plainly_named(path: str) -> Iterator[str]:
    """Another name of a file where its own is not UTF-8, for OpenCV's videos, which take no other."""
    try:
        path.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = os.path.join(folder, f'video{os.path.splitext(path)[1]}')
            os.symlink(os.path.abspath(path), link)
            yield link
    else:
        yield path


@contextmanager
def opened_video(path: str) -> Iterator[cv2.VideoCapture]:
    """A video to read.

    Raises:
        UserError: If it is no file. That it is no video is told by its first frame.
    """
    require_file(path)
    with plainly_named(path) as name:
        video = cv2.VideoCapture(name)
        try:
            yield video
        finally:
            video.release()


def predict_video(predictor: Predictor, item: Input, out: str, advance: Callable[[], None]) -> None:
    """Write what a model says of each frame of a video; of a damaged one, those that can be read.

    Raises:
        UserError: If the video cannot be read or is damaged, or a result cannot be written.
    """
    if predictor.channels not in (1, 3):
        raise UserError(f'has 3 channels, but the model takes {predictor.channels}')
    with opened_video(item.path) as video:
        _predict_frames(predictor, item, video, out, advance)


def _predict_frames(
    predictor: Predictor, item: Input, video: cv2.VideoCapture, out: str, advance: Callable[[], None]
) -> None:
    promised, rate = frames_of(video), video.get(cv2.CAP_PROP_FPS)
    rate = rate if math.isfinite(rate) and rate > 0 else 25
    target = os.path.join(out, item.figure)
    count, writer = 0, None
    with (
        whole_file(target) as figure,
        plainly_named(figure) as drawn,
        whole_file(f'{target}.json') as record,
        open(record, 'w') as file,
    ):
        # Frame by frame: the masks of an hour would fill the memory.
        file.write(f'{json.dumps(dict(video=item.path, frames_per_second=rate))[:-1]}, "frames": [')
        while (frame := video.read()[1]) is not None:
            if predictor.channels == 1:
                frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            prediction = predictor(frame, item.path)
            extra = {}
            if prediction.class_map is not None:
                extra['class_map'] = f'{os.path.basename(target)}.classes/{count:06d}.png'
                write_image(os.path.join(f'{target}.classes', f'{count:06d}.png'), prediction.class_map)
            if writer is None:
                size = prediction.figure.shape[1::-1]
                writer = cv2.VideoWriter(drawn, cv2.VideoWriter.fourcc(*'mp4v'), rate, size)
                if not writer.isOpened():
                    raise UserError(f'cannot be written as a video of {size[0]}x{size[1]}')
            writer.write(np.ascontiguousarray(prediction.figure))
            file.write((',\n' if count else '\n') + json.dumps(dict(frame=count, **prediction.data, **extra)))
            count += 1
            advance()
        if writer is None:
            raise UserError('is not a video that OpenCV can read')
        writer.release()
        if frames_of(cv2.VideoCapture(drawn)) < count - 1:  # OpenCV does not say that a disk is full
            raise UserError(f'the video {printable(target)} could not be written to its end')
        file.write('\n]}\n')
    if count < promised - 1:  # some containers state a length that is one frame off
        raise UserError(f'is damaged: only {count} of {promised} frames could be read; their results were written')


def frames_of(video: cv2.VideoCapture) -> int:
    """How many frames a video says that it has; 0 if it does not."""
    return max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
