"""Check the data of a config before a long training: paths, counts, classes, and a sample of files.

    python tools/data/check_dataset.py configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py

For the training, validation and test data it checks that all files exist, that the classes are
those of the model's heads and occur, that boxes, masks, joints and label maps are sound and can be
evaluated, that images are read with all their depth and turned as their annotations are, and that a
sample of them can be decoded and loaded as in training. What takes no time of that, a training
checks before its first iteration. COCO, ImageNet and ADE20K layouts are checked in detail, any other
data set of the toolboxes by building and loading it. Nothing is changed or downloaded.

The exit status is 0 if the data are sound; otherwise it is 1, and all problems are listed with what
to do. With some of them a training cannot start, with others it would learn from faulty labels.
Notes are things to know: a subset of the images, or a few boxes that the toolboxes pass over.
COCO's own files have some of those, so one in 10,000 is a note, more are a problem.
"""

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.silence import silence_toolboxes


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config')
    add_arguments(parser, '--count', default=50, help='how many images of each split to open (default: %(default)s)')
    add_arguments(parser, '--seed', help='random seed, by which they are chosen (default: %(default)s)')
    args = parser.parse_args()

    from scopevit.checks.dataset import check_dataset
    from scopevit.utils.config import load_config

    silence_toolboxes()
    # What is looked at and what is good to know is said as it comes, problems are listed at the end.
    problems, notes = [], 0
    for finding in check_dataset(load_config(args.config, args.cfg_options), args.count, args.seed):
        if finding.is_problem:
            problems.append(str(finding))
            continue
        notes += finding.severity == 'note'
        print(f'note: {finding}' if finding.severity == 'note' else finding, flush=True)
    if problems:
        listed = '\n'.join(f'  {i}. {text}' for i, text in enumerate(problems, 1))
        raise UserError(f'not yet ready for a training, {len(problems)} to correct:\n{listed}')
    print('The data fit the config: a training can start.' + f' Read the notes above first ({notes}).' * (notes > 0))


if __name__ == '__main__':
    main()
