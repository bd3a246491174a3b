"""Turn boxes in Pascal VOC's XML or YOLO's text files into one annotation file in COCO's format.

    python tools/data/boxes_to_coco.py data/fruit/train labels/train --classes apple pear \\
        --out data/fruit/annotations/train.json

IMAGES and LABELS are folders in which an image and its boxes have the same name, 001.jpg and 001.xml or
001.txt; they may be the same folder. An image without such a file has no objects. List the same classes in the same
order for every split; YOLO's numbers count them from 0.
"""

import os

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_file, write_json


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__, needs_torch=False)
    add_arguments(parser, 'images', nargs=None, metavar='IMAGES', help='folder of images')
    parser.add_argument('labels', metavar='LABELS', help="folder of Pascal VOC's .xml or YOLO's .txt files")
    parser.add_argument('--classes', nargs='+', required=True, metavar='NAME', help='names of the classes, in order')
    add_arguments(parser, '--out', required=True, help='annotation file to write (.json)')
    parser.add_argument('--clip', action='store_true', help='cut boxes off at the edges of their image')
    args = parser.parse_args()

    for folder in (args.images, args.labels):
        if not os.path.isdir(folder):
            raise UserError(f'{folder} is not a folder')
    if len(set(args.classes)) < len(args.classes):
        raise UserError(f'--classes names a class twice: {" ".join(args.classes)}')
    require_writable_file(args.out, '--out')

    from scopevit.datasets.boxes import to_coco

    content = to_coco(args.images, args.labels, args.classes, args.clip)
    write_json(args.out, content)
    used = {annotation['image_id'] for annotation in content['annotations']}
    bare = len(content['images']) - len(used)
    print(
        f'wrote {args.out}: {len(content["images"])} images ({bare} without objects), '
        f'{len(content["annotations"])} boxes'
    )


if __name__ == '__main__':
    main()
