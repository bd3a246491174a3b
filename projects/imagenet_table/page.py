"""The page of train_all.py: table, curves, and what they do and do not show."""

import json
import math
import shlex
import statistics
import sys
from datetime import date
from pathlib import Path

import matplotlib
import torch

matplotlib.use('Agg')

import matplotlib.pyplot as plt  # noqa: E402

from projects.imagenet_table.models import P2T  # noqa: E402
from projects.imagenet_table.rows import ROWS, Row  # noqa: E402
from projects.imagenet_table.small import CHANNELS, crossvit_sides, swin_windows  # noqa: E402
from projects.trainings import machines_of  # noqa: E402
from scopevit.analysis import count  # noqa: E402
from scopevit.analysis.spec import load_network
from scopevit.utils.tables import markdown  # noqa: E402


def summarise(row: Row, results: list[dict], config: Path, size: int) -> dict:
    """One line of the table, from a row's trainings with its learning rate."""
    network, _ = load_network(str(config))
    counted = count(network, torch.zeros(1, CHANNELS, size, size))
    accuracies = [result['accuracy'] for result in results]
    facts = dict(name=row.name, parameters=counted.parameters, macs=counted.macs, lr=results[0]['lr'])
    facts.update(seeds=[result['seed'] for result in results], accuracies=accuracies)
    facts['mean'] = statistics.mean(accuracies)
    facts['deviation'] = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    for key in ('images_per_second', 'seconds_per_epoch', 'part_waiting_for_data'):
        facts[key] = statistics.median(result[key] for result in results)
    return facts


def table(lines: list[dict]) -> str:
    """In Markdown, best row first."""
    header = ('Model', 'Parameters', 'MACs', 'Accuracy (%)', 'lowest to highest', 'Seeds')
    rows = [(*header, 'Learning rate', 'Images/s', 's/epoch', 'Waiting')]
    for facts in sorted(lines, key=lambda facts: -facts['mean']):
        spread = '' if facts['deviation'] is None else f' ± {facts["deviation"]:.2f}'
        rows.append(
            (
                facts['name'],
                f'{facts["parameters"] / 1e6:.2f} M',
                f'{facts["macs"] / 1e6:.1f} M',
                f'{facts["mean"]:.2f}{spread}',
                f'{min(facts["accuracies"]):.1f} to {max(facts["accuracies"]):.1f}',
                f'{len(facts["seeds"])}',
                f'{facts["lr"]:g}',
                f'{facts["images_per_second"]:.0f}',
                f'{facts["seconds_per_epoch"]:.1f}',
                f'{facts["part_waiting_for_data"]:.0%}',
            )
        )
    return markdown(rows)


def draw(of_row: dict[str, list[dict]], out: Path) -> None:
    """Loss over iterations and accuracy on held-out images, over the seeds, and on test images of each seed."""
    accuracies = {name: [result['accuracy'] for result in results] for name, results in of_row.items()}
    ordered = sorted(of_row, key=lambda name: -statistics.mean(accuracies[name]))
    figure, (loss, left, right) = plt.subplots(1, 3, figsize=(18, 6), layout='constrained')
    for name in ordered:
        ours = name.startswith('ScopeViT')
        colour = 'black' if ours else plt.cm.tab20([row.name for row in ROWS].index(name))
        runs = [dict(result['losses']) for result in of_row[name]]
        steps = [step for step in runs[0] if all(run.get(step) is not None for run in runs)]
        means = [statistics.mean(run[step] for run in runs) for step in steps]
        loss.plot(steps, means, color=colour, linewidth=2.5 if ours else 1.3)
        by_epoch = list(zip(*(result['held_out'] for result in of_row[name])))
        epochs, means = range(1, len(by_epoch) + 1), [statistics.mean(values) for values in by_epoch]
        left.plot(epochs, means, label=name, color=colour, linewidth=2.5 if ours else 1.3)
        left.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colour, alpha=0.12)
        right.plot(accuracies[name], [name] * len(accuracies[name]), 'o', color=colour, markersize=4, alpha=0.6)
        right.plot(statistics.mean(accuracies[name]), name, '|', color=colour, markersize=16, markeredgewidth=2.5)
    loss.set(xlabel='iteration', ylabel='training loss, mean over seeds')
    left.set(xlabel='epoch', ylabel='accuracy on held-out training images (%)')
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(fontsize='small', loc='lower right')
    right.set(xlabel='accuracy on test images after the last epoch (%): seeds and their mean')
    right.invert_yaxis()
    for axes in (loss, left, right):
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def evit_tokens(size: int, keep_rate: float) -> list[int]:
    """Tokens of EViT-S before and after each of its reorganisations, with the class token and the fused one."""
    tokens = [1 + (size // 16) ** 2]
    for _ in range(3):
        kept = math.ceil(keep_rate * (tokens[-1] - 1))
        tokens.append(min(tokens[-1], kept + 2))
    return tokens


def p2t_grids(size: int) -> list[tuple[int, ...]]:
    """Sides of the grids to which P2T-T pools keys and values, stage by stage."""
    ratios = P2T.arch_settings['tiny']['pool_ratios']
    return [tuple(max(1, round(size // 2 ** (i + 2) / ratio)) for ratio in own) for i, own in enumerate(ratios)]


def limits(size: int) -> str:
    """What the image size makes of the rows."""
    (evit,) = [row for row in ROWS if row.name == 'EViT-S']
    tokens = evit_tokens(size, evit.load().model.backbone.keep_rate)
    last, sides, grids = size // 32, crossvit_sides(size), p2t_grids(size)
    alike = [str(i) for i, own in enumerate(grids, 1) if set(own) == {1}]
    trivial = {1: ': attention in them is trivial', 2: ', where attention has little to do'}
    lines = [
        f'Patches of 16 pixels leave DeiT-S and EViT-S {(size // 16) ** 2} tokens, not 196 and 256.',
        f'EViT-S has {", ".join(map(str, tokens))} tokens, the class token and the fused one among them'
        + (', and so never fewer: the fused one replaces the one it is made of.' if tokens[0] == tokens[-1] else '.')
        + ' In training its keep rate falls from 1 between one thirtieth and one third of the iterations.',
        f'The last maps of the pyramids have {last}x{last} cells{trivial.get(last, "")}.',
        f'P2T-T pools keys to grids of sides {"; ".join(", ".join(map(str, own)) for own in grids)} in its stages'
        + (f': in stages {", ".join(alike)} all are the mean of the map, and not several scales.' if alike else '.'),
        f'Windows of Swin-2G have sides {", ".join(map(str, swin_windows(size)))} in its stages where the original has '
        '7, so that they divide the maps; its tables of relative positions are smaller for it.',
        f'CrossViT-S resizes images to {sides[0]} and {sides[1]} pixels for its branches, for whole patches of 12 and '
        '16.',
        f'MobileViTv2-1.5 attends between patches of 2x2 cells, {math.ceil(last / 2) ** 2} of them in its last map'
        + (', where attention has nothing to choose from' if last <= 2 else '')
        + (', which is interpolated for them.' if last % 2 else '.'),
    ]
    return '\n'.join(f'- {line}' for line in lines)


def write_page(
    out: Path, lines: list[dict], of_row: dict[str, list[dict]], facts: dict, missing: list[str], trials: list[dict]
) -> None:
    """Write NAME.md, NAME.json and NAME.png.

    Args:
        facts: Settings, and the numbers of images and seeds.
        missing: Rows and seeds that there is no training of.
        trials: The trainings that learning rates were chosen by.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = {end: Path(f'{out}.{end}') for end in ('md', 'json', 'png')}
    draw(of_row, paths['png'])
    chosen = [result for results in of_row.values() for result in results]
    others = [result for result in trials if result not in chosen]
    content = dict(date=str(date.today()), **facts, missing=missing, rows=lines, trainings=chosen, other_rates=others)
    paths['json'].write_text(json.dumps(content, indent=1) + '\n')
    rates = ' and '.join(f'{lr:g}' for lr in facts['lr'])
    choice = f'the better of {rates} on the held-out images with seed 0' if len(facts['lr']) > 1 else rates
    size = facts['size']
    epochs, batch = facts['epochs'], facts['batch']
    steps = epochs * math.ceil(facts['images'] / batch)
    typical = statistics.median(line['mean'] for line in lines)
    error = math.sqrt(typical * (100 - typical) / facts['test'])
    command = shlex.join(['python', 'projects/imagenet_table/train_all.py', *sys.argv[1:]])
    page = f"""# All rows trained on small images

From scratch on {facts['images']:,} grey images of clothing (Fashion-MNIST) at {size}x{size},
{epochs} epochs in batches of {batch}, which are {steps:,} steps of AdamW. The recipe is that which the repository
has for ScopeViT-xtiny and these images, one recipe for all.
Learning rate: {choice}.
{facts['held_out']:,} other training images are held out for the choice of the rate and for the curves. Accuracy is
that on {facts['test']:,} test images, by which nothing was chosen, after the last epoch: mean ± standard deviation
over seeds.

    {command}

{table(lines)}

![Loss and accuracy]({paths['png'].name})

{'Missing: ' + ', '.join(missing) + '.' if missing else 'No row and no seed is missing.'}

Images/s are those of training steps in {'mixed precision' if facts['amp'] else 'float32'}, waiting for data included
(its part is in the last column); s/epoch is that speed over the training images, without validation and start-up.
Rows were trained one after another, so their speeds may differ by what else the machine did.
{machines_of(chosen)}

## What this shows, and what not

Every row is trained under one harness; the table says how far each gets in this budget and how fast. It does not say
which row is best when trained to the end, or on photographs: images are small, grey and few, all models have many
times more weights than there are images, and one recipe suits some models more than others. The choice of test images
gives an accuracy of {typical:.0f} % a standard error of {error:.1f} points, besides the spread over seeds; differences
of a few points are not to be relied on.

{limits(size)}
"""
    paths['md'].write_text(page)
    print(f'wrote {", ".join(map(str, paths.values()))}')
