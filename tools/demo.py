"""Try a model in the browser: upload a picture, see what is predicted and what its scopes attend to.

    python tools/demo.py CONFIG CHECKPOINT                # then open http://127.0.0.1:7860
    python tools/demo.py CONFIG CHECKPOINT --host 0.0.0.0 --port 8000

For models of all four tasks: the picture with the prediction drawn, a table of the scores, and what the scopes
attend to from the place that is clicked. The page needs gradio, which set-up leaves out:

    pip install 'gradio>=6,<7' 'pandas<3.1'

Only this machine can open the page unless --host says otherwise. Nothing is sent to anybody else, and what was
uploaded is deleted when the program ends. Pose models that find the joints of one person in a box take the whole
picture for one, unless --detector-config and --detector-checkpoint name a detector of people.
"""

import argparse
import importlib.util
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from scopevit.analysis.demo import Demo, attended, predicted
from scopevit.apis.inferencer import Detector, PoseEstimator, build_predictor
from scopevit.apis.people import detected_boxes
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.toolboxes import silence_toolboxes

NEEDED = "'gradio>=6,<7' 'pandas<3.1'"  # as in requirements/optional/demo.txt
FONTS = ['system-ui', 'sans-serif']  # the reader's own: none is loaded
HEIGHT = 420  # pixels of a picture on the page, at most
STYLE = '#scopes img { margin-top: 40px }  /* below the buttons */'


def build_demo(args: argparse.Namespace) -> Demo:
    cfg = load_config(args.config, args.cfg_options)
    predictor = build_predictor(cfg, args.checkpoint, args.device, args.score_thr)
    find_boxes = None
    if args.detector_config or args.detector_checkpoint:
        detector = args.detector_config, args.detector_checkpoint, args.detector_category
        find_boxes = detected_boxes(*detector, predictor.device, args.score_thr)
    return Demo(predictor, find_boxes)


def build_page(demo: Demo, title: str) -> Any:
    """The page: on the left what is uploaded, on the right what is predicted, below the table and the scopes."""
    import gradio as gr

    def predict(path: str | None, score_thr: float) -> tuple:
        figure, columns, rows, text, shape = predicted(demo, path, score_thr)
        return figure, gr.Dataframe(rows, headers=columns or None, visible=bool(rows)), text, shape

    def scopes(path: str | None, shape: tuple | None) -> tuple:
        return attended(demo, path, shape)

    def scopes_there(path: str | None, shape: tuple | None, event: gr.SelectData) -> tuple:
        return attended(demo, path, shape, event.index)

    look = dict(format='png', interactive=False, buttons=['download', 'fullscreen'])
    has_scores = isinstance(demo.predictor, (Detector, PoseEstimator))
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f'## {title}')
        shape = gr.State()
        with gr.Row():
            picture = gr.Image(label='Your picture', height=HEIGHT)
            # The file as it is, for the model's own way of reading it.
            picture.preprocess = lambda payload: payload and payload.path
            figure = gr.Image(label='Prediction', height=HEIGHT, **look)
        with gr.Row():
            with gr.Column():
                text = gr.Markdown()
                score_thr = gr.Slider(0, 1, demo.predictor.score_thr, label='Lowest score shown', visible=has_scores)
            table = gr.Dataframe(show_label=False, interactive=False, max_height=260, visible=False)
        hint = gr.Markdown(f'No attention is drawn: {demo.why_no_scopes}.' if demo.why_no_scopes else '')
        attention = gr.Image(show_label=False, elem_id='scopes', visible=not demo.why_no_scopes, **look)
        # One picture at a time goes through the model, whoever asks.
        queue = dict(concurrency_limit=1, concurrency_id='model', api_visibility='private')
        prediction = dict(fn=predict, inputs=[picture, score_thr], outputs=[figure, table, text, shape], **queue)
        scopes_of = dict(inputs=[picture, shape], outputs=[attention, hint], **queue)
        changed = picture.change(**prediction)
        score_thr.release(**prediction)
        if not demo.why_no_scopes:
            changed.then(scopes, **scopes_of)
            figure.select(scopes_there, **scopes_of)
    return page


def serve(demo: Demo, title: str, host: str, port: int | None) -> None:
    """Serve the page until the program is interrupted or told to end; what was uploaded is deleted then."""
    import gradio as gr

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix='scopevit_demo_') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder
        page = build_page(demo, title)
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
            max_file_size='500mb',
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            css=STYLE,
            theme=gr.themes.Default(font=FONTS, font_mono=['ui-monospace', 'monospace']),
        )
        print(f'open {address} in a browser; Ctrl+C ends it', flush=True)
        page.block_thread()


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
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint', '--device')
    add_arguments(parser, '--score-thr', help='where the slider of the page begins (default: %(default)s)')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at (default: %(default)s, this machine)')
    parser.add_argument('--port', type=int, help='port to listen at (default: the first free one from 7860 on)')
    add_arguments(parser, '--detector-config', '--detector-checkpoint', '--detector-category')
    args = parser.parse_args()

    # Nothing is reported to gradio's makers; that it looks for itself goes through no proxy.
    os.environ['GRADIO_ANALYTICS_ENABLED'] = '0'
    os.environ['no_proxy'] = f'{os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")},127.0.0.1,localhost'
    silence_toolboxes()
    if not importlib.util.find_spec('gradio'):
        raise UserError(f'the page needs gradio, which is not installed: pip install {NEEDED}')
    require_address(args.host, args.port)
    demo = build_demo(args)
    title = f'{Path(args.config).stem}, {Path(args.checkpoint).name}, on {demo.predictor.device}'
    serve(demo, title, args.host, args.port)


if __name__ == '__main__':
    main()
