"""Draw the figure of the architecture, once for light pages and once for dark ones.

    python docs/figures/draw_architecture.py [--out-dir DIR]

It shows ScopeViT-tiny for an image of 256x256: the pyramid, and one block of stage 3 with its 16x16 tokens. Coordinates
are pixels of the SVG, x to the right and y down.
"""

import math
from pathlib import Path

from scopevit import ScopeViT
from scopevit.models.layers import SCOPES
from scopevit.utils.arguments import add_arguments, tool_parser

ARCH = ScopeViT.parse_arch('tiny')
GRID = ARCH.grid_size
STRIDES = (4, 8, 16, 32)
IMAGE = 256
ZOOM = 2  # stage 3, whose block is shown

THEMES = {
    'light': dict(
        text='#1f2328',
        muted='#59636e',
        line='#818b98',
        border='#d1d9e0',
        panel='#f6f8fa',
        zoom='#eaeef2',
        box='#ffffff',
        cell='#e4e9ee',
        on_colour='#ffffff',
        scopes=('#0969da', '#0d8a72', '#c4680a'),
        groups=('#8250df', '#e0b3d3', '#b9cdf2', '#d9dee4'),
        sky='#cfe6fb',
        hills=('#7fb29a', '#4f8f78'),
        sun='#f2b84b',
        map=('#eaf2fd', '#7aa7dd'),
    ),
    'dark': dict(
        text='#f0f6fc',
        muted='#9da7b3',
        line='#7d8590',
        border='#3d444d',
        panel='#151b23',
        zoom='#1c232c',
        box='#212830',
        cell='#2b333d',
        on_colour='#0d1117',
        scopes=('#58a6ff', '#3fbfa4', '#f0a13c'),
        groups=('#ab7df8', '#7d4a6c', '#3d5482', '#434d59'),
        sky='#1d3a57',
        hills=('#3f7a66', '#2c5a4a'),
        sun='#e3a93f',
        map=('#1b2c42', '#4d7fbd'),
    ),
}


class Drawing:
    """An SVG that grows shape by shape, in the colours of a theme."""

    def __init__(self, width: int, height: int, theme: str) -> None:
        self.size, self.colours, self.shapes = (width, height), THEMES[theme], []

    def add(self, tag: str, content: str = '', **attributes: object) -> None:
        listed = ''.join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
        self.shapes.append(f'<{tag}{listed}>{content}</{tag}>' if content else f'<{tag}{listed}/>')

    def rect(self, x: float, y: float, width: float, height: float, fill: str, **attributes: object) -> None:
        self.add('rect', x=x, y=y, width=width, height=height, fill=fill, **attributes)

    def text(self, x: float, y: float, words: str, size: int = 14, colour: str = 'text', **attributes: object) -> None:
        fill = self.colours.get(colour, colour)
        self.add('text', words, x=x, y=y, font_size=size, fill=fill, **attributes)

    def line(
        self, *points: tuple[float, float], colour: str = 'line', arrow: bool = False, **attributes: object
    ) -> None:
        path = 'M' + ' L'.join(f'{x} {y}' for x, y in points)
        attributes = {'stroke': self.colours.get(colour, colour), 'stroke_width': 1.5, 'fill': 'none', **attributes}
        if arrow:
            attributes['marker_end'] = 'url(#arrow)'
        self.add('path', d=path, **attributes)

    def cells(self, x: float, y: float, side: int, pitch: int, colours: list[str]) -> None:
        """A square map of tokens in interleaved colours, as many along the rows as along the columns."""
        apart, size = math.isqrt(len(colours)), pitch - 1
        for k, colour in enumerate(colours):
            places = [(r, c) for r in range(k // apart, side, apart) for c in range(k % apart, side, apart)]
            squares = (f'M{x + c * pitch} {y + r * pitch}h{size}v{size}h-{size}z' for r, c in places)
            self.add('path', d=''.join(squares), fill=colour)

    def svg(self, title: str) -> str:
        width, height = self.size
        arrow = f'<path d="M0 0 L7 3.5 L0 7 Z" fill="{self.colours["line"]}"/>'
        return '\n'.join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
                'font-family="-apple-system, BlinkMacSystemFont, \'Segoe UI\', Helvetica, Arial, sans-serif">',
                f'<title>{title}</title>',
                '<defs><marker id="arrow" markerUnits="userSpaceOnUse" markerWidth="7" markerHeight="7" refX="6" '
                f'refY="3.5" orient="auto">{arrow}</marker></defs>',
                *self.shapes,
                '</svg>\n',
            ]
        )


def head_colours(drawing: Drawing, stage: int) -> list[str]:
    """The colour of each head's scope, head by head."""
    return [c for c, heads in zip(drawing.colours['scopes'], ARCH.scope_heads[stage]) for _ in range(heads)]


def draw_image(drawing: Drawing, x: float, y: float, side: float) -> None:
    """A landscape, for the image that goes in."""
    colours = drawing.colours
    far, near = colours['hills']
    drawing.add('clipPath', f'<rect x="{x}" y="{y}" width="{side}" height="{side}" rx="6"/>', id='image')
    scene = [
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{colours["sky"]}"/>',
        f'<circle cx="{x + 0.72 * side}" cy="{y + 0.28 * side}" r="{0.11 * side}" fill="{colours["sun"]}"/>',
        f'<path d="M{x} {y + side} L{x} {y + 0.66 * side} L{x + 0.3 * side} {y + 0.36 * side} '
        f'L{x + 0.75 * side} {y + side} Z" fill="{far}"/>',
        f'<path d="M{x + 0.2 * side} {y + side} L{x + 0.66 * side} {y + 0.52 * side} L{x + side} {y + 0.8 * side} '
        f'L{x + side} {y + side} Z" fill="{near}"/>',
    ]
    drawing.add('g', ''.join(scene), clip_path='url(#image)')


def draw_pyramid(drawing: Drawing) -> None:
    """The four stages, and below each its heads in the colours of their scopes."""
    colours, middle = drawing.colours, 112
    fill, edge = colours['map']
    draw_image(drawing, 24, middle - 56, 112)
    drawing.text(80, 30, 'image', 15, text_anchor='middle', font_weight='600')
    drawing.text(80, 196, f'{IMAGE} × {IMAGE} × 3', 13, 'muted', text_anchor='middle')
    drawing.text(24, 232, 'heads of MSSA by scope', 13, 'muted')
    for i, (scope, colour) in enumerate(zip(SCOPES, colours['scopes'])):
        drawing.rect(24 + 58 * i, 242, 11, 11, colour, rx=2)
        drawing.text(40 + 58 * i, 252, f'{scope} × {scope}', 13)

    right, sides = 136, (104, 76, 54, 38)
    for stage, (centre, side) in enumerate(zip((286, 480, 654, 812), sides)):
        copies, shift = stage + 2, 5  # the more channels, the thicker
        left = centre - side / 2 - (copies - 1) * shift / 2
        factor = STRIDES[0] if stage == 0 else STRIDES[stage] // STRIDES[stage - 1]
        drawing.line((right + 8, middle), (left - 8, middle), arrow=True)
        drawing.text((right + left) / 2 - 2, middle - 9, f'embed ÷ {factor}', 13, 'muted', text_anchor='middle')
        for k in reversed(range(copies)):
            place = (left + k * shift, middle - side / 2 - k * shift + (copies - 1) * shift / 2)
            drawing.rect(*place, side, side, fill, stroke=edge, rx=3)
        right = left + side + (copies - 1) * shift
        size = IMAGE // STRIDES[stage]
        drawing.text(centre, 30, f'stage {stage + 1}', 15, text_anchor='middle', font_weight='600')
        drawing.text(centre, 196, f'{size} × {size} × {ARCH.embed_dims[stage]}', 13, 'muted', text_anchor='middle')
        drawing.text(centre, 216, f'{ARCH.depths[stage]} blocks', 13, text_anchor='middle')
        heads = head_colours(drawing, stage)
        across = min(8, len(heads))
        for k, colour in enumerate(heads):
            row, column = divmod(k, across)
            drawing.rect(centre - across * 6.5 + column * 13 + 1, 229 + row * 13, 11, 11, colour, rx=2)
    drawing.line((right + 8, middle), (900, middle), arrow=True)
    for i, (maps, users) in enumerate((('stage 4', 'classifier, pose'), ('all stages', 'FPN, UperNet'))):
        drawing.text(908, middle - 26 + 46 * i, f'{maps}:', 13, 'muted')
        drawing.text(908, middle - 8 + 46 * i, users, 13)


def draw_block(drawing: Drawing, x: float, y: float) -> None:
    """The four residual branches of a block, from top to bottom."""
    colours, spine = drawing.colours, x + 42
    drawing.text(spine, y + 4, 'tokens', 13, 'muted', text_anchor='middle')
    top, pitch = y + 12, 56
    drawing.line((spine, top), (spine, top + 4 * pitch + 14), arrow=True)
    for i, name in enumerate(('MSSA', 'MLP', 'GSDA', 'MLP')):
        start, end = top + i * pitch + 7, top + (i + 1) * pitch - 2
        drawing.line((spine, start), (spine + 104, start), (spine + 104, start + 10), arrow=True)
        drawing.line((spine + 104, end - 8), (spine + 104, end), (spine + 10, end), arrow=True)
        colour = {'MSSA': colours['scopes'][0], 'GSDA': colours['groups'][0]}.get(name, colours['line'])
        drawing.rect(spine + 44, start + 10, 120, 29, colours['box'], stroke=colour, stroke_width=1.5, rx=6)
        drawing.text(spine + 104, start + 29, name, 13, text_anchor='middle', font_weight='600')
        drawing.add('circle', cx=spine, cy=end, r=8, fill=colours['panel'], stroke=colours['line'], stroke_width=1.5)
        drawing.line((spine - 4, end), (spine + 4, end))
        drawing.line((spine, end - 4), (spine, end + 4))


def draw_mssa(drawing: Drawing, x: float, y: float) -> None:
    """A query, and keys that were embedded with a window for each scope."""
    colours, pitch, side = drawing.colours, 11, IMAGE // STRIDES[ZOOM]
    drawing.cells(x, y, side, pitch, [colours['cell']])
    query = (x + 5.5 * pitch - 0.5, y + 12.5 * pitch - 0.5)
    for scope, colour, (row, column) in zip(SCOPES, colours['scopes'], ((4, 4), (4, 12), (11, 13))):
        left, top = x + (column - scope // 2) * pitch - 0.5, y + (row - scope // 2) * pitch - 0.5
        centre = (x + (column + 0.5) * pitch - 0.5, y + (row + 0.5) * pitch - 0.5)
        window = dict(fill_opacity=0.22, stroke=colour, stroke_width=2, rx=2)
        drawing.rect(left, top, scope * pitch, scope * pitch, colour, **window)
        drawing.line(query, centre, colour=colour, stroke_width=2)
        drawing.rect(centre[0] - 5, centre[1] - 5, 10, 10, colour, rx=1.5)
    drawing.add('circle', cx=query[0], cy=query[1], r=6, fill=colours['text'], stroke=colours['panel'], stroke_width=2)
    drawing.text(query[0] + 11, query[1] + 17, 'query', 13, font_weight='600')

    heads = head_colours(drawing, ZOOM)
    scopes = [scope for scope, count in zip(SCOPES, ARCH.scope_heads[ZOOM]) for _ in range(count)]
    for k, (colour, scope) in enumerate(zip(heads, scopes)):
        drawing.rect(x + 198, y + 22 * k, 128, 19, colour, rx=4)
        words = f'head {k + 1}: {scope} × {scope}'
        drawing.text(x + 262, y + 22 * k + 14, words, 12, 'on_colour', text_anchor='middle', font_weight='600')


def draw_gsda(drawing: Drawing, x: float, y: float) -> None:
    """The map with its interleaved groups, and the groups gathered."""
    colours, pitch, side = drawing.colours['groups'], 11, IMAGE // STRIDES[ZOOM]
    apart = side // GRID
    drawing.cells(x, y, side, pitch, colours)
    for group, colour in enumerate(colours):
        row, column = divmod(group, apart)
        drawing.cells(x + 210 + 68 * column, y + 26 + 68 * row, GRID, 7, [colour])
    drawing.line((x + side * pitch + 6, y + 87), (x + 203, y + 87), arrow=True)


def draw(theme: str) -> str:
    """The whole figure as SVG."""
    drawing = Drawing(1040, 676, theme)
    colours = drawing.colours
    draw_pyramid(drawing)
    # The block of one stage, enlarged.
    drawing.add('path', d='M594 254 L714 254 L1024 296 L16 296 Z', fill=colours['zoom'])
    panels = {
        (16, 244): ('ScopeViT block', ('', '', 'Every branch starts with a layer', 'norm and ends in a layer scale.')),
        (272, 368): (
            'MSSA: multi-scale self-attention',
            (
                'Keys and values pass a depthwise convolution,',
                'its kernel by group of heads: <tspan font-weight="600">7 × 7, 5 × 5, 3 × 3</tspan>.',
                'Every query attends to the keys of the whole map,',
                'so each group of heads has a scale of its own.',
            ),
        ),
        (652, 372): (
            'GSDA: global-scale dilated attention',
            (
                'Tokens spaced evenly over the whole map form',
                f'a group of <tspan font-weight="600">{GRID} × {GRID}</tspan>. Attention is inside groups,',
                'with a bias by relative position: its reach is',
                'global, its cost linear in the number of tokens.',
            ),
        ),
    }
    for (x, width), (title, words) in panels.items():
        drawing.rect(x, 292, width, 372, colours['panel'], stroke=colours['border'], rx=10)
        drawing.text(x + 18, 320, title, 15, font_weight='600')
        for i, line in enumerate(words):
            drawing.text(x + 18, 570 + 22 * i, line, 13)
    draw_block(drawing, 16, 336)
    draw_mssa(drawing, 294, 352)
    draw_gsda(drawing, 670, 352)
    return drawing.svg('ScopeViT: a pyramid of four stages; in each block MSSA, then GSDA')


def main() -> None:
    parser = tool_parser(__doc__)
    out_dir = 'folder to write to (default: that of this file)'
    add_arguments(parser, '--out-dir', type=Path, default=Path(__file__).parent, help=out_dir)
    folder = parser.parse_args().out_dir
    for theme in THEMES:
        path = folder / f'architecture_{theme}.svg'
        path.write_text(draw(theme), encoding='utf-8')
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
