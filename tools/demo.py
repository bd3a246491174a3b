"""Try a model in the browser: upload an image, see what is predicted and what its scopes attend to.

    python tools/demo.py CONFIG CHECKPOINT                # then open http://127.0.0.1:7860
    python tools/demo.py CONFIG CHECKPOINT --host 0.0.0.0 --port 8000

For models of all four tasks: the image with the prediction drawn, a table of the scores, and what the scopes
attend to from the place that is clicked. The page needs gradio, which set-up leaves out:

    pip install 'gradio>=6,<7' 'pandas<3.1'

Only this machine can open the page unless --host says otherwise. Nothing is sent to anybody else, and what was
uploaded is deleted when the program ends. Pose models that find the joints of one person in a box take the whole
image for one, unless --detector-config and --detector-checkpoint name a detector of people.
"""

import importlib.util
import os
import socket
from pathlib import Path

import scopevit
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.silence import silence_toolboxes

NEEDED = "'gradio>=6,<7' 'pandas<3.1'"  # as in requirements/optional/demo.txt


def require_address(host: str, port: int | None) -> None:
    """Make sure that the page can be served there, before the model is built."""
    try:
        with socket.create_server((host, port or 0)):
            pass
    except (OSError, OverflowError) as error:
        where = f'--host {host}' + (f' --port {port}' if port is not None else '')
        reason = str(getattr(error, 'strerror', None) or error).partition(' (')[0]
        raise UserError(f'the page cannot be served at {where} ({reason}); choose others') from None


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__, needs_torch=False)
    add_arguments(parser, 'config', 'checkpoint', '--device')
    add_arguments(parser, '--score-thr', help='where the slider of the page begins (default: %(default)s)')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at (default: %(default)s, this machine)')
    parser.add_argument('--port', type=int, help='port to listen at (default: the first free one from 7860 on)')
    add_arguments(parser, '--detector-config', '--detector-checkpoint', '--detector-category')
    args = parser.parse_args()
    if not importlib.util.find_spec('gradio'):
        raise UserError(f'the page needs gradio, which is not installed: pip install {NEEDED}')
    require_address(args.host, args.port)
    scopevit.load()

    from scopevit.analysis import demo_page
    from scopevit.analysis.demo import Demo
    from scopevit.apis.inferencer import build_predictor
    from scopevit.apis.people import detected_boxes
    from scopevit.utils.config import load_config

    # Nothing is reported to gradio's makers; that it looks for itself goes through no proxy.
    os.environ['GRADIO_ANALYTICS_ENABLED'] = '0'
    os.environ['no_proxy'] = f'{os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")},127.0.0.1,localhost'
    silence_toolboxes()
    predictor = build_predictor(
        load_config(args.config, args.cfg_options), args.checkpoint, args.device, args.score_thr
    )
    find_boxes = None
    if args.detector_config or args.detector_checkpoint:
        detector = args.detector_config, args.detector_checkpoint, args.detector_category
        find_boxes = detected_boxes(*detector, predictor.device, args.score_thr)
    demo = Demo(predictor, find_boxes)
    title = f'{Path(args.config).stem}, {Path(args.checkpoint).name}, on {predictor.device}'
    demo_page.serve(demo, title, args.host, args.port)


if __name__ == '__main__':
    main()
