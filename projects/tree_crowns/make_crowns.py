"""Make a small detection data set of tree crowns from the aerial photographs in the package deepforest.

    pip download --no-deps deepforest && python -m zipfile -e deepforest-*.whl deepforest
    PYTHONPATH=. python projects/tree_crowns/make_crowns.py deepforest/deepforest/data

It holds four photographs with boxes in Pascal VOC's XML. Two are cut into overlapping tiles for training; the other
two stay whole, one for validation and one, of another forest, for a last test.
"""

import argparse
import json
import os
from xml.etree import ElementTree

import cv2

from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import check_writable
from scopevit.utils.image import write_image

SPLITS = {
    'train': ('2019_YELL_2_528000_4978000_image_crop2', 'SOAP_061'),
    'val': ('2019_YELL_2_541000_4977000_image_crop',),
    'other': ('OSBS_029',),
}
TILE, STEP = 400, 300  # pixels
LEAST = 0.5  # of a crown must be in a tile to count there


def read_boxes(path: str) -> list[list[float]]:
    """Left, top, right and bottom of each object in Pascal VOC's XML, in pixels."""
    sides = ('xmin', 'ymin', 'xmax', 'ymax')
    boxes = ElementTree.parse(path).getroot().iter('bndbox')
    return [[float(box.findtext(side)) for side in sides] for box in boxes]


def starts(length: int) -> list[int]:
    """Where tiles begin that cover a side; the last one ends with it."""
    return [*range(0, max(length - TILE, 0), STEP), max(length - TILE, 0)]


def clipped(boxes: list, x: int, y: int, width: int, height: int) -> list[list[float]]:
    """Boxes as x, y, width and height within a window, without those that are mostly outside."""
    found = []
    for left, top, right, bottom in boxes:
        inner = max(left - x, 0), max(top - y, 0), min(right - x, width), min(bottom - y, height)
        w, h = inner[2] - inner[0], inner[3] - inner[1]
        if w > 0 < h and w * h >= LEAST * (right - left) * (bottom - top):
            found.append([inner[0], inner[1], w, h])
    return found


def make(source: str, out: str) -> None:
    """Write images and one annotation file in COCO's format for each split."""
    for split, names in SPLITS.items():
        images, annotations = [], []
        for name in names:
            photograph, boxes = cv2.imread(f'{source}/{name}.png'), read_boxes(f'{source}/{name}.xml')
            height, width = photograph.shape[:2]
            tiles = [(0, 0, width, height)]
            if split == 'train':
                tiles = [(x, y, TILE, TILE) for y in starts(height) for x in starts(width)]
            for x, y, w, h in tiles:
                file = f'{name}_{x}_{y}.png'
                write_image(f'{out}/{split}/{file}', photograph[y : y + h, x : x + w])
                images.append(dict(id=len(images) + 1, file_name=file, width=w, height=h))
                for box in clipped(boxes, x, y, w, h):
                    annotations.append(
                        dict(
                            id=len(annotations) + 1,
                            image_id=len(images),
                            category_id=1,
                            iscrowd=0,
                            area=box[2] * box[3],
                            bbox=box,
                        )
                    )
        os.makedirs(f'{out}/annotations', exist_ok=True)
        with open(f'{out}/annotations/{split}.json', 'w') as file:
            json.dump(dict(images=images, annotations=annotations, categories=[dict(id=1, name='tree')]), file)
        print(f'{split}: {len(images)} images, {len(annotations)} crowns')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help="the folder data of the package deepforest, or one with its photographs")
    parser.add_argument('--out-dir', default='data/crowns', help='folder to write (default: %(default)s)')
    args = parser.parse_args()
    with user_errors():
        needed = [f'{args.source}/{name}{end}' for names in SPLITS.values() for name in names for end in ('.png', '.xml')]
        missing = [path for path in needed if not os.path.isfile(path)]
        if missing:
            raise UserError(f'{missing[0]} does not exist; give the folder data of the unpacked package deepforest')
        check_writable(args.out_dir, '--out-dir')
        make(args.source, args.out_dir)


if __name__ == '__main__':
    main()
