"""The page of tools/demo.py, which gradio serves."""

import os
import signal
import tempfile
from typing import Any

from ..apis.inferencer import Detector, PoseEstimator
from .demo import Demo, attended, predicted

FONTS = ['system-ui', 'sans-serif']  # the reader's own: none is loaded
HEIGHT = 420  # pixels of an image on the page, at most
STYLE = '#scopes img { margin-top: 40px }  /* below the buttons */'


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
            image = gr.Image(label='Your image', height=HEIGHT)
            # The file as it is, for the model's own way of reading it.
            image.preprocess = lambda payload: payload and payload.path
            figure = gr.Image(label='Prediction', height=HEIGHT, **look)
        with gr.Row():
            with gr.Column():
                text = gr.Markdown()
                score_thr = gr.Slider(0, 1, demo.predictor.score_thr, label='Lowest score shown', visible=has_scores)
            table = gr.Dataframe(show_label=False, interactive=False, max_height=260, visible=False)
        hint = gr.Markdown(f'No attention is drawn: {demo.why_no_scopes}.' if demo.why_no_scopes else '')
        attention = gr.Image(show_label=False, elem_id='scopes', visible=not demo.why_no_scopes, **look)
        # One image at a time goes through the model, whoever asks.
        queue = dict(concurrency_limit=1, concurrency_id='model', api_visibility='private')
        prediction = dict(fn=predict, inputs=[image, score_thr], outputs=[figure, table, text, shape], **queue)
        scopes_of = dict(inputs=[image, shape], outputs=[attention, hint], **queue)
        changed = image.change(**prediction)
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
