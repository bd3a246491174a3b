"""Make a small detection data set of tree crowns from the aerial photographs in the package deepforest.

    pip download --no-deps deepforest && python -m zipfile -e deepforest-*.whl deepforest
    PYTHONPATH=. python projects/tree_crowns/make_crowns.py deepforest/deepforest/data

It holds four photographs with boxes in Pascal VOC's XML. Two are cut into overlapping tiles for training, of which it
takes random parts; the other two into tiles as large as these parts, one photograph for validation and one, of another
forest, for a last test.
"""

import itertools
import os
from xml.etree import ElementTree

import cv2

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_folder, write_json
from scopevit.utils.image import write_image

# Photographs, and side and step of the tiles in pixels.
SPLITS = {
    'train': (('2019_YELL_2_528000_4978000_image_crop2', 'SOAP_061'), 400, 300),
    'val': (('2019_YELL_2_541000_4977000_image_crop',), 256, 256),
    'other': (('OSBS_029',), 200, 200),
}
LEAST = 0.5  # of a crown must be in a tile to count there


def read_boxes(path: str) -> list[list[float]]:
    """Left, top, right and bottom of each object in Pascal VOC's XML, in pixels."""
    sides = ('xmin', 'ymin', 'xmax', 'ymax')
    boxes = ElementTree.parse(path).getroot().iter('bndbox')
    return [[float(box.findtext(side)) for side in sides] for box in boxes]


def starts(length: int, tile: int, step: int) -> list[int]:
    """Where tiles begin along a side; overlapping ones cover all of it, others leave out what is no whole tile."""
    found = [*range(0, length - tile + 1, step)]
    return found + [length - tile] * (step < tile and found[-1] + tile < length)


def clipped(boxes: list, x: int, y: int, tile: int) -> list[list[float]]:
    """Boxes as x, y, width and height within a tile, without those that are mostly outside."""
    found = []
    for left, top, right, bottom in boxes:
        inner = max(left - x, 0), max(top - y, 0), min(right - x, tile), min(bottom - y, tile)
        w, h = inner[2] - inner[0], inner[3] - inner[1]
        if w > 0 < h and w * h >= LEAST * (right - left) * (bottom - top):
            found.append([inner[0], inner[1], w, h])
    return found


def make(source: str, out: str) -> None:
    """Write images and one annotation file in COCO's format for each split."""
    for split, (names, tile, step) in SPLITS.items():
        images: list[dict] = []
        annotations: list[dict] = []
        for name in names:
            photograph, boxes = cv2.imread(f'{source}/{name}.png'), read_boxes(f'{source}/{name}.xml')
            height, width = photograph.shape[:2]
            for y, x in itertools.product(starts(height, tile, step), starts(width, tile, step)):
                file = f'{name}_{x}_{y}.png'
                write_image(f'{out}/{split}/{file}', photograph[y : y + tile, x : x + tile])
                images.append(dict(id=len(images) + 1, file_name=file, width=tile, height=tile))
                for box in clipped(boxes, x, y, tile):
                    of = dict(id=len(annotations) + 1, image_id=len(images), category_id=1)
                    annotations.append(dict(**of, iscrowd=0, area=box[2] * box[3], bbox=box))
        categories = [dict(id=1, name='tree')]
        write_json(
            f'{out}/annotations/{split}.json', dict(images=images, annotations=annotations, categories=categories)
        )
        print(f'{split}: {len(images)} images, {len(annotations)} crowns')


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        'source', metavar='SOURCE', help='the folder data of the package deepforest, or one with its photographs'
    )
    add_arguments(parser, '--out-dir', default='data/crowns')
    args = parser.parse_args()
    with user_errors():
        files = [f'{args.source}/{name}' for names, _, _ in SPLITS.values() for name in names]
        missing = [path for file in files for path in (f'{file}.png', f'{file}.xml') if not os.path.isfile(path)]
        if missing:
            raise UserError(f'{missing[0]} does not exist; give the folder data of the unpacked package deepforest')
        for split in SPLITS:
            require_writable_folder(f'{args.out_dir}/{split}', '--out-dir')
        require_writable_folder(f'{args.out_dir}/annotations', '--out-dir')
        make(args.source, args.out_dir)


if __name__ == '__main__':
    main()
