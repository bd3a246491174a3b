"""Try the page of tools/demo.py in a headless browser, as a user does: upload, read, click, upload what is no image.

    pip install -r requirements/optional/demo.txt playwright && sudo apt-get install -y chromium
    PYTHONPATH=. python tests/tools/demo_in_browser.py CONFIG CHECKPOINT IMAGE --out page.png

It is run by hand: gradio and a browser are not part of the set-up. It ends with an error if the page does not show a
figure, a table and the scopes, does not say what is wrong with a broken file, or asks any other machine for anything.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlparse

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]


def upload(page: Page, path: str) -> None:
    clear = page.get_by_label('Remove Image')
    if clear.count():
        clear.first.click()
    page.locator('input[type=file]').first.set_input_files(path)


def scopes_of(page: Page) -> str:
    return page.locator('#scopes img').first.get_attribute('src') or ''


def look(page: Page, image: str, out: str) -> None:
    upload(page, image)
    expect(page.get_by_text('drawing included')).to_be_visible(timeout=60_000)
    expect(page.get_by_text('to choose another place')).to_be_visible(timeout=60_000)
    print(page.get_by_text('drawing included').inner_text())
    for row in page.get_by_role('row').all_inner_texts()[:8]:
        print('  ', ' | '.join(row.split()))
    page.wait_for_timeout(1000)
    page.screenshot(path=out, full_page=True)
    print(f'wrote {out}')


def click(page: Page, out: str) -> None:
    before = scopes_of(page)
    figure = page.locator('.block:has(label:has-text("Prediction")) img').first
    box = figure.bounding_box()
    figure.click(position=dict(x=0.3 * box['width'], y=0.3 * box['height']))
    for _ in range(300):
        if scopes_of(page) not in ('', before):
            break
        page.wait_for_timeout(200)
    else:
        raise AssertionError('a click on the prediction draws nothing new')
    page.wait_for_timeout(1000)
    page.screenshot(path=out, full_page=True)
    print(f'wrote {out}')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint of the model that the config describes')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files')
    out = 'screenshot with the first image; others stand beside it (default: %(default)s)'
    parser.add_argument('--out', default='page.png', metavar='FILE', help=out)
    parser.add_argument('--browser', default='/usr/bin/chromium', metavar='FILE', help='program (default: %(default)s)')
    window = 'height and width of the window (default: 900 1280)'
    parser.add_argument('--window', nargs=2, type=int, default=(900, 1280), metavar=('H', 'W'), help=window)
    args, rest = parser.parse_known_args()
    command = [sys.executable, str(ROOT / 'tools/demo.py'), args.config, args.checkpoint, *rest]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith('open http'), 'the page did not start'
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
            browser = playwright.chromium.launch(executable_path=args.browser, args=['--no-sandbox'])
            page = browser.new_page(viewport=dict(width=args.window[1], height=args.window[0]))
            asked: set[str] = set()
            page.on('request', lambda request: asked.add(urlparse(request.url).hostname or ''))
            start = time.time()
            page.goto(line.split()[1])
            expect(page.get_by_text('Your image')).to_be_visible(timeout=60_000)
            print(f'the page is there after {time.time() - start:.1f} s')
            out = Path(args.out)
            look(page, args.images[0], args.out)
            click(page, str(out.with_stem(f'{out.stem}_click')))
            for number, image in enumerate(args.images[1:], 1):
                look(page, image, str(out.with_stem(f'{out.stem}_{number}')))
            broken = Path(folder, 'broken.jpg')
            broken.write_text('no image')
            upload(page, str(broken))
            expect(page.get_by_text('This file is not an image')).to_be_visible(timeout=60_000)
            page.screenshot(path=str(out.with_stem(f'{out.stem}_broken')), full_page=True)
            asked -= {'127.0.0.1', ''}
            print('asked other machines for:', ', '.join(sorted(asked)) or 'nothing')
            browser.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)  # for what is being computed


if __name__ == '__main__':
    main()
